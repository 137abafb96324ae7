"""A network as plain JSON values and back: what objects are called, and names that older files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reinception.documents import Documents
from reinception.spec.changes import change_layers
from reinception.spec.checks import SpecError
from reinception.spec.values import (
    AdaptivePool,
    Arch,
    Aux,
    BatchNorm,
    Chain,
    ChannelRange,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
)

_DOCUMENTS = Documents(
    kinds={
        "conv": Conv,
        "pool": Pool,
        "adaptive_pool": AdaptivePool,
        "local_response_norm": LocalResponseNorm,
        "slice": ChannelRange,
        "batch_norm": BatchNorm,
        "concat": Concat,
        "aux": Aux,
        "arch": Arch,
    },
    bare=(Chain,),
    error=SpecError,
)
# What branches are called in files that were written before they had today's names (docs/decisions/0002).
_FORMER_BRANCHES = {"double": "doubled"}


def current_path(path: str) -> str:
    """The path of a layer, or a tensor's name, from a file of any age, as it is called today."""
    return ".".join(_FORMER_BRANCHES.get(part, part) for part in path.split("."))


def encode(arch: Arch) -> dict[str, Any]:
    """`arch` as plain JSON values."""
    return _DOCUMENTS.encode(arch)


def decode(document: Mapping[str, Any]) -> Arch:
    """The architecture of `encode`. Raises SpecError that names the first field that does not fit."""

    def rename(layer: Layer) -> Layer:
        if not isinstance(layer, Concat):
            return layer
        return Concat(tuple((current_path(name), branch) for name, branch in layer.branches))

    return change_layers(_DOCUMENTS.decode(document, Arch, "arch"), rename)
