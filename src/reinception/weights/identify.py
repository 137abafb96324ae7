"""Identify a weight file: its layout, the parts of Inception-v3 in it, and its possible publishers."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.preprocess import Preprocessing
from reinception.spec import Arch
from reinception.weights.layouts import keras_config, match
from reinception.weights.layouts.keys import Shapes
from reinception.weights.layouts.match import Identification
from reinception.weights.publishers import PUBLISHERS, Publisher, by_digest, candidates, publisher
from reinception.weights.weight_files import WeightFile

RELEASED: Arch = family.NETWORKS["inception_v3"].arch
_DENSE, _LINEAR = re.compile(r"(^|/)(dense|predictions)(_\d+)?/"), ("kernel", "bias")
ASSUMED = "assumed from names and shapes"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A file, its layout and parts, its likeliest publisher, how certain that is, and who else it could be from."""

    file: WeightFile
    found: Identification
    publisher: Publisher
    certainty: str
    could_also_be: tuple[str, ...]

    @property
    def is_assumed(self) -> bool:
        return self.certainty == ASSUMED

    @property
    def preprocessing(self) -> Preprocessing:
        """The pixels that the file itself determines, for the rest its publisher's."""
        return dataclasses.replace(self.publisher.preprocessing, **self.file.pixels)

    @property
    def licence(self) -> str:
        """A layout is no proof of origin, so a licence is claimed only where the origin is known."""
        published = self.publisher.licence
        if self.is_assumed and published:
            return f"unknown: the file does not say; {self.publisher.name} publishes under {published}"
        return published or "unknown"

    def lines(self) -> tuple[str, ...]:
        """One fact a line, for people."""
        found, pixels = self.found, self.preprocessing
        outputs = f"{found.num_classes} outputs" if found.has_classifier else "no classifier"
        parts = [
            self.publisher.network,
            outputs,
            "auxiliary head" if found.has_auxiliary else "no auxiliary head",
            "batch norm with gamma" if found.has_scale else "batch norm without gamma",
        ]
        lines = [
            f"{self.file.path}: {self.file.kind}, {found.layout.title}",
            f"source: {self.publisher.name} ({self.certainty})",
        ]
        if self.could_also_be:
            lines.append(f"could also be: {', '.join(self.could_also_be)}")
        lines += [
            f"network: {', '.join(parts)}",
            f"border of average pools: {'counted' if self.publisher.counts_border else 'not counted'}",
            f"pixels: {pixels.resize}, {pixels.interpolation}, to {pixels.input_size}; mean {_short(pixels.mean)}, "
            f"std {_short(pixels.std)}",
            f"licence: {self.licence}",
        ]
        if found.unused:
            lines.append(f"not part of the network: {len(found.unused)} tensors, first {found.unused[0]}")
        return (*lines, *self.file.remarks, *found.remarks)

    def to_json(self) -> dict[str, Any]:
        return {
            "file": str(self.file.path),
            "kind": self.file.kind,
            "sha256": self.file.sha256,
            "layout": self.found.layout.name,
            "source": self.publisher.name,
            "source_is": self.certainty,
            "could_also_be": list(self.could_also_be),
            "network": self.publisher.network,
            "num_classes": self.found.num_classes,
            "auxiliary": self.found.has_auxiliary,
            "batch_norm_scale": self.found.has_scale,
            "counts_border": self.publisher.counts_border,
            "preprocessing": self.preprocessing.to_json(),
            "licence": self.licence,
            "unused": list(self.found.unused),
            "remarks": [*self.file.remarks, *self.found.remarks],
        }


def identify(shapes: Shapes) -> Identification:
    """Which layout and which parts of Inception-v3 tensors of these names and shapes are; ReinceptionError if none."""
    return match.identify(shapes, RELEASED)


def find(file: WeightFile, named: str | None = None) -> Finding:
    """What `file` is; `named` is the publisher that the user names. ReinceptionError if it is no Inception-v3."""
    try:
        file = _with_plain_head(file)
        found = identify(file.shapes)
    except ReinceptionError as error:
        raise ReinceptionError(f"{file.path}: {error}") from None
    name = found.layout.name
    if named is not None:
        fits, certainty = [publisher(named)], "named by the user"
        if name not in fits[0].layouts:
            fitting = ", ".join(entry.name for entry in PUBLISHERS.values() if name in entry.layouts)
            raise UsageError(f"{file.path}: {fits[0].name} does not name tensors like this; those who do: {fitting}")
    elif file.published_as:
        fits = [publisher(file.published_as)]
        certainty = f"downloaded and checked by {file.published_as.partition(':')[0]}"
    elif fits := [entry for entry in by_digest(file.sha256, file.md5) if name in entry.layouts]:
        certainty = "known by the file's digest"
    else:
        fits = list(candidates(name, num_classes=found.num_classes, has_auxiliary=found.has_auxiliary))
        certainty = ASSUMED
    others = tuple(entry.name for entry in fits[1:])
    return Finding(file=file, found=found, publisher=fits[0], certainty=certainty, could_also_be=others)


def _with_plain_head(file: WeightFile) -> WeightFile:
    """A Keras file with its head as one dense layer, or without a head; its remarks say what was done."""
    if not file.config:
        why = keras_config.doubt(file.layers)
        tensors = {name: tensor for name, tensor in file.tensors.items() if not why or not _DENSE.search(name)}
        remarks = (f"no classifier taken: {why}",) if len(tensors) < len(file.tensors) else ()
        return dataclasses.replace(file, tensors=tensors, remarks=file.remarks + remarks)
    head = keras_config.read_head(file.config, file.tensors, RELEASED)
    tensors = {name: tensor for name, tensor in file.tensors.items() if name not in head.stored}
    remarks = (f"no classifier taken: {head.why_not}",) if head.why_not else ()
    if head.kernel is not None and head.bias is not None:
        is_new = any("/vars/" in name for name in head.stored)
        names = (
            f"layers/dense/vars/{index}" if is_new else f"predictions/{leaf}" for index, leaf in enumerate(_LINEAR)
        )
        tensors |= dict(zip(names, (head.kernel, head.bias), strict=True))
        remarks = (f"head, by the file's configuration: {', '.join(head.layers)}, written as one linear layer",)
    return dataclasses.replace(file, tensors=tensors, remarks=file.remarks + remarks, pixels=head.pixels)


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
