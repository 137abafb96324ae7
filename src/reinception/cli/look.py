"""The verbs that only look: `models` and `show` compute from the specs, `doctor` asks the machine."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from reinception import family
from reinception.cli.table import aligned, billions, by, count
from reinception.files import write_json
from reinception.spec import Arch, SpecError, cost, minimum_input_size


def models(arguments: argparse.Namespace) -> None:
    """Every network, computed numbers beside reported ones."""
    entries = (family.VARIANTS if arguments.experiments else family.NETWORKS).values()
    records = [_record(entry) for entry in entries]
    if arguments.json is not None:
        write_json(records, arguments.json)
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


def show(arguments: argparse.Namespace) -> None:
    """One network layer by layer. The trunk's layers add up to its totals; auxiliary classifiers are counted apart."""
    arch = family.network(arguments.name, width=arguments.width, input_size=arguments.input_size)
    trunk = list(cost.rows(arch, with_aux=False))
    auxiliary = _auxiliary_rows(arch)
    if arguments.json is not None:
        write_json(_document(arch, trunk, auxiliary), arguments.json)
        return
    size = arch.input_size
    print(f"{arch.name}: {family.entry(arch.name).summary}")
    print(f"input {size}x{size}x{arch.input_channels}, {arch.num_classes} classes, dropout {arch.dropout}\n")
    header = ("LAYER", "KIND", "KERNEL", "STRIDE", "PADDING", "OUTPUT", "PARAMETERS", "MULTIPLY-ADDS")
    print(aligned(header, [_cells(row) for row in [*trunk, *(auxiliary or ())]], right=(6, 7)))
    if auxiliary is None:
        least = minimum_input_size(arch, with_aux=True)
        print(f"(the auxiliary classifier is left out: it needs an input of at least {least} pixels)")
    print()
    print(_stages(arch))
    print()
    print(_cuts(arch))


def _auxiliary_rows(arch: Arch) -> list[cost.LayerCost] | None:
    """The auxiliary classifiers' rows, or None where the input is too small for them."""
    heads = {head.name for head in arch.aux}
    try:
        return [row for row in cost.rows(arch, with_aux=True) if row.stage in heads]
    except SpecError:
        return None


def _cells(row: cost.LayerCost) -> tuple[str, ...]:
    window = (by(row.kernel), by(row.stride), by(row.padding))
    return (row.path, row.kind, *window, by(row.output), count(row.parameters), count(row.multiply_adds))


def _stages(arch: Arch) -> str:
    stages = cost.stages(arch, with_aux=False)
    total = sum(stage.multiply_adds for stage in stages)
    rows = [
        (
            stage.name,
            by(stage.output),
            count(stage.parameters),
            count(stage.multiply_adds),
            f"{100 * stage.multiply_adds / total:.1f} %",
            count(stage.activations),
        )
        for stage in stages
    ]
    parameters, activations = (
        sum(stage.parameters for stage in stages),
        sum(stage.activations for stage in stages),
    )
    rows.append(("total", "", count(parameters), count(total), "100.0 %", count(activations)))
    header = ("STAGE", "OUTPUT", "PARAMETERS", "MULTIPLY-ADDS", "SHARE", "ACTIVATIONS")
    return aligned(header, rows, right=(2, 3, 4, 5))


def _cuts(arch: Arch) -> str:
    rows = [
        (cut.path, by(cut.shape), count(cut.size), by(cut.receptive_field), by(cut.stride)) for cut in cost.cuts(arch)
    ]
    return aligned(("CUT AFTER", "GRID", "VALUES", "ONE UNIT SEES", "EVERY"), rows, right=(2,))


def _document(arch: Arch, trunk: list[cost.LayerCost], auxiliary: list[cost.LayerCost] | None) -> dict[str, Any]:
    return {
        "name": arch.name,
        "input_size": arch.input_size,
        "parameters": sum(row.parameters for row in trunk),
        "parameters_with_auxiliary": cost.parameters(arch, with_aux=True) if arch.aux and auxiliary else None,
        "multiply_adds": sum(row.multiply_adds for row in trunk),
        "layers": [dataclasses.asdict(row) for row in trunk],
        "auxiliary_layers": None if auxiliary is None else [dataclasses.asdict(row) for row in auxiliary],
        "stages": [dataclasses.asdict(stage) for stage in cost.stages(arch, with_aux=False)],
        "cuts": [dataclasses.asdict(cut) | {"values": cut.size} for cut in cost.cuts(arch)],
    }


def doctor(arguments: argparse.Namespace) -> None:
    """What this machine has, section by section."""
    from reinception.machine import examine

    facts = examine()
    if arguments.json is not None:
        write_json(facts, arguments.json)
        return
    width = max(len(name) for section in facts.values() for name in section)
    for title, section in facts.items():
        print(title)
        for name, value in section.items():
            print(f"  {name.replace('_', ' '):<{width}}  {_said(value)}")


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
