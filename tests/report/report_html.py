"""Reads report pages in tests: tags, attributes and text; and the names with which they are attacked."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from reinception.metrics import PredictionTable
from reinception.report.read_run import Run

HOSTILE_CLASS = "<script>alert(1)<script>"
HOSTILE_FILE = '"><img src=x onerror=alert(1)>.png'


class Page(HTMLParser):
    """Every tag with its attributes, the text of the page, and whether tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.words))

    def images(self) -> list[str]:
        return [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]


def table_of(run: Run) -> PredictionTable:
    """The predictions of a run that has some."""
    assert run.table is not None
    return run.table
