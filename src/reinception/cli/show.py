"""`reinception show`: one network layer by layer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reinception.cli.table import aligned, by, count
from reinception.files import write_json
from reinception.spec import Arch, SpecError, cost, minimum_input_size
from reinception.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    name: str
    """a network of `reinception models`, or a variant of its --experiments"""

    input_size: int | None = None
    width: float = TrainConfig.width
    json: Path | None = None


def run(options: ShowOptions) -> None:
    """Print one network layer by layer.

    Shapes, parameters and multiply-adds of each layer, totals by stage, and at each place where the network can be cut
    what one unit sees of the image. Auxiliary classifiers are counted apart.

    Example: reinception show inception_v3 --input-size 150
    """
    from reinception import family

    arch = family.network(options.name, width=options.width, input_size=options.input_size)
    trunk = list(cost.rows(arch, with_aux=False))
    auxiliary = _auxiliary_rows(arch)
    if options.json is not None:
        write_json(_document(arch, trunk, auxiliary), options.json)
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
