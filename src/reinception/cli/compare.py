"""`reinception compare`: is one model better than another on the same images?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.cli.flags import STDOUT, refuse_results
from reinception.files import write_json


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    a: str
    """a run folder, or a CSV file of `reinception evaluate --predictions`"""

    b: str
    """what to compare it with, one of the same"""

    json: Path | None = None


def run(options: CompareOptions) -> None:
    """Say whether one model is better than another on the same images.

    The comparison is paired: McNemar's exact test, and the difference in accuracy with a bootstrap interval. Where
    there is no evidence, it says so.

    Example: reinception compare runs/second runs/first
    """
    refuse_results(options.json)
    from reinception.metrics.significance import compare
    from reinception.report.comparison import read_pair

    a, b, what = read_pair(options.a, options.b)
    found = compare(a, b)
    low, high = found.interval
    if options.json is not None:
        write_json(
            {
                "a": options.a,
                "b": options.b,
                "images": what,
                "n": found.n,
                "both_right": found.both_right,
                "only_a_right": found.only_a_right,
                "only_b_right": found.only_b_right,
                "accuracy_a": found.a.percent,
                "accuracy_b": found.b.percent,
                "difference": found.difference,
                "difference_interval": [low, high],
                "p_value": found.p_value,
                "better": found.better,
            },
            options.json,
        )
    if options.json == STDOUT:
        return
    for name, path, rate in (("A", options.a, found.a), ("B", options.b, found.b)):
        print(f"{name}  {path}: {rate.percent:.2f} % right ({rate.count} of {rate.n})")
    print(f"on {what}: only A right {found.only_a_right}, only B right {found.only_b_right}")
    print(f"A less B: {found.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} (paired bootstrap)")
    p = f"McNemar's exact p = {found.p_value:.2g}"
    if found.better is None:
        print(f"no evidence that one is better than the other ({p})")
    else:
        print(f"{found.better} is better ({p})")
