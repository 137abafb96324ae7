"""Keras's HDF5 files, read and written with h5py (the extra `convert`)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reinception.errors import ReinceptionError, first_line

MAX_BYTES = 4 << 30  # ten times the largest Inception-v3 training checkpoint; more is a mistake or an attack
# The variables of each kind of layer, in the order in which Keras numbers them.
_VARIABLES = {
    "conv2d": ("kernel",),
    "batch_normalization": ("beta", "moving_mean", "moving_variance"),
    "predictions": ("kernel", "bias"),
}
_HEADER_ROOM = 60_000  # bytes an HDF5 attribute may take: 64 KiB, less some room for the object's header


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ReinceptionError(
            "Keras files need h5py, which is not installed: pip install 'reinception[convert]'"
        ) from None
    return h5py


def read(source: Path | bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every numeric dataset by its path, and Keras's `config` and `layers` where the file has them.

    Links out of the file are not followed, data stored outside is refused.
    """
    h5py = _h5py()
    tensors: dict[str, Tensor] = {}
    keras: dict[str, Any] = {}
    layers: list[str] = []
    num_bytes = 0

    def visit(name: str, item: Any) -> None:
        nonlocal num_bytes
        parent, _, layer = name.rpartition("/")
        if isinstance(item, h5py.Group) and (parent == "layers" or parent.endswith("/layers")):
            layers.append(layer)  # Keras 3 makes a group for each layer, also where it has no weights
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiu":
            return
        if item.external is not None or item.is_virtual:
            raise ReinceptionError(f"dataset {name} lies in another file; only whole files are read")
        num_bytes += item.size * item.dtype.itemsize
        if num_bytes > MAX_BYTES:
            raise ReinceptionError("unpacks to more than any Inception-v3; not read")
        tensors[name] = torch.from_numpy(np.array(item[()]))

    try:
        with h5py.File(source if isinstance(source, Path) else io.BytesIO(source), "r") as file:
            file.visititems(visit)  # hard links only: a soft or external link is never opened
            if "model_config" in file.attrs:
                keras["config"] = json.loads(file.attrs["model_config"])
                keras["config"]["compile_config"] = json.loads(file.attrs.get("training_config", "{}"))
            layers += [str(np.char.decode(name)) for name in np.asarray(file.attrs.get("layer_names", ()), dtype="S")]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ReinceptionError(f"not a whole HDF5 file ({first_line(error)}); copy or download it again") from None
    return tensors, keras | {"layers": tuple(layers)}


def write_legacy(path: Path, tensors: Mapping[str, Tensor], order: Sequence[tuple[str, int]]) -> None:
    """`tensors` (named `conv2d_N/kernel` as constructed, see the layout) as Keras's legacy weight file.

    Keras takes the layers of such a file in the order of `layer_names`: `order` is that of its own network (kind and
    number). Names are those of a fresh Keras session, so that reading by name works too.
    """
    h5py = _h5py()
    layers = [(kind, _automatic(kind, number), f"{kind}_{number}") for kind, number in order]
    if "predictions/kernel" in tensors:
        layers.append(("predictions", "predictions", "predictions"))
    with h5py.File(path, "w") as file:
        _set_names(file, "layer_names", [name for _, name, _ in layers])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"3.0.0"
        for kind, name, ours in layers:
            group = file.create_group(name)
            _set_names(group, "weight_names", [f"{name}/{leaf}" for leaf in _VARIABLES[kind]])
            for leaf in _VARIABLES[kind]:
                group[f"{name}/{leaf}"] = tensors[f"{ours}/{leaf}"].numpy()


def write_keras_3(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """`tensors` (numbered as Keras stores layers) as a Keras 3 `.weights.h5` file."""
    h5py = _h5py()
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            layer, _, leaf = name.partition("/")
            kind, _, number = layer.rpartition("_") if layer != "predictions" else (layer, "", "0")
            stored = "dense" if kind == "predictions" else _automatic(kind, int(number))
            file[f"layers/{stored}/vars/{_VARIABLES[kind].index(leaf)}"] = tensor.numpy()


def _automatic(kind: str, number: int) -> str:
    return kind if number == 0 else f"{kind}_{number}"


def _set_names(group: Any, attribute: str, names: list[str]) -> None:
    values = [name.encode() for name in names]
    assert sum(map(len, values)) < _HEADER_ROOM
    group.attrs[attribute] = values
