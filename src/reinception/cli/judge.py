"""The verbs that weigh models against each other or look inside: `compare`, `features` and `ablate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reinception.errors import ReinceptionError


def compare(arguments: argparse.Namespace) -> None:
    """Is A better than B? Paired, with an interval, and with the honest answer where there is no evidence."""
    from reinception.files import refuse_existing, write_json
    from reinception.metrics.significance import compare as judge
    from reinception.report.comparison import read_pair

    if arguments.json not in (None, "-"):
        refuse_existing(Path(arguments.json))
    a, b, what = read_pair(arguments.a, arguments.b)
    found = judge(a, b)
    low, high = found.interval
    if arguments.json is not None:
        write_json(
            {
                "a": arguments.a,
                "b": arguments.b,
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
            arguments.json,
        )
    if arguments.json == "-":
        return
    for name, path, rate in (("A", arguments.a, found.a), ("B", arguments.b, found.b)):
        print(f"{name}  {path}: {rate.percent:.2f} % right ({rate.count} of {rate.n})")
    print(f"on {what}: only A right {found.only_a_right}, only B right {found.only_b_right}")
    print(f"A less B: {found.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} (paired bootstrap)")
    p = f"McNemar's exact p = {found.p_value:.2g}"
    if found.better is None:
        print(f"no evidence that one is better than the other ({p})")
    else:
        print(f"{found.better} is better ({p})")


def features(arguments: argparse.Namespace) -> None:
    """Writes the pooled features, one row an image; what cannot be read is named."""
    from reinception.cli.ranks import connected
    from reinception.files import refuse_existing
    from reinception.inference.features import features as extract
    from reinception.model.artifact import load

    refuse_existing(Path(arguments.out))
    network, manifest = load(arguments.model, with_aux=False)
    with connected() as ranks:
        found = extract(
            network,
            manifest,
            arguments.paths,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            precision=arguments.precision,
            ranks=ranks,
        )
    if ranks is not None and ranks.rank:
        return  # the first writes and speaks for all
    for path, reason in found.errors.items():
        print(f"reinception: {path}: {reason}", file=sys.stderr)
    if found.paths:
        rows, columns = found.values.shape
        print(f"{found.save(arguments.out, manifest)}: {rows:,} x {columns:,}")
    if found.errors:
        raise ReinceptionError(f"{len(found.errors)} could not be read; the other {len(found.paths)} are done")


def ablate(arguments: argparse.Namespace) -> None:
    """Trains every row of a study that is not there yet, and prints the table."""
    from reinception.train.ablate import AblateConfig
    from reinception.train.ablate import ablate as run

    asked = vars(arguments).copy()
    for word in ("call", "debug"):
        del asked[word]
    table, experiment = asked.pop("table"), asked.pop("experiment")
    config = AblateConfig(
        study=experiment or f"table_{table}", budget_seconds=asked.pop("budget"), num_seeds=asked.pop("seeds"), **asked
    )
    try:
        print(run(config))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"finished rows are kept; the same command goes on: {config.command()}") from None
