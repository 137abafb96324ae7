"""`reinception models`: every network, computed numbers beside reported ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reinception.cli.table import aligned, billions, count
from reinception.files import write_json
from reinception.spec import cost

if TYPE_CHECKING:
    from reinception import family


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    experiments: bool = False
    """list the variants of the paper's small experiments instead: Inception-v3 with one part exchanged"""

    json: Path | None = None


def run(options: ModelsOptions) -> None:
    """List every network, what it costs and what the paper reports.

    Sizes and costs are computed from the network itself; reported figures are the paper's.

    Example: reinception models
    """
    from reinception import family

    entries = (family.VARIANTS if options.experiments else family.NETWORKS).values()
    records = [_record(entry) for entry in entries]
    if options.json is not None:
        write_json(records, options.json)
        return
    header = ("NAME", "INPUT", "PARAMETERS", "WITH AUXILIARY", "MULTIPLY-ADDS", "REPORTED", "WHAT IT IS")
    rows = [
        (
            record["name"],
            str(record["input_size"]),
            count(record["parameters"]),
            count(record["parameters_with_auxiliary"]),
            billions(record["multiply_adds"]),
            reported_in_words(entry.reported),
            record["summary"],
        )
        for record, entry in zip(records, entries, strict=True)
    ]
    print(aligned(header, rows, right=(1, 2, 3, 4)))


def _record(entry: family.Entry) -> dict[str, Any]:
    arch = entry.arch
    return {
        "name": arch.name,
        "input_size": arch.input_size,
        "parameters": cost.parameters(arch, with_aux=False),
        "parameters_with_auxiliary": cost.parameters(arch, with_aux=True) if arch.aux else None,
        "multiply_adds": cost.multiply_adds(arch),
        "reported": None if entry.reported is None else dataclasses.asdict(entry.reported),
        "summary": entry.summary,
    }


def reported_in_words(reported: family.Reported | None) -> str:
    """What the paper prints, with where it prints it; a dash where it is silent."""
    if reported is None:
        return "-"
    figures = {"top-1 {} %": reported.top1_error, "top-5 {} %": reported.top5_error}
    figures["{} G"] = reported.multiply_adds_billions
    said = [text.format(figure) for text, figure in figures.items() if figure is not None]
    return f"{', '.join(said)} ({reported.source})"
