"""Shrink: smaller networks that answer as a trained one does, and the front of accuracy and speed."""
