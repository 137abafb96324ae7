"""Read weight files of any kind without running anything in them: names and tensors, or one line on why not."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reinception.errors import ReinceptionError, first_line
from reinception.files import utf8_name
from reinception.model.artifact import METADATA_KEY, MODEL_NAME
from reinception.weights import hdf5

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# The last bytes of TensorFlow's tables: the index of a checkpoint, or a whole one as written until 2016.
_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
# Where training scripts keep the network's state inside a checkpoint, most specific first.
_STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network", "weights")
_ARRAYS = ("scalar", "_reconstruct")
# Plain data that training scripts keep beside the weights: options, paths (as text, never opened), NumPy's numbers.
_DATA: tuple[Any, ...] = (
    argparse.Namespace,
    SimpleNamespace,
    *((PurePosixPath, f"pathlib{home}.{kind}PosixPath") for home in ("", "._local") for kind in ("", "Pure")),
    *((PureWindowsPath, f"pathlib{home}.{kind}WindowsPath") for home in ("", "._local") for kind in ("", "Pure")),
    *((getattr(multiarray, name), f"numpy.{home}.multiarray.{name}") for home in ("core", "_core") for name in _ARRAYS),
    np.ndarray,
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__ if name not in ("ObjectDType", "VoidDType")),
)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A file's tensors by name.

    `kind` is what the file is, `is_ours` whether it has our manifest, `remarks` what was done to reach the tensors,
    `sha256` and `md5` its digests ("" where it is several files or none), `published_as` the name of the publisher
    whose own library downloaded it; `config` is the Keras configuration in it, `layers` the names of the Keras layers
    that it lists without one; `pixels` are fields of `Preprocessing` that it determines.
    """

    path: Path
    kind: str
    tensors: Mapping[str, Tensor]
    is_ours: bool = False
    remarks: tuple[str, ...] = ()
    sha256: str = ""
    md5: str = ""
    published_as: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    pixels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


def read(path: str | Path) -> WeightFile:
    """The tensors of a .pth/.pt, .safetensors, .npz, .h5, .weights.h5, .keras file, a TensorFlow checkpoint or a run.

    The content decides, not the name. ReinceptionError, one line that names the file, for anything else.
    """
    file = Path(path)
    try:
        if Path(f"{file}.index").is_file():
            return WeightFile(path=file, kind="TensorFlow checkpoint", tensors=_tensorflow(file))
        if file.is_file() and (part := re.fullmatch(r"(.+)\.(?:index|data-\d+-of-\d+)", str(file))):
            return read(part[1])
        if (file / MODEL_NAME).is_file():
            return read(file / MODEL_NAME)
        if file.is_dir():
            raise ReinceptionError("is a folder; name the file of weights in it")
        if not file.is_file():
            raise ReinceptionError("no such file")
        return _read_file(file)
    except ReinceptionError as error:
        raise ReinceptionError(f"{file}: {error}") from None
    except OSError as error:
        raise ReinceptionError(f"{file}: cannot read: {error.strerror or error}") from None


def _read_file(file: Path) -> WeightFile:
    size = file.stat().st_size
    if size > hdf5.MAX_BYTES:
        raise ReinceptionError(f"{size / 2**30:.1f} GiB is more than any Inception-v3; not read")
    with file.open("rb") as stream:
        head = stream.read(16)
        stream.seek(max(0, size - len(_TABLE_MAGIC)))
        tail = stream.read()
    remarks: tuple[str, ...] = ()
    is_ours = False
    keras: dict[str, Any] = {}
    if head.startswith(_HDF5_MAGIC):
        kind, (tensors, keras) = "HDF5", hdf5.read(file)
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        kind, tensors, remarks, keras = _zip(file)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        kind = "safetensors"
        tensors, is_ours = _safetensors(file)
    elif tail == _TABLE_MAGIC:
        kind, tensors = "TensorFlow checkpoint", _tensorflow(file)
    elif head.startswith((b"\x80", b"(", b"]", b"}", b"c")):
        kind = "PyTorch"
        tensors, remarks = _torch(file)
    elif file.suffix in (".safetensors", ".h5", ".hdf5", ".keras", ".pth", ".pt", ".npz"):
        raise ReinceptionError(f"is not a whole {file.suffix} file ({size} bytes); copy or download it again")
    else:
        raise ReinceptionError("is no kind of weight file known here (.pth, .safetensors, .npz, .h5, .keras, .ckpt)")
    sha256, md5 = _digests(file)
    found = WeightFile(path=file, kind=kind, tensors=tensors, is_ours=is_ours, remarks=remarks, sha256=sha256, md5=md5)
    return replace(found, **keras)


