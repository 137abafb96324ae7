"""The verbs about pictures before training: `data check`, `data split` and `data pack`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from reinception.cli.counter import counter
from reinception.cli.table import aligned, count
from reinception.data.prepare.audit import Audit, audit
from reinception.data.prepare.audit_page import write_audit_page
from reinception.data.prepare.group_split import divide, grouped, write_manifest
from reinception.data.prepare.pack import pack as pack_shards
from reinception.data.sources.open_source import open_source
from reinception.errors import ReinceptionError, UsageError
from reinception.files import new_text_file, refuse_existing, write_json

_SHOWN = 20


def check(arguments: argparse.Namespace) -> None:
    """What is wrong with the pictures; fails where training would be wrong or impossible."""
    files = [Path(name) for name in (arguments.json, arguments.html, arguments.quarantine) if name not in (None, "-")]
    for file in files:
        refuse_existing(file)
    source = open_source(arguments.data)
    found = audit(source, workers=arguments.workers, progress=counter("pictures"))
    if arguments.html is not None:
        write_audit_page(found, Path(arguments.html))
    if arguments.quarantine is not None and found.quarantine:
        with new_text_file(arguments.quarantine) as file:
            file.write("".join(f"{name}\n" for name in found.quarantine))
    if arguments.json is not None:
        write_json(found.to_json(), arguments.json)
    if arguments.json != "-":
        print(_verdict(found))
    if found.errors:
        raise ReinceptionError(f"{arguments.data}: {len(found.errors)} errors; mend them, or leave the files out")


def _verdict(found: Audit) -> str:
    listed = len(found.source.records)
    rate = listed / found.seconds if found.seconds else 0.0
    lines = [f"{found.num_decoded:,} of {listed:,} pictures decode; {found.seconds:.1f} s, {rate:.0f} pictures/s"]
    if not found.near_duplicates_checked:
        lines.append('near duplicates were not looked for: pip install "reinception[check]"')
    for level, problems in (("error", found.errors), ("warning", found.warnings)):
        kinds = Counter(problem.kind for problem in problems)
        if problems:
            lines.append(f"\n{level}s: " + ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items())))
            rows = [(problem.kind, problem.name, problem.reason) for problem in problems[:_SHOWN]]
            lines.append(aligned(("KIND", "WHERE", "WHY"), rows))
        if len(problems) > _SHOWN:
            lines.append(f"and {len(problems) - _SHOWN} more; --json and --html have them all")
    if not found.errors and not found.warnings:
        lines.append("nothing was found to be wrong")
    return "\n".join(lines)


def split(arguments: argparse.Namespace) -> None:
    """Manifests with splits that do not leak."""
    out = Path(arguments.out)
    if out.suffix.lower() != ".csv":
        raise UsageError(f"-o {out}: name a .csv file")
    folds = arguments.folds
    outs = [out] if folds is None else [out.with_name(f"{out.stem}.fold{fold}.csv") for fold in range(folds)]
    for path in outs:
        refuse_existing(path)
    by = arguments.group_by
    is_column = by is not None and by not in ("group", "folder") and not by.startswith("regex:")
    source = open_source(arguments.data, group_column=by if is_column else None)
    divisions = divide(
        source if is_column else grouped(source, by),
        seed=arguments.seed,
        val_fraction=arguments.val_fraction,
        test_fraction=arguments.test_fraction,
        folds=folds,
        compare=not arguments.no_compare,
        workers=arguments.workers,
        progress=counter("pictures"),
    )
    if source.splits:
        print(f"the splits that {source.name} had ({', '.join(source.splits)}) are not kept")
    for path, division in zip(outs, divisions, strict=True):
        write_manifest(division.source, path)
        print(f"{path}\n{division.in_words()}")


def pack(arguments: argparse.Namespace) -> None:
    """Tar shards with an index."""
    packed = pack_shards(
        open_source(arguments.data),
        Path(arguments.out),
        shorter_side=arguments.shorter_side,
        per_shard=arguments.per_shard,
        workers=arguments.workers,
        progress=counter("pictures"),
    )
    for name, reason in packed.left_out:
        print(f"reinception: {name}: {reason}", file=sys.stderr)
    print(
        f"{packed.folder}: {count(packed.num_images)} of {count(packed.num_listed)} pictures in {packed.num_shards} "
        "shards, read back and equal"
    )
