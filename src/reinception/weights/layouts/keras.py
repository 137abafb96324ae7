"""Keras's layouts: automatic names, numbered as constructed (legacy HDF5) or as stored (Keras 3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from reinception.spec import Arch
from reinception.weights.layouts.keys import Form, Key, Shapes, tf_leaves
from reinception.weights.layouts.places import Place


def keras_keys(order: Callable[[Arch], Iterable[Place]]) -> Callable[[Arch], tuple[Key, ...]]:
    def keys(arch: Arch) -> tuple[Key, ...]:
        found: list[Key] = []
        for number, place in enumerate(place for place in order(arch) if place.stage != "aux"):
            found += tf_leaves(place.path, f"conv2d_{number}/kernel", f"batch_normalization_{number}")
        found.append(Key("classifier.weight", "predictions/kernel", Form.IO))
        found.append(Key("classifier.bias", "predictions/bias"))
        return tuple(found)

    return keys


LEGACY = re.compile(
    r"(?P<prefix>(?:[^/]+/)*?)(?P<layer>(?P<kind>conv2d|batch_normalization|dense|predictions)(?:_(?P<number>\d+))?)/"
    r"(?:[^/]+/)*(?P<leaf>kernel|bias|gamma|beta|moving_mean|moving_variance)(?::0)?"
)
KERAS_3 = re.compile(
    r"(?P<prefix>(?:[^/]+/)*)(?P<layer>(?P<kind>conv2d|batch_normalization|dense)(?:_(?P<number>\d+))?)/vars/(?P<leaf>\d+)"
)
_KERAS_3_LEAVES = {
    ("conv2d", 1): ("kernel",),
    ("dense", 2): ("kernel", "bias"),
    ("batch_normalization", 3): ("beta", "moving_mean", "moving_variance"),
    ("batch_normalization", 4): ("gamma", "beta", "moving_mean", "moving_variance"),
}


def canonical_keras(pattern: re.Pattern[str]) -> Callable[[Shapes], dict[str, str]]:
    def canonical(shapes: Shapes) -> dict[str, str]:
        layers: dict[tuple[str, str], dict[int, dict[str, str]]] = {}  # (prefix, kind) -> number -> leaf -> file's name
        for name in shapes:
            match = pattern.fullmatch(name)
            if match and "optimizer" not in match["prefix"]:
                numbers = layers.setdefault((match["prefix"], match["kind"]), {})
                numbers.setdefault(int(match["number"] or 0), {})[match["leaf"]] = name
        convolutions = {prefix: len(numbers) for (prefix, kind), numbers in layers.items() if kind == "conv2d"}
        if not convolutions:
            return {}
        trunk = max(convolutions, key=lambda prefix: convolutions[prefix])
        found: dict[str, str] = {}
        for kind in ("conv2d", "batch_normalization"):
            # Automatic numbers go on from model to model within one process: only their order counts.
            for rank, number in enumerate(sorted(layers.get((trunk, kind), {}))):
                for leaf, name in _named_leaves(kind, layers[trunk, kind][number]).items():
                    found[f"{kind}_{rank}/{leaf}"] = name
        return found | _keras_classifier(layers, shapes)

    return canonical


def _named_leaves(kind: str, leaves: dict[str, str]) -> dict[str, str]:
    """Keras 3 numbers a layer's variables in the order it made them; legacy files name them."""
    if not all(leaf.isdigit() for leaf in leaves):
        return leaves
    names = _KERAS_3_LEAVES.get((kind, len(leaves)), ())
    return {name: leaves[str(number)] for number, name in enumerate(names) if str(number) in leaves}


def _keras_classifier(layers: dict[tuple[str, str], dict[int, dict[str, str]]], shapes: Shapes) -> dict[str, str]:
    """The one dense layer on the pooled features. With more of them it is a head of its own, not this network's."""
    dense = [
        _named_leaves("dense", leaves)
        for (_, kind), numbers in layers.items()
        if kind in ("dense", "predictions")
        for leaves in numbers.values()
    ]
    if len(dense) != 1 or set(dense[0]) != {"kernel", "bias"} or len(shapes[dense[0]["kernel"]]) != 2:
        return {}
    return {f"predictions/{leaf}": name for leaf, name in dense[0].items()}
