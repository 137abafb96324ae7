"""`make docs`: gathers the pages and builds the site; a warning or a link that leads nowhere ends it with 1."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parent


class Page(HTMLParser):
    """The targets of an HTML page's links, what it loads, and the places that a link may name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])


# What the theme leaves out: the level of its captions, and the keyboard's way into what scrolls.
ACCESSIBLE = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper ': '<div tabindex="0" class="table-wrapper ',
    '<div class="math">': '<div tabindex="0" class="math">',
}


def make_accessible(html: Path) -> None:
    """Complete the pages for readers by keyboard and by ear."""
    for path in html.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for old, new in ACCESSIBLE.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def broken(html: Path) -> list[str]:
    """What is wrong with the links of a built site: nowhere, a place that is not there, loaded from elsewhere."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in html.rglob("*.html")}
    found = []
    for path, page in pages.items():
        where = path.relative_to(html.resolve())
        found += [f"{where} loads {url}" for url in page.loads if urlsplit(url).scheme or url.startswith("//")]
        for url in {*page.links, *page.loads}:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_place = not parts.fragment or file not in pages or unquote(parts.fragment) in pages[file].ids
            if not file.exists() or not is_place:
                found.append(f"{where} links to {url}")
    for sheet in [*html.rglob("*.css"), *html.rglob("*.html")]:
        text = sheet.read_text(encoding="utf-8")
        found += [
            f"{sheet.name} loads {url}" for url in re.findall(r"(?:url\(|@import )[\"']?(https?://[^\"')]+)", text)
        ]
    return sorted(found)


def build(out: Path) -> int:
    """The site in `out`/html, from sources in `out`/source. Returns the exit code."""
    from pages import gather
    from sphinx.cmd.build import main as sphinx

    out = out.resolve()
    source, html, doctrees = out / "source", out / "html", out / "doctrees"
    for folder in (source, html, doctrees):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    gather(source)
    words = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(SITE), "-d", str(doctrees)]
    code = sphinx([*words, str(source), str(html)])
    if not code:
        make_accessible(html)
    wrong = broken(html) if not code else []
    for line in wrong:
        print(line, file=sys.stderr)
    if not code and not wrong:
        print(html / "index.html")
    return code or bool(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python docs/site/build.py", description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("build/site"), help="default: %(default)s")
    return build(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
