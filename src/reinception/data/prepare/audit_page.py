"""What `data check` found as one offline HTML page: the counts, and every problem with a thumbnail of its image."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from reinception.data.images.thumbnail import thumbnail
from reinception.data.loading.read import pixels_of
from reinception.data.prepare.audit import Audit
from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.files import new_text_file

MOST_PER_KIND = 60
"""Problems of one kind on the page; the JSON report has them all."""

_SIDE = 160
_HARMFUL = ("crash", "hang", "memory", "too_large")
"""Kinds of images that are never decoded here: decoding them has done harm, or would."""


def write_audit_page(audit: Audit, path: Path) -> None:
    """Write the page to `path`. It loads nothing and runs nothing. ReinceptionError where `path` exists."""
    environment = Environment(
        loader=PackageLoader("reinception.data.prepare", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    report = audit.to_json()
    counts = {
        "files listed": report["num_files"],
        "images decoded": report["num_images"],
        "errors": len(audit.errors),
        "warnings": len(audit.warnings),
        **{f"class {name}": number for name, number in report["classes"].items()},
    }
    text = environment.get_template("audit_page.html.j2").render(
        name=audit.source.name, counts=counts, groups=_groups(audit), most=MOST_PER_KIND
    )
    with new_text_file(path) as file:
        # A file name that is not UTF-8 must not make the page invalid.
        file.write(text.encode("utf-8", "replace").decode())


def _groups(audit: Audit) -> list[dict[str, Any]]:
    """The problems by level and kind, errors first, each shown one with its name, reason and thumbnail."""
    records = {record.name: record for record in audit.source.records}
    groups: list[dict[str, Any]] = []
    for level, problems in (("error", audit.errors), ("warning", audit.warnings)):
        by_kind = sorted(problems, key=lambda problem: problem.kind)
        for kind, some in groupby(by_kind, key=lambda problem: problem.kind):
            found = list(some)
            shown = [
                (problem.name, problem.reason, None if kind in _HARMFUL else _thumbnail(records.get(problem.name)))
                for problem in found[:MOST_PER_KIND]
            ]
            groups.append({"level": level, "kind": kind, "number": len(found), "shown": shown})
    return groups


def _thumbnail(record: Record | None) -> str | None:
    try:
        return None if record is None else thumbnail(pixels_of(record), side=_SIDE)
    except BadImage:
        return None
