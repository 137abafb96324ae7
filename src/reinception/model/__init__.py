"""Networks as tensors: a spec becomes a module, is initialised as published, and is kept in one file."""
