"""What `data check` found as one offline page: the counts, and every problem with a small copy of the picture."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from reinception.data.loading.read import pixels_of
from reinception.data.prepare.audit import Audit, Finding
from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.files import new_text_file

SIDE = 160
MOST_PER_KIND = 60
"""A page of thousands of pictures helps nobody; the JSON has them all."""

_HARMFUL = ("crash", "hang", "memory", "too_large")

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a }
h2 { border-bottom: 1px solid #bbb; padding-bottom: .2rem } h2.error { color: #8c1d18 } h2.warning { color: #6b4e00 }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; padding: 0 }
li { overflow-wrap: anywhere; font-size: 13px; list-style: none }
img, .none { width: 10rem; height: 10rem; object-fit: contain; background: #eee }
.none { display: grid; place-items: center; color: #595959 }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0 }
"""


def write_gallery(audit: Audit, path: Path) -> None:
    """Write the page; never over another file. Nothing in it comes from elsewhere or goes there."""
    records = {record.name: record for record in audit.source.records}
    told = audit.to_json()
    rows = [
        ("files listed", f"{told['num_files']:,}"),
        ("pictures that decode", f"{told['num_images']:,}"),
        ("errors", f"{len(audit.errors):,}"),
        ("warnings", f"{len(audit.warnings):,}"),
        *((f"class {name}", f"{count:,}") for name, count in told["classes"].items()),
    ]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(audit.source.name)}: data check</title>',
        f"<style>{_STYLE}</style><h1>{escape(audit.source.name)}</h1><table>",
        *(f"<tr><td>{escape(what)}<td>{escape(value)}" for what, value in rows),
        "</table>",
        *_sections("error", audit.errors, records),
        *_sections("warning", audit.warnings, records),
        "" if audit.errors or audit.warnings else "<p>Nothing was found.",
        "</html>\n",
    ]
    with new_text_file(path) as file:
        file.write("\n".join(parts))


def _sections(level: str, problems: Sequence[BadImage | Finding], records: dict[str, Record]) -> list[str]:
    parts: list[str] = []
    for kind, count in sorted(Counter(problem.kind for problem in problems).items()):
        shown = [problem for problem in problems if problem.kind == kind][:MOST_PER_KIND]
        more = f", the first {len(shown)}" if len(shown) < count else ""
        parts.append(f'<h2 class="{level}">{level}: {escape(kind)} ({count:,}{more})</h2><ul>')
        for problem in shown:
            name, reason = (escape(text.encode("utf-8", "replace").decode()) for text in (problem.name, problem.reason))
            record = None if problem.kind in _HARMFUL else records.get(problem.name)
            parts.append(f"<li>{_picture(record)}<br><b>{name}</b><br>{reason}")
        parts.append("</ul>")
    return parts


def _picture(record: Record | None) -> str:
    """A small copy. Only what a process has decoded before without harm is decoded here again."""
    if record is None:
        return '<div class="none">no picture</div>'
    try:
        picture = Image.fromarray(pixels_of(record))
    except BadImage:
        return '<div class="none">no picture</div>'
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
