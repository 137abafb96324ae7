"""`reinception weights identify`: which Inception-v3 a file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reinception.files import write_json
from reinception.weights.choices import Choices

if TYPE_CHECKING:
    from reinception.weights.weight_files import WeightFile


@dataclass(frozen=True, kw_only=True)
class IdentifyOptions:
    file: str
    """a .pth, .safetensors, .npz, .h5, .weights.h5, .keras or .ckpt file"""

    source: str | None = Choices.source
    json: Path | None = None


def run(options: IdentifyOptions) -> None:
    """Say which Inception-v3 a file is.

    The layout is known by names and shapes, the publisher only where the file's digest is known: otherwise what else
    it could be is said.

    Example: reinception weights identify inception_v3_google-0cc3c7bd.pth
    """
    from reinception.weights.identify import find
    from reinception.weights.weight_files import read

    file = read(options.file)
    if file.is_ours:
        answer, lines = _of_ours(file)
    else:
        finding = find(file, options.source)
        answer, lines = finding.to_json(), finding.lines()
    if options.json is not None:
        write_json(answer, options.json)
    else:
        print("\n".join(lines))


def _of_ours(file: WeightFile) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a model file of ours says about itself."""
    from reinception.model.artifact import read_manifest

    manifest = read_manifest(file.path)
    arch, origin = manifest.arch, manifest.origin
    answer = {
        "file": str(file.path),
        "kind": "reinception model",
        "layout": "reinception",
        "source": origin.get("source"),
        "network": arch.name,
        "num_classes": arch.num_classes,
        "auxiliary": bool(arch.aux),
        "licence": origin.get("licence"),
    }
    lines = [f"{file.path}: a reinception model file", f"network: {arch.name}, {arch.num_classes} outputs"]
    lines += [f"{name}: {origin[name]}" for name in ("source", "licence") if name in origin]
    return answer, tuple(lines)
