"""The verbs `weights identify` and `weights convert`: everybody's Inception-v3 files, in and out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from reinception.errors import ReinceptionError
from reinception.files import refuse_existing, write_json
from reinception.model.artifact import read_manifest
from reinception.weights.conversion_report import ConversionReport
from reinception.weights.convert import Choices, Conversion, fold, obtain, proven, write
from reinception.weights.identify import find
from reinception.weights.library_files import export, prove_export, target
from reinception.weights.weight_files import WeightFile, read


def identify(arguments: argparse.Namespace) -> None:
    """Say what a file of weights is."""
    file = read(arguments.file)
    if file.is_ours:
        answer, lines = of_ours(file)
    else:
        finding = find(file, arguments.source)
        answer, lines = finding.to_json(), finding.lines()
    if arguments.json is not None:
        write_json(answer, arguments.json)
    else:
        print("\n".join(lines))


def of_ours(file: WeightFile) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a model file of ours says about itself."""
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


def convert(arguments: argparse.Namespace) -> None:
    """Make a model of ours out of a file, or a file for another library out of either."""
    out = Path(arguments.out)
    refuse_existing(out)
    if arguments.to is not None:
        target(arguments.to, out)  # a library or an ending that cannot be is said before any work
    choices = Choices(
        source=arguments.source,
        with_auxiliary=arguments.aux == "keep",
        border=arguments.border,
        background=arguments.background,
        normalisation=arguments.normalisation,
        classes=None if arguments.classes is None else class_names(Path(arguments.classes)),
        licence=arguments.licence,
    )
    converted = obtain(arguments.file, choices)
    if arguments.parity == "auto":
        converted = proven(converted)
    if arguments.fold_normalisation:
        converted = fold(converted)
    reports = [converted.report]
    if arguments.to is not None:
        reports.append(exported(converted, arguments, out))
    elif converted.found is None:
        raise ReinceptionError(f"{arguments.file}: a reinception model already; --to writes it for another library")
    else:
        write(converted, out)
    if arguments.json is not None:
        write_json({"out": str(out), "reports": [report.to_json() for report in reports]}, arguments.json)
    if arguments.json != "-":
        print("\n".join(line for report in reports for line in report.lines()))
        print(f"written: {out}")


def exported(converted: Conversion, arguments: argparse.Namespace, out: Path) -> ConversionReport:
    report = export(converted.network, converted.manifest, arguments.to, out)
    if arguments.parity == "auto":
        return report.with_proof(prove_export(converted.network, arguments.to, out))
    return report


def class_names(file: Path) -> tuple[str, ...]:
    """Names in the order of the outputs: a JSON list, or one name a line."""
    try:
        text = file.read_text(encoding="utf-8")
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError) as error:
        raise ReinceptionError(f"{file}: cannot read class names: {error}") from None
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ReinceptionError(f"{file}: class names are one a line or a JSON list of texts, none of them empty")
    if len(set(names)) != len(names):
        raise ReinceptionError(f"{file}: a class name stands there twice")
    return tuple(names)
