"""Pooled features (embeddings) of many images, one row each, in one .npz file."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError
from reinception.files import new_file, refuse_existing
from reinception.inference.compute import HERE, Compute
from reinception.inference.engine import Engine, Row
from reinception.inference.evaluate import as_model
from reinception.inference.stream import expand, rows_in_order
from reinception.model.artifact import Manifest, Model


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """One image: its pooled features (num_features,) float32, or the reason why there are none."""

    path: str
    values: Row | None
    error: str | None

    @classmethod
    def of(cls, path: str, row: Row | BadImage) -> ImageFeatures:
        """What a row of the engine, or its lack, stands for."""
        if isinstance(row, BadImage):
            return cls(path=path, values=None, error=row.reason)
        return cls(path=path, values=row, error=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """`values` (n, num_features) float32, one row for each of `paths` (n); `errors` says why others have none."""

    paths: tuple[str, ...]
    values: npt.NDArray[np.float32]
    errors: Mapping[str, str]


def features(
    model: Model | str | Path, paths: str | Path | Sequence[str | Path], *, compute: Compute = HERE
) -> Features:
    """The globally averaged features of images, before the classifier: 2,048 for Inception-v3 at full width.

    Args:
        model: a `Model` or the path of one. Its network is not changed.
        paths: one or several files, folders, globs or manifests, as for `predict`.
        compute: device, precision, batches.

    Returns:
        The `Features`, in the order given, without the images that cannot be read; `errors` names those.

    Raises:
        ReinceptionError: a damaged model or manifest, no such device or precision.

    Example:
        >>> import reinception as ri
        >>> ri.features("model.safetensors", "images").values.shape
        (4, 203)
    """
    model = as_model(model)
    found = list(features_stream(model, paths, compute=compute))
    good = [one for one in found if one.values is not None]
    values = np.zeros((len(good), model.network.num_features), dtype=np.float32)
    for row, one in zip(values, good, strict=True):
        row[:] = one.values
    errors = {one.path: one.error for one in found if one.error is not None}
    return Features(paths=tuple(one.path for one in good), values=values, errors=errors)


def features_stream(
    model: Model | str | Path, paths: str | Path | Sequence[str | Path], *, compute: Compute = HERE
) -> Iterator[ImageFeatures]:
    """`features`, one image at a time: a million images need no more memory than a thousand.

    With ranks, which all call this with the same arguments, each computes its shard, and all get every row.
    """
    model = as_model(model)
    engine = Engine(model.network, model.preprocessing, compute)
    items = expand([paths] if isinstance(paths, str | Path) else paths)

    def function(records: Iterable[Record]) -> Iterator[Row | BadImage]:
        return engine.features(engine.batches(records))

    for name, row in rows_in_order(items, function, model.network.num_features, compute):
        yield ImageFeatures.of(name, row)


@contextmanager
def npz_writer(path: str | Path, manifest: Manifest) -> Iterator[Callable[[str, Row], None]]:
    """Writes (path, features) as they come to a new .npz, which appears, whole, when the block ends.

    It holds `features` (n, num_features), `paths` (n,), and as JSON the network and `preprocessing` that gave them, for
    `numpy.load` without pickle; there is no file where nothing was written. Until the end rows and names lie in
    temporary files beside it, for an array's shape comes before its values.
    """
    path = Path(path)
    refuse_existing(path)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as rows, tempfile.TemporaryFile(dir=path.parent) as names:
            num = columns = longest = 0

            def write(name: str, row: Row) -> None:
                nonlocal num, columns, longest
                num, columns, longest = num + 1, len(row), max(longest, len(name))
                rows.write(row.tobytes())
                names.write(json.dumps(name).encode() + b"\n")

            yield write
            if num == 0:
                return
            with new_file(path) as part, zipfile.ZipFile(part, "w") as archive:
                rows.seek(0)
                with _entry(archive, "features", np.dtype(np.float32), (num, columns)) as entry:
                    shutil.copyfileobj(rows, entry, 1 << 20)
                names.seek(0)
                with _entry(archive, "paths", np.dtype((np.str_, longest)), (num,)) as entry:
                    for line in names:
                        text = json.loads(line).encode(_UCS4, "surrogatepass")
                        entry.write(text.ljust(4 * longest, b"\0"))
                preprocessing = json.dumps(manifest.preprocessing.to_json())
                for name, value in (("network", manifest.arch.name), ("preprocessing", preprocessing)):
                    with _entry(archive, name, np.dtype((np.str_, len(value))), ()) as entry:
                        entry.write(value.encode(_UCS4))
    except BrokenPipeError:  # of another file
        raise
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot write: {error.strerror}") from None


_UCS4 = f"utf-32-{sys.byteorder[0]}e"  # how numpy stores text


@contextmanager
def _entry(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """An array of the .npz, whose values are to be written in C order."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(entry, header)
        yield entry
