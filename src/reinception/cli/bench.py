"""`reinception bench`: how fast a network is here, beside other libraries, each at its best setting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from reinception.cli.counter import say
from reinception.cli.flags import STDOUT, Given, refuse_results
from reinception.cli.table import aligned
from reinception.errors import UsageError
from reinception.files import new_text_file, write_json

if TYPE_CHECKING:
    from reinception.bench.speed_comparison import Found


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    model: str
    """the name of a network, which gets random weights, or a model file or run folder (default: inception_v3)"""

    against: tuple[str, ...] = ("torchvision", "timm", "onnxruntime", "openvino")
    """other libraries to time in turn, those that are installed; none for ours alone"""

    batch_size: tuple[int, ...] = (1, 16)
    """images at a time; 1 is also the latency of one image"""

    precision: tuple[str, ...] = ("auto",)
    """number formats; auto is fp32, and bf16 where the hardware has it"""

    rounds: int = 7
    """how often each is timed"""

    skip_compiled: bool = False
    """leave out torch.compile, which takes minutes to start"""

    json: Path | None = None

    svg: Path | None = None
    """draw a chart of the results"""


def run(given: Annotated[Given, BenchOptions]) -> None:
    """Time a network side by side with other libraries, interleaved, each at its best setting.

    Every contestant has a process of its own, and one computes at a time. Settings (memory layout, compiled, batches,
    streams) are tried first, and the fastest of each is timed. Printed are medians with their range, start-up to the
    first result, peak memory, and the limit: the convolutions alone. Leave the machine idle meanwhile.

    Example: reinception bench inception_v3 --against torchvision,openvino --precision bf16
    """
    asked: dict[str, Any] = {"model": "inception_v3", **given}
    options = BenchOptions(**asked)
    refuse_results(options.json, options.svg)
    import torch

    from reinception.bench.own import subject_of
    from reinception.bench.peers import PEERS
    from reinception.bench.speed_comparison import BenchPlan, compare_speed
    from reinception.machine import has_bf16

    against = () if options.against == ("none",) else options.against
    if unknown := [name for name in against if name not in PEERS]:
        raise UsageError(f"--against: unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}, and none")
    precisions = (
        options.precision
        if options.precision != ("auto",)
        else ("fp32", *(("bf16",) if has_bf16(torch.device("cpu")) else ()))
    )
    if unknown := [name for name in precisions if name not in ("fp32", "bf16")]:
        raise UsageError(f"--precision: unknown: {', '.join(unknown)}; there are auto, fp32 and bf16")
    plan = BenchPlan(
        against=against,
        precisions=precisions,
        batch_sizes=options.batch_size,
        rounds=options.rounds,
        threads=torch.get_num_threads(),
        with_compiled=not options.skip_compiled,
    )
    found = compare_speed(subject_of(options.model), plan, say)
    if options.json is not None:
        write_json(found.to_json(), options.json)
    if options.svg is not None:
        from reinception.bench.speed_chart import speed_chart

        with new_text_file(options.svg) as file:
            file.write(speed_chart(found))
    if options.json != STDOUT:
        print(_table(found, threads=plan.threads))


def _table(found: Found, *, threads: int) -> str:
    from reinception.machine import examine

    rows = []
    for one in sorted(found.runs, key=lambda one: (one.contestant.precision, one.batch_size, -one.median)):
        who, spread = one.contestant, f"{min(one.rates):.1f} to {max(one.rates):.1f}"
        milliseconds = f"{1000 / one.median:.1f}" if one.batch_size == 1 else "-"
        rows.append(
            (who.what, who.setting, who.precision, f"{one.batch_size}", f"{one.median:.1f}", spread, milliseconds)
        )
    for precision, rate in found.limits.items():
        rows.append(("the convolutions alone", "", precision, "any", f"{rate:.1f}", "", "-"))
    header = ("WHAT", "SETTING", "PRECISION", "BATCH", "IMAGES/S", "RANGE", "MS")
    starts = [
        (one.what, one.setting, one.precision, f"{seconds:.1f}", f"{mib:,}") for one, seconds, mib in found.starts
    ]
    lines = [
        f"{examine()['processor']['model']}, {threads} threads; {found.subject.model} at {found.subject.input_size} "
        f"pixels; n = {len(found.runs[0].rates) if found.runs else 0} interleaved rounds",
        "",
        aligned(header, rows, right=(3, 4, 6)),
        "",
        aligned(("WHAT", "SETTING", "PRECISION", "START S", "PEAK MIB"), starts, right=(3, 4)),
    ]
    lines += [f"left out: {one.what} {one.setting} {one.precision}: {reason}" for one, reason in found.left_out]
    return "\n".join(lines)