def _digests(file: Path) -> tuple[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()


# -- kinds -------------------------------------------------------------------------------------------------------------


def _safetensors(file: Path) -> tuple[dict[str, Tensor], bool]:
    try:
        with utf8_name(file) as name, safe_open(name, framework="pt") as opened:
            is_ours = METADATA_KEY in (opened.metadata() or {})
            # copies, as what the reader gives are views of the file, which may be written to
            return {one: opened.get_tensor(one).clone() for one in opened.keys()}, is_ours  # noqa: SIM118
    except SafetensorError as error:
        raise ReinceptionError(f"not a whole .safetensors file ({error}); copy or download it again") from None


def _zip(file: Path) -> tuple[str, dict[str, Tensor], tuple[str, ...], dict[str, Any]]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > hdf5.MAX_BYTES:
                raise ReinceptionError("unpacks to more than any Inception-v3; not read")
            names = [member.filename for member in members]
            if "model.weights.h5" in names:
                tensors, keras = hdf5.read(archive.read("model.weights.h5"))
                config = json.loads(archive.read("config.json")) if "config.json" in names else {}
                return "Keras archive", tensors, (), keras | ({"config": config} if config else {})
    except ReinceptionError:
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, EOFError) as error:
        raise ReinceptionError(f"not a whole archive ({first_line(error)}); copy or download it again") from None
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy archive", _npz(file), (), {}
    return "PyTorch", *_torch(file), {}


def _npz(file: Path) -> dict[str, Tensor]:
    tensors = {}
    try:
        with np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                array = np.asarray(archive[name])
                if array.dtype.kind not in "fiub":
                    continue  # not weights: a label or a date
                tensors[name] = torch.from_numpy(np.array(array, order="C"))
    except Exception as error:  # the bytes may come from anyone: whatever fails, the file cannot be used
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise ReinceptionError(
                "holds pickled objects, which could run code: refused, nothing of it was run"
            ) from None
        raise ReinceptionError(f"not a whole .npz file ({first_line(error)}); copy or write it again") from None
    return tensors


def _torch(file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A pickle can run any code when it is loaded; `weights_only` lets it build tensors and `_DATA` only."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*_DATA]):
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)|(Unsupported operand \d+)", str(error))
        if wanted is None:
            raise ReinceptionError(_torn(error)) from None
        raise ReinceptionError(
            f"is a pickle that wants more than tensors ({wanted[0].removeprefix('GLOBAL ')}), which could run code: "
            "refused, nothing of it was run; if you trust its maker, load it there and save its state_dict()"
        ) from None
    except Exception as error:  # as for .npz
        if "TorchScript" in str(error):
            raise ReinceptionError(
                "is a TorchScript program, not a file of weights: refused, nothing of it was run; save its state_dict()"
            ) from None
        raise ReinceptionError(_torn(error)) from None
    return _state_of(content)


def _torn(error: Exception) -> str:
    # torch explains `weights_only` at length before it says what went wrong
    _, marker, reason = str(error).rpartition("WeightsUnpickler error: ")
    what = first_line(ValueError(reason)) if marker else first_line(error)
    return f"not a whole PyTorch file ({what}); copy or download it again"


def _state_of(content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The dictionary of tensors inside a checkpoint, and what was left out."""
    if isinstance(content, Mapping):
        for key in _STATE_KEYS:
            inner = content.get(key)
            if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
                others = [str(name) for name in content if name != key]
                rest = f"; not {', '.join(others[:5])}" if others else ""
                return _only_tensors(inner), (f"taken: the entry {key!r} of the checkpoint{rest}",)
        tensors = _only_tensors(content)
        if tensors:
            return tensors, ()
    raise ReinceptionError(f"holds no dictionary of tensors (it is a {type(content).__name__}); save a state_dict()")


def _only_tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: tensor.detach()
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided
    }


def _tensorflow(prefix: Path) -> dict[str, Tensor]:
    try:
        import tensorflow
    except ImportError:
        raise ReinceptionError(
            "a TensorFlow checkpoint is read with TensorFlow, which is not installed: pip install tensorflow, or where "
            "it is installed write the variables to an .npz (numpy.savez with name -> array) and give that"
        ) from None
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        names = [name for name, kind in types.items() if kind.is_floating or kind.is_integer]
        return {name: torch.from_numpy(np.array(reader.get_tensor(name))) for name in names}
    except Exception as error:  # TensorFlow raises its own classes for torn files
        raise ReinceptionError(f"not a whole TensorFlow checkpoint ({first_line(error)})") from None
