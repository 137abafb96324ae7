"""Backends: what computes a network's rows from bytes. Each holds a copy of the network compiled its own way."""
