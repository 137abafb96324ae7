"""How work on images tells how far it is: a job its parent process which image it is at, the whole its caller."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reinception.errors import BadImage

NO_IMAGE = -1
Progress = Callable[[int, int | None], None]
"""Called with (images done, images in all; None while the list of them has not been read to its end)."""


class Watchdog:
    """Through this a job tells the parent process which image it is working on.

    Outside a worker process nobody watches, and it does nothing: there a crash cannot be survived.
    """

    def __init__(self, shared: Any = None) -> None:
        self._shared = shared  # (current image or NO_IMAGE, number of changes), seen by the parent
        self.known_bad: Mapping[int, BadImage] = {}

    def mark_current(self, item: int) -> None:
        """To be called before image `item` is decoded: if this process dies or hangs now, that image is the cause.

        Raises the `BadImage` (`crash` or `hang`) of an image that has cost a process its life before.
        """
        if item in self.known_bad:
            raise self.known_bad[item]
        self._set(item)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time inside the block does not count, for it is spent on the network and not in a decoder."""
        if self._shared is None:
            yield
            return
        item, self._shared[0] = self._shared[0], NO_IMAGE
        try:
            yield
        finally:
            self._set(item)

    def clear(self) -> None:
        """No image is being worked on."""
        if self._shared is not None:
            self._shared[0] = NO_IMAGE

    def _set(self, item: int) -> None:
        if self._shared is not None:
            self._shared[1] += 1
            self._shared[0] = item
