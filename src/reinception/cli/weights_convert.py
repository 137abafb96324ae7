"""`reinception weights convert`: weights of other libraries in and out, with a proof."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from reinception.cli.flags import STDOUT, Given
from reinception.errors import ReinceptionError
from reinception.files import refuse_existing, write_json
from reinception.weights.choices import Choices

if TYPE_CHECKING:
    from reinception.weights.conversion_report import ConversionReport
    from reinception.weights.convert import Conversion


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    file: str
    """a file as for identify, a model or run of ours, or a download by its own library: torchvision:IMAGENET1K_V1,
    timm:inception_v3.tf_in1k"""

    out: Path
    """the file to write, never over another"""

    to: str | None = None
    """write for torchvision, timm, pytorch-fid (.pth, .safetensors), lucid (.safetensors), keras (.h5, .weights.h5) or
    tf-slim (.npz) instead of a model file"""

    aux: Literal["keep", "drop"] = "keep"
    """the auxiliary classifier, where the file has one"""

    fold_normalisation: bool = False
    """move mean and std into the first convolution: the network then takes values in [0, 1]"""

    classes: Path | None = None
    """names of the outputs, one a line or a JSON list"""

    parity: Literal["auto", "off"] = "auto"
    """compare with the publisher's own network where it is installed"""

    json: Path | None = None


def run(options: ConvertOptions, given: Annotated[Given, Choices]) -> None:
    """Make a model file of another library's weights, or a file for another library.

    Where the publisher's library is installed both networks are run on the same images, and nothing is written when
    they differ. What was dropped, added or assumed is printed and kept in the model's manifest.

    Example: reinception weights convert timm:inception_v3.tf_in1k -o pretrained.safetensors
    """
    from reinception.weights.convert import convert, fold, proven, write
    from reinception.weights.library_files import target

    refuse_existing(options.out)
    if options.to is not None:
        target(options.to, options.out)  # a library or an ending that cannot be is said before any work
    classes = None if options.classes is None else _class_names(options.classes)
    choices = dataclasses.replace(Choices(**given), with_auxiliary=options.aux == "keep", classes=classes)
    converted = convert(options.file, choices)
    if options.parity == "auto":
        converted = proven(converted)
    if options.fold_normalisation:
        converted = fold(converted)
    reports = [converted.report]
    if options.to is not None:
        reports.append(_exported(converted, options.to, options))
    elif converted.found is None:
        raise ReinceptionError(f"{options.file}: a reinception model already; --to writes it for another library")
    else:
        write(converted, options.out)
    if options.json is not None:
        write_json({"out": str(options.out), "reports": [report.to_json() for report in reports]}, options.json)
    if options.json != STDOUT:
        print("\n".join(line for report in reports for line in report.lines()))
        print(f"written: {options.out}")


def _exported(converted: Conversion, library: str, options: ConvertOptions) -> ConversionReport:
    from reinception.weights.library_files import export, prove_export

    report = export(converted.network, converted.manifest, library, options.out)
    if options.parity == "auto":
        return dataclasses.replace(report, proof=prove_export(converted.network, library, options.out))
    return report


def _class_names(file: Path) -> tuple[str, ...]:
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
