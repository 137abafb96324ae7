"""Everybody's Inception-v3 weights: read safely, identified, converted with a proof, and given back out."""
