"""What a page asks its reader to type: fences of commands and Python, and the tables of coming-from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if not path.is_relative_to(ROOT / "docs" / "decisions")
)
TYPED = {"sh", "bash", "console", "python", ""}
_PART = re.compile(
    r"^<!-- (?P<mark>setup|not run:|exit 1)(?P<said>.*?)-->$"
    r"|^```(?P<language>[\w{}:-]*)\n(?P<code>.*?)^```$"
    r"|^\|(?P<row>[^\n]*)\|$",
    re.DOTALL | re.MULTILINE,
)
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Something to type: `language` is sh, python, or setup for what the reader is supposed to have."""

    page: Path
    line: int
    language: str
    code: str
    reason: str = ""
    """why it is not run; empty for what is"""
    code_expected: int = 0

    @property
    def where(self) -> str:
        """The page and the line, as editors jump to it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    reason, expected, is_table_of_ours = "", 0, False
    for found in _PART.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["row"] is not None:
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", found["row"])]
            if "reinception" in cells:
                is_table_of_ours = True
            elif is_table_of_ours and "---" not in cells[0]:
                for code in _CODE.findall(cells[-1]):
                    language = "sh" if code.startswith("reinception ") else "python"
                    yield Block(page=page, line=line, language=language, code=code)
            continue
        is_table_of_ours = False
        if found["mark"] == "setup":
            yield Block(page=page, line=line, language="setup", code=found["said"])
        elif found["mark"] == "not run:":
            reason = found["said"].strip()
        elif found["mark"] == "exit 1":
            expected = 1
        else:
            if found["language"] in TYPED:
                language = "python" if found["language"] == "python" else "sh" if found["language"] else ""
                yield Block(
                    page=page, line=line, language=language, code=found["code"], reason=reason, code_expected=expected
                )
            reason, expected = "", 0
