"""Bytes to pixels: formats, decoding, augmentation, crops."""
