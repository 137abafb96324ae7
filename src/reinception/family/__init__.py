"""The network family: the paper's figures as functions, its tables as values, every network by its name."""

from reinception.family.catalog import (
    EXPERIMENTS,
    NETWORKS,
    VARIANTS,
    AuxChoice,
    adaptive,
    check_input_size,
    entry,
    network,
)
from reinception.family.inception import INCEPTION_V2, INCEPTION_V3, TABLE_1, TABLE_3, Entry, Reported, table_2

__all__ = [
    "EXPERIMENTS",
    "INCEPTION_V2",
    "INCEPTION_V3",
    "NETWORKS",
    "TABLE_1",
    "TABLE_3",
    "VARIANTS",
    "AuxChoice",
    "Entry",
    "Reported",
    "adaptive",
    "check_input_size",
    "entry",
    "network",
    "table_2",
]
