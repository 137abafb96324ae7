"""From what the user names to one row per image, in order, holding no more than a few batches at a time."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from reinception.data.sources.class_folders import image_files
from reinception.data.sources.manifest import SUFFIXES, listed_images
from reinception.data.sources.records import Record
from reinception.distributed import collect, shard
from reinception.errors import BadImage
from reinception.inference.compute import Compute
from reinception.inference.engine import Row, table

ROUND = 4096
"""Images that each rank computes between two exchanges of results."""

Item = Record | BadImage
"""An image to be read, or a path that leads to none, under the name by which the user knows it."""


def expand(paths: Sequence[str | Path]) -> Iterator[Item]:
    """The images that `paths` mean, one at a time: a file is itself, whatever its name; a manifest (`.csv`, `.jsonl`)
    means its rows; folders and globs mean the images in them, by name."""
    for given in paths:
        path = Path(given)
        if path.is_dir():
            yield from _records(image_files(path), given, "there is no image in this folder: name another")
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield from listed_images(path)
        elif os.path.lexists(path) or not glob.has_magic(str(given)):
            yield _record(path)  # when it is missing, reading it says so
        else:
            matches = sorted(map(Path, glob.iglob(str(given), recursive=True)))
            found = (file for match in matches for file in (image_files(match) if match.is_dir() else [match]))
            yield from _records(found, given, "nothing matches this pattern: check it")


def num_items(paths: Sequence[str | Path]) -> int:
    """How many items `paths` mean, by listing them all."""
    return sum(1 for _ in expand(paths))


def peeked(items: Iterator[Item], most: int) -> tuple[int, Iterator[Item]]:
    """How many images to read there are among the items, up to `most`, and the items, of which no more are read."""
    first: list[Item] = []
    found = 0
    while found < most and (item := next(items, None)) is not None:
        first.append(item)
        found += isinstance(item, Record)
    return found, chain(first, items)


def _record(path: Path) -> Record:
    return Record(path=path, name=str(path), target=0)


def _records(paths: Iterable[Path], given: str | Path, otherwise: str) -> Iterator[Item]:
    is_empty = True
    for path in paths:
        is_empty = False
        yield _record(path)
    if is_empty:
        yield BadImage(str(given), "missing", otherwise)


def rows_in_order(
    items: Iterator[Item],
    function: Callable[[Iterable[Record]], Iterator[Row | BadImage]],
    columns: int,
    compute: Compute,
) -> Iterator[tuple[str, Row | BadImage]]:
    """(name, row of `columns` values that `function` computes, or why there is none) of each item, in order.

    With ranks, which all call this with the same arguments, each computes its shard, and all get every row.
    """
    listed = _Counted(items)
    rows = _alone(listed, function) if compute.ranks is None else _by_ranks(listed, function, columns, compute)
    for done, named in enumerate(rows, start=1):
        yield named
        if compute.progress:
            compute.progress(done, listed.total)


class _Counted:
    """An iterator that knows how many items there were once it has come to its end."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items, self._num = items, 0
        self.total: int | None = None

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        for item in self._items:
            self._num += 1
            return item
        self.total = self._num
        raise StopIteration


def _alone(
    items: Iterator[Item], function: Callable[[Iterable[Record]], Iterator[Row | BadImage]]
) -> Iterator[tuple[str, Row | BadImage]]:
    waiting: deque[Item] = deque()

    def records() -> Iterator[Record]:
        for item in items:
            waiting.append(item)
            if isinstance(item, Record):
                yield item

    for row in function(records()):
        while isinstance(item := waiting.popleft(), BadImage):
            yield item.name, item
        yield item.name, row
    yield from ((item.name, item) for item in waiting if isinstance(item, BadImage))


def _by_ranks(
    items: Iterator[Item],
    function: Callable[[Iterable[Record]], Iterator[Row | BadImage]],
    columns: int,
    compute: Compute,
) -> Iterator[tuple[str, Row | BadImage]]:
    ranks, size = compute.ranks, compute.batch_size
    assert ranks is not None
    while True:  # a last round of nothing, so that ranks which see more images than others are found out
        part = list(islice(items, ROUND * ranks.world_size))
        mine = shard([item for item in part if isinstance(item, Record)], ranks, batch_size=size)
        rows, bad = collect(*table(function(mine), len(mine), columns), ranks, batch_size=size)
        index = 0
        for item in part:
            if isinstance(item, BadImage):
                yield item.name, item
            else:
                yield item.name, bad[index] if index in bad else rows[index]
                index += 1
        if not part:
            return
