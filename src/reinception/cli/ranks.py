"""The processes that torchrun has started for one command, connected."""

from reinception.distributed import connected

__all__ = ["connected"]
