"""One training run: plan, start, checkpoints, folder, log, verdict."""
