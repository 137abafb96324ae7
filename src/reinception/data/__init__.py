"""Pixels: from files on a disk to batches of uint8 tensors."""
