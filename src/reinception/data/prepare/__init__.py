"""Before training: audit, duplicates, leak-free splits, shards."""
