"""Which image comes at which position of an endless training sequence: every image equally often, or every class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reinception.data.images.random_stream import RandomStream
from reinception.data.sources.records import Record

KEPT_ORDERS = 2
"""Of each kind: positions are asked for in order, or in two places at once."""


class Permuted:
    """One permutation of `num` images per epoch, a function of (seed, epoch), laid end to end."""

    def __init__(self, num: int, seed: int) -> None:
        self._num, self._seed = num, seed
        self._order = lru_cache(KEPT_ORDERS)(self._permutation)

    def at(self, position: int) -> tuple[int, int]:
        """How often the image at `position` came before, and its index."""
        epoch, place = divmod(position, self._num)
        return epoch, int(self._order(epoch)[place])

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return RandomStream("order", self._seed, epoch).permutation(self._num)


class Balanced:
    """Rounds in which every class comes once, in random order; of each class one permutation after another.

    So all classes are equally frequent in any stretch of the sequence, and an image of a rare class comes back more
    often than one of a common class, of which none is left out. A function of (seed, position) alone.
    """

    def __init__(self, records: Sequence[Record], seed: int) -> None:
        found: dict[int, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            found[record.target].append(index)
        self._classes = [np.array(found[target], dtype=np.int64) for target in sorted(found)]
        self._seed = seed
        self._round = lru_cache(KEPT_ORDERS)(self._permuted_round)
        self._pass = lru_cache(KEPT_ORDERS * len(self._classes))(self._permuted_pass)

    def at(self, position: int) -> tuple[int, int]:
        """How often the image at `position` came before, and its index."""
        number, place = divmod(position, len(self._classes))
        which = int(self._round(number)[place])
        before, nth = divmod(number, len(self._classes[which]))
        return before, int(self._pass(which, before)[nth])

    def _permuted_round(self, number: int) -> NDArray[np.int64]:
        return RandomStream("balanced classes", self._seed, number).permutation(len(self._classes))

    def _permuted_pass(self, which: int, before: int) -> NDArray[np.int64]:
        images = self._classes[which]
        return images[RandomStream("balanced order", self._seed, which, before).permutation(len(images))]
