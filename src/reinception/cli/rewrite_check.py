"""`reinception rewrite check`: what the rewrites change, endpoint by endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reinception.cli.table import aligned
from reinception.errors import ReinceptionError
from reinception.files import write_json

if TYPE_CHECKING:
    from reinception.rewrite.program import Program


@dataclass(frozen=True, kw_only=True)
class RewriteCheckOptions:
    model: str
    """the name of a network, which gets random weights and statistics, or a model file or run folder"""

    input_size: int | None = None
    """pixels per side of the random images (default: the network's own)"""

    json: Path | None = None


def run(options: RewriteCheckOptions) -> None:
    """Say how far the rewritten network is from the original.

    The rewrites make a network cheaper and leave what it computes: no auxiliary classifier, batch norm and the input's
    normalisation folded into convolutions, dead channels dropped, average pools behind their 1x1 convolutions, 1x1
    convolutions of one tensor fused. For each endpoint the largest difference is printed, relative to the largest
    value, in float64, float32 and bfloat16. The exit code is 1 where one is beyond what the rewrites claim.

    Example: reinception rewrite check inception_v3
    """
    from reinception.rewrite.check import TOLERANCES, differences, random_values

    program = _program(options.model)
    found = differences(program, random_values(program.arch, options.input_size or program.arch.input_size))
    worst = next((one for one in found if one.exceeded), None)
    if options.json is not None:
        document = {
            "network": program.arch.name,
            "tolerances": TOLERANCES,
            "endpoints": [one.to_json() for one in found],
        }
        write_json(document, options.json)
    else:
        rows = [(one.endpoint, *(f"{one.differences[name]:.1e}" for name in TOLERANCES)) for one in found]
        rows.append(("claimed", *(f"{value:.1e}" for value in TOLERANCES.values())))
        print(aligned(("endpoint", *TOLERANCES), rows, right=(1, 2, 3)))
    if worst is not None:
        raise ReinceptionError(
            f"{options.model}: the rewritten network differs at {worst.endpoint} in {worst.exceeded}: please report it"
        )


def _program(name: str) -> Program:
    from reinception.family import NETWORKS
    from reinception.model.artifact import load
    from reinception.rewrite.check import NORMALISATION, random_network
    from reinception.rewrite.program import Program

    if name in NETWORKS and not Path(name).exists():
        return Program.of(random_network(NETWORKS[name].arch), NORMALISATION)
    model = load(name)
    return Program.of(model.network, model.preprocessing)
