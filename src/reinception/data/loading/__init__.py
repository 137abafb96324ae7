"""Records to batches: reading, cache, worker processes, loader."""
