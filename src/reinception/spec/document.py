"""A network as plain JSON values and back; a document may come from anyone, so every field is checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reinception.spec.checks import SpecError, require
from reinception.spec.values import AdaptivePool, Arch, Aux, BatchNorm, Chain, Concat, Conv, LocalResponseNorm, Pool

MAX_LAYER_DEPTH = 16
# What branches are called in files that were written before they had today's names (docs/decisions/0002).
_FORMER_BRANCHES = {"double": "doubled"}


def current_path(path: str) -> str:
    """The path of a layer, or a tensor's name, from a file of any age, as it is called today."""
    return ".".join(_FORMER_BRANCHES.get(part, part) for part in path.split("."))


_KINDS: dict[str, type[Any]] = {
    "conv": Conv,
    "pool": Pool,
    "adaptive_pool": AdaptivePool,
    "local_response_norm": LocalResponseNorm,
    "batch_norm": BatchNorm,
    "aux": Aux,
    "arch": Arch,
}
_KIND_OF = {kind: name for name, kind in _KINDS.items()}


def encode(value: Any) -> Any:
    if isinstance(value, Chain):
        return [encode(layer) for layer in value.layers]
    if isinstance(value, Concat):
        return {"type": "concat", "branches": [{"name": n, "layers": encode(b)} for n, b in value.branches]}
    if isinstance(value, Arch):
        own: dict[str, Any] = {"type": "arch"}
        own |= {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "stages"}
        own["stages"] = [{"name": name, "layers": encode(stage)} for name, stage in value.stages]
        return own
    if type(value) in _KIND_OF:
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": _KIND_OF[type(value)], **fields}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(document: Any, expected: type[Any] | None, where: str, depth: int = 0) -> Any:
    require(depth <= MAX_LAYER_DEPTH, f"{where}: layers are nested more than {MAX_LAYER_DEPTH} deep")
    if isinstance(document, list):
        require(expected in (None, Chain), f"{where}: expected {expected and expected.__name__}, found a list")
        return Chain(tuple(decode(item, None, f"{where}.{i}", depth + 1) for i, item in enumerate(document)))
    require(isinstance(document, Mapping), f"{where}: expected a layer, found {type(document).__name__}")
    kind = document.get("type")
    if kind == "concat":
        branches = _decode_named(document.get("branches"), f"{where}.branches", Chain, depth)
        return Concat(tuple((current_path(name), branch) for name, branch in branches))
    require(kind in _KINDS, f"{where}: unknown type {kind!r}")
    cls = _KINDS[kind]
    require(expected in (None, cls), f"{where}: expected {expected and expected.__name__}, found {kind!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = set(document) - set(known) - {"type"}
    require(not unknown, f"{where}: unknown field {sorted(unknown)}; written by a newer version?")
    values = {}
    for name, value in document.items():
        if name != "type":
            values[name] = _decode_field(value, str(known[name].type), f"{where}.{name}", depth)
    try:
        return cls(**values)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from None


def _decode_field(value: Any, annotation: str, where: str, depth: int) -> Any:
    """One field, by its annotation: the file may come from anyone, so nothing is taken on trust."""
    if annotation == "Size":
        fits = isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value)
        require(fits, f"{where}: expected [height, width], found {value!r}")
        return tuple(value)
    if annotation == "Chain":
        return decode(value, Chain, where, depth + 1)
    if annotation == "BatchNorm | None":
        return None if value is None else decode(value, BatchNorm, where, depth + 1)
    if annotation == "tuple[Aux, ...]":
        require(isinstance(value, list), f"{where}: expected a list of heads")
        return tuple(decode(item, Aux, f"{where}.{i}", depth + 1) for i, item in enumerate(value))
    if annotation.startswith("tuple[tuple[str, Chain | Concat]"):
        return _decode_named(value, where, None, depth)
    wanted: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
    types = wanted.get(annotation, (str,))
    require(type(value) in types, f"{where}: expected {annotation}, found {value!r}")
    return float(value) if annotation == "float" else value


def _decode_named(items: Any, where: str, expected: type[Any] | None, depth: int) -> tuple[tuple[str, Any], ...]:
    require(isinstance(items, list), f"{where}: expected a list of named layers")
    pairs = []
    for item in items:
        fits = isinstance(item, Mapping) and set(item) == {"name", "layers"} and isinstance(item["name"], str)
        require(fits, f"{where}: expected objects with a name and layers")
        pairs.append((item["name"], decode(item["layers"], expected, f"{where}.{item['name']}", depth + 1)))
    return tuple(pairs)
