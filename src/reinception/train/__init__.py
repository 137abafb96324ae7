"""Training: loss, optimizers, the loop and the run folder."""
