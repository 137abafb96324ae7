"""Training: loss, optimizers, the loop and the run folder. The package can be called: `reinception.train(config)`.

Args:
    config: a `TrainConfig`, which says what to train, on what, for how long and where.

Returns:
    The new run folder (a Path), whose best weights `reinception.load` loads.

Raises:
    UsageError: what makes no sense, before anything is written.
    ReinceptionError: data that cannot be used, a disk that is full, a lost rank.

Source: Szegedy et al. 2015 (arXiv 1512.00567), sections 7 and 8; each recipe names the source of its numbers.

Example:
    >>> import reinception as ri
    >>> config = ri.TrainConfig(data="images", out="run", epochs=1, width=0.1, input_size=75, batch_size=2)
    >>> run = ri.train(config)  # doctest: +SKIP
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reinception.train.config import TrainConfig


class _Room(ModuleType):
    """The package is the public function as well, for both must be called `reinception.train`."""

    def __call__(self, config: TrainConfig) -> Path:
        from reinception.train.run.start import train

        return train(config)


sys.modules[__name__].__class__ = _Room
