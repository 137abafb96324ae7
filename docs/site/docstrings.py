"""A docstring of this package's one pattern as MyST: prose, Args, Returns, Raises, Source and a tested Example."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

SECTIONS = ("Args", "Returns", "Raises", "Source", "Example")
_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):[ ]*(.*)$")
_ITEM = re.compile(r"^    (\*{0,2}\w[\w., *]*): (.*)$")


def to_markdown(text: str, *, fields: dict[str, str] | None = None) -> str:
    """The docstring `text`, as `inspect.getdoc` gives it. `fields` are those of a dataclass, which it calls Args."""
    parts: list[str] = []
    for name, body in sections(text):
        if name == "":
            parts.append(fenced_doctests(body))
        elif name == "Example":
            parts.append(f"**Example**\n\n```pycon\n{textwrap.dedent(body).strip()}\n```")
        elif name == "Args" and fields:
            continue
        else:
            parts.append(f"**{name}**\n\n{listed(body)}")
    if fields:
        parts.insert(1, "**Fields**\n\n" + "\n".join(f"- `{name}`: {said}" for name, said in fields.items()))
    return "\n\n".join(part for part in parts if part.strip())


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Each section's name and body; the prose before and between them has the name ''."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        found = _HEADING.match(line)
        ends = name and line and not line.startswith(" ")
        if found or ends:
            yield name, "\n".join(lines)
            name, lines = (found[1], [f"    {found[2]}"] if found[2] else []) if found else ("", [line])
        else:
            lines.append(line)
    yield name, "\n".join(lines)


def listed(body: str) -> str:
    """`name: text` lines as a list, their continuations joined; other text as it is."""
    lines: list[str] = []
    for line in body.splitlines():
        found = _ITEM.match(line)
        if found:
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            lines.append(f"  {line.strip()}" if lines and lines[0].startswith("- ") else line.strip())
    return "\n".join(lines).strip()


def fenced_doctests(text: str) -> str:
    """Paragraphs that begin with >>> in a fence."""
    paragraphs = re.split(r"\n{2,}", textwrap.dedent(text).strip())
    fenced = (f"```pycon\n{one}\n```" if one.lstrip().startswith(">>>") else one for one in paragraphs)
    return "\n\n".join(fenced)


def field_words(cls: type[Any]) -> dict[str, str]:
    """What each field of a dataclass means: the text below it, `Annotated`'s text, or its line of Args."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        said = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            said = str(after.value.value)
        elif isinstance(node.annotation, ast.Subscript) and ast.unparse(node.annotation.value) == "Annotated":
            said = str(ast.literal_eval(node.annotation.slice.elts[1]))  # pyrefly: ignore[missing-attribute]
        found[node.target.id] = " ".join(said.split())
    return {**found, **{name: said for name, said in _described(cls).items() if not found.get(name, "?")}}


def _described(cls: type[Any]) -> dict[str, str]:
    """The lines of the section Args of a class, by name; else the paragraphs that begin with a field's name."""
    text = inspect.getdoc(cls) or ""
    body = dict(sections(text)).get("Args", "")
    lines = listed(body).replace("\n  ", " ").splitlines()
    args = {found[1]: found[2] for line in lines if (found := re.match(r"- `(\w+)`: (.*)", line))}
    prose = {
        one.name: " ".join(found[0].split())
        for one in dataclasses.fields(cls)
        if (found := re.search(rf"[^.\n]*`{one.name}`[^.]*\.", text))
    }
    return {**prose, **args}


def field_types(cls: type[Any]) -> dict[str, str]:
    """How the source writes the type of each field, without the text of `Annotated`."""
    said = {one.name: one.type if isinstance(one.type, str) else one.type.__name__ for one in dataclasses.fields(cls)}
    return {name: re.sub(r"^Annotated\[(.*?), [\"'].*\]$", r"\1", text) for name, text in said.items()}


def field_default(one: dataclasses.Field[Any]) -> str:
    """The default as text; empty for a field that has to be given."""
    if one.default is not dataclasses.MISSING:
        text = one.default if isinstance(one.default, type) else repr(one.default)
        return f"`{text}`" if "\n" not in str(text) and len(str(text)) < 60 else "its own"
    return "empty" if one.default_factory is not dataclasses.MISSING else ""


def field_table(cls: type[Any]) -> str:
    """A dataclass as a table: field, type, default, meaning."""
    words, types = field_words(cls), field_types(cls)
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for one in dataclasses.fields(cls):
        kind = types[one.name].replace("|", "\\|")
        rows.append(f"| `{one.name}` | `{kind}` | {field_default(one)} | {words.get(one.name, '').replace('|', '/')} |")
    return "\n".join(rows)
