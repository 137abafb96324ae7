"""Rewrites: pure functions from a network as values to an equal one that is cheaper to compute."""
