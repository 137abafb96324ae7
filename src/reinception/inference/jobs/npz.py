"""An .npz file of arrays that may be larger than memory: each is written from a stream of its rows."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

_UCS4 = f"utf-32-{sys.byteorder[0]}e"  # how numpy stores text
_EPOCH = (1980, 1, 1, 0, 0, 0)  # no time in the file: the same rows are the same bytes


def write_npz(
    path: Path,
    vectors: tuple[str, int, int, IO[bytes]],
    texts: Mapping[str, Callable[[], Iterable[str]]],
    constants: Mapping[str, str | tuple[str, ...]],
) -> None:
    """Write an array of float32 from (name, rows, columns, their bytes), arrays of `texts`, each read twice, and
    `constants`, for `numpy.load` without pickle."""
    name, num, columns, values = vectors
    with zipfile.ZipFile(path, "w") as archive:
        with _entry(archive, name, np.dtype(np.float32), (num, columns)) as entry:
            shutil.copyfileobj(values, entry, 1 << 20)
        for key, read in texts.items():
            _write_texts(archive, key, read)
        for key, value in constants.items():
            if isinstance(value, str):
                with _entry(archive, key, np.dtype((np.str_, len(value))), ()) as entry:
                    entry.write(value.encode(_UCS4))
            else:
                _write_texts(archive, key, value.__iter__)


def _write_texts(archive: zipfile.ZipFile, name: str, read: Callable[[], Iterable[str]]) -> None:
    num = longest = 0
    for text in read():
        num, longest = num + 1, max(longest, len(text))
    with _entry(archive, name, np.dtype((np.str_, longest)), (num,)) as entry:
        for text in read():
            entry.write(text.encode(_UCS4, "surrogatepass").ljust(4 * longest, b"\0"))


def lines_of(path: Path) -> Iterator[Any]:
    """The JSON values of a file, one a line."""
    with path.open("rb") as file:
        yield from map(json.loads, file)


@contextmanager
def _entry(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """An array of the .npz, whose values are to be written in C order."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as entry:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(entry, header)
        yield entry
