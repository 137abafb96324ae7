"""A step's forward and backward pass that keeps one activation a layer, from torch's own operators."""
