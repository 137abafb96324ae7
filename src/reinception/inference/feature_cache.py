"""Rows computed of images, kept on disk by content: of which image, how, with which weights; checked when read."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as deserialise
from safetensors.torch import save as serialise
from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.files import utf8_name, write_bytes
from reinception.model.build import Network

IMAGES = 512
"""Rows in one file at most: the work that a killed process loses."""

_FORMAT = 2
_BLOCK_BYTES = 32 << 20
_DIGEST_BYTES = 32


def silent(_: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class _Place:
    """Where a row is: a file, its row there, and the day it was written."""

    path: Path
    row: int
    date: str


@dataclass(eq=False)
class FeatureCache:
    """Rows of one kind: those that `how` describes, each under the SHA-256 of the image file it was computed of.

    A file of rows is written whole or not at all, under a name made of its content, so any number of processes may
    share the folder: what one has written, the others find. It holds the SHA-256 of its rows and what they are rows
    of; a file that is damaged, or that was computed in another way, is named with `say`, removed, and made anew.

    Args:
        root: the folder of all kinds; None keeps nothing.
        how: what the rows depend on besides the image: weights, pixels, precision. Anything that JSON can hold.
        shape: of one row.
        dtype: of the rows.
        say: gets a line for each file that cannot be used.
    """

    root: Path | None
    how: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    say: Callable[[str], None] = silent
    _places: dict[bytes, _Place] = field(init=False, default_factory=dict)
    _unkept: dict[bytes, tuple[Tensor, int]] = field(init=False, default_factory=dict)
    _seen: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        kind = {"shape": list(self.shape), "dtype": str(self.dtype), "format": _FORMAT, "torch": torch.__version__}
        told = json.dumps({**self.how, **kind}, sort_keys=True)
        self.key = hashlib.sha256(told.encode()).hexdigest()
        self.refresh()

    @property
    def folder(self) -> Path | None:
        """Where the rows of this kind are."""
        return None if self.root is None else Path(self.root) / self.key

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def rows_per_file(self) -> int:
        """How many rows are best written together."""
        return max(1, min(IMAGES, _BLOCK_BYTES // self.row_bytes))

    def __contains__(self, digest: object) -> bool:
        return digest in self._places or digest in self._unkept

    def date(self, digest: bytes) -> str | None:
        """The day on which the row of that image was kept, None where there is none."""
        place = self._places.get(digest)
        return None if place is None else place.date

    def refresh(self) -> None:
        """Finds what other processes have written since."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._seen:
                self._seen.add(path.name)
                try:
                    self._index(path)
                except FileNotFoundError:  # another process has found it damaged and removed it
                    continue
                except (ReinceptionError, SafetensorError, OSError, KeyError, ValueError) as error:
                    self.say(f"{path}: cannot be used ({error}); its rows are computed anew")
                    with contextlib.suppress(OSError):
                        path.unlink()

    def rows(self, digests: Sequence[bytes]) -> tuple[Tensor, list[int]]:
        """The rows (n, *shape) of images that are all there, in this order, and their marks. KeyError otherwise."""
        found = torch.empty((len(digests), *self.shape), dtype=self.dtype)
        marks = [0] * len(digests)
        by_file: dict[Path, list[int]] = {}
        for index, digest in enumerate(digests):
            if digest in self._unkept:
                found[index], marks[index] = self._unkept[digest]
            else:
                by_file.setdefault(self._places[digest].path, []).append(index)
        for path, indices in by_file.items():
            with utf8_name(path) as name, safe_open(name, framework="pt") as file:
                rows, own = file.get_slice("rows"), file.get_tensor("marks")
                for index in indices:
                    row = self._places[digests[index]].row
                    found[index], marks[index] = rows[row], int(own[row])
        return found, marks

    def keep(self, digests: Sequence[bytes], rows: Tensor, marks: Sequence[int] | None = None) -> None:
        """Keeps `rows` (n, *shape) of the images `digests`, each with a mark of 0 to 255.

        Where the folder cannot be written they stay in memory, and a line says so: that costs only time.
        """
        marks = [0] * len(digests) if marks is None else marks
        rows = rows.to(self.dtype).contiguous()
        if self.folder is None:
            self._unkept |= {digest: (rows[row], marks[row]) for row, digest in enumerate(digests)}
        elif digests:
            try:
                self._write(self.folder, digests, rows, marks)
            except (OSError, ReinceptionError) as error:
                self.say(f"{self.folder}: cannot keep what was computed ({error}); that costs only time")
                self._unkept |= {digest: (rows[row], marks[row]) for row, digest in enumerate(digests)}

    def _write(self, folder: Path, digests: Sequence[bytes], rows: Tensor, marks: Sequence[int]) -> None:
        tensors = {
            "rows": rows,
            "digests": torch.tensor([list(digest) for digest in digests], dtype=torch.uint8),
            "marks": torch.tensor(list(marks), dtype=torch.uint8),
        }
        today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        sha256 = _checksum(tensors)
        path = folder / f"{sha256[:32]}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, serialise(tensors, {"key": self.key, "sha256": sha256, "date": today}), replace=True)
        self._seen.add(path.name)
        self._places |= {digest: _Place(path, row, today) for row, digest in enumerate(digests)}

    def _index(self, path: Path) -> None:
        """Notes the rows of a file, each of which has been checked."""
        content = path.read_bytes()
        tensors = deserialise(content)
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            told = file.metadata() or {}
        if told.get("key") != self.key:
            raise ReinceptionError("it was computed in another way, or is no file of this cache")
        if told.get("sha256") != _checksum(tensors):
            raise ReinceptionError("damaged: its SHA-256 is not the one it was written with")
        rows, digests = tensors["rows"], tensors["digests"]
        num = len(digests)
        if rows.shape != (num, *self.shape) or rows.dtype != self.dtype or digests.shape != (num, _DIGEST_BYTES):
            raise ReinceptionError("its rows are of another shape")
        for row, digest in enumerate(digests.numpy()):
            self._places.setdefault(digest.tobytes(), _Place(path, row, told.get("date", "")))


def weights_digest(network: Network, stages: Sequence[str]) -> str:
    """SHA-256 (hex) of the named stages to the bit: their layers, and every weight and buffer of them."""
    layers = [stage for stage in network.arch.to_json()["stages"] if stage["name"] in stages]
    digest = hashlib.sha256(json.dumps(layers, sort_keys=True).encode())
    for name, tensor in network.state_dict().items():
        if name.partition(".")[0] in stages and tensor.is_floating_point():
            digest.update(f"\0{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
            digest.update(_bytes_of(tensor).data)
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}\0".encode())
        digest.update(_bytes_of(tensors[name]).data)
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> npt.NDArray[np.uint8]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()
