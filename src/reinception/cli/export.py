"""`reinception export`: a model for another runtime, with its preprocessing inside, proved on real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.cli.flags import STDOUT
from reinception.export.deliver import Export
from reinception.files import write_json


@dataclass(frozen=True, kw_only=True)
class ExportTarget:
    model: str
    """a model file or a run folder"""

    out: Path
    """the folder to make, never over another"""

    json: Path | None = None


def run(options: ExportTarget, how: Export) -> None:
    """Write a model as a file for another runtime, with its preprocessing inside.

    The file takes uint8 RGB pixels (images, height, width, 3) of any size and gives probabilities. Beside it are a
    sample script that runs, its requirements.txt, labels.txt and parity.json. The file is run by its own runtime, in a
    process without this package, on real images; where its answers differ from the model's the exit code is 1 and
    nothing is left.

    Example: reinception export runs/first --to onnx -o exported
    """
    from reinception.export.deliver import export

    parity = export(options.model, options.out, how)
    if options.json is not None:
        write_json(parity.to_json(), options.json)
    if options.json != STDOUT:
        agrees = "" if parity.top1_agreement is None else f", same label on {parity.top1_agreement:.1%}"
        print(f"{options.out}: {parity.format} {parity.precision}")
        print(
            f"parity on {parity.num_images} images ({parity.images}): largest difference "
            f"{parity.largest_difference:.1e}{agrees}; worst {parity.worst_image}; {parity.runtime}"
        )
