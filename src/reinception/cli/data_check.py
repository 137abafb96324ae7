"""`reinception data check`: what is wrong with images before training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reinception.cli.counter import counter
from reinception.cli.flags import STDOUT, Common, refuse_results
from reinception.cli.table import aligned
from reinception.errors import ReinceptionError
from reinception.files import write_json

if TYPE_CHECKING:
    from reinception.data.prepare.audit import Audit

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    data: str

    html: Path | None = None
    """write an HTML page that shows each image that is named"""

    quarantine: Path | None = None
    """write the names of the files that cannot be used, one a line, for --exclude of train and evaluate"""

    json: Path | None = None
    workers: int = Common.workers


def run(options: CheckOptions) -> None:
    """Decode and compare every image and say what is wrong.

    Errors, with exit code 1: files that cannot be used, the same image in two splits or under two labels. Warnings:
    duplicates, rare sizes, modes and orientations, tiny and unequal classes. Nothing is changed.

    Example: reinception data check photos --html check.html --quarantine bad.txt
    """
    refuse_results(options.json, options.html, options.quarantine)
    from reinception.data.prepare.audit import audit
    from reinception.data.prepare.audit_page import write_audit_page
    from reinception.data.sources.exclusions import write_exclusions
    from reinception.data.sources.open_source import open_source
    from reinception.data.sources.understanding import understand

    source = open_source(options.data)
    if options.json != STDOUT:
        print(understand(source))
    found = audit(source, workers=options.workers, progress=counter("images"))
    if options.html is not None:
        write_audit_page(found, Path(options.html))
    if options.quarantine is not None and found.quarantine:
        write_exclusions(options.quarantine, found.quarantine)
    if options.json is not None:
        write_json(found.to_json(), options.json)
    if options.json != STDOUT:
        print(f"\n{_verdict(found)}")
    if found.errors:
        raise ReinceptionError(f"{options.data}: {len(found.errors)} errors; fix them, or leave the files out")


def _verdict(found: Audit) -> str:
    listed = len(found.source.records)
    rate = listed / found.seconds if found.seconds else 0.0
    lines = [f"{found.num_decoded:,} of {listed:,} images decode; {found.seconds:.1f} s, {rate:.0f} images/s"]
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
