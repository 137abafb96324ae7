"""The reference of the Python API: every public name with its signature, types, meaning and example."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from docstrings import field_words, to_markdown

import reinception as ri

PACKAGE = Path(ri.__file__).parent
# Modules among the public names: each has a page of its own.
VALUES = {"spec": "Architectures as values", "cost": "Cost of an architecture", "family": "The networks by name"}
GROUPS = {
    "Use a model": ("Predictor", "predict", "evaluate", "features", "Compute", "CropProtocol"),
    "Train": ("train", "TrainConfig", "smoothed_cross_entropy", "WithAuxiliary"),
    "Networks": ("create", "models", "inception_v3"),
    "Files": ("load", "save", "convert", "Model", "Manifest", "Preprocessing"),
    "Errors": ("ReinceptionError", "UsageError", "BadImage"),
}


def listed_names(stub: Path) -> list[str]:
    """The names that a file of public names exports, in order."""
    return re.findall(r"^from \S+ import \w+ as (\w+)", stub.read_text(encoding="utf-8"), re.MULTILINE)


def public_names() -> list[str]:
    return [name for name in listed_names(PACKAGE / "__init__.pyi") if name != "__version__"]


def members(module: ModuleType) -> dict[str, Any]:
    """Classes, functions and values that a module defines or exports, by name."""
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", "").startswith("reinception")
    }
    if module.__name__.endswith(("cost",)):
        own = {name: value for name, value in own.items() if value.__module__ == module.__name__}
    return own


def function_behind(name: str) -> Any:
    """What a public name stands for; where a room has the same name (`ri.train`), the function that it calls."""
    value = getattr(ri, name)
    if not isinstance(value, ModuleType) or name in VALUES:
        return value
    stub = (PACKAGE / "__init__.pyi").read_text(encoding="utf-8")
    (home,) = re.findall(rf"^from (\S+) import {name} as", stub, re.MULTILINE)
    return getattr(importlib.import_module(home), name)


def signature(value: Any) -> str:
    """The signature as Sphinx parses it; a default without a literal form becomes an ellipsis."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "()"
    parameters = []
    for one in found.parameters.values():
        if one.name == "self":
            continue
        has_default = one.default is not one.empty
        parameters.append(one.replace(default=_Literal(one.default)) if has_default else one)
    result = found.empty if inspect.isclass(value) else found.return_annotation
    text = str(found.replace(parameters=parameters, return_annotation=result)).replace("'", "")
    try:
        ast.parse(f"def f{text}: pass")
    except SyntaxError:
        return f"({', '.join(str(one.name) for one in parameters)})"
    return text


class _Literal:
    """A default that prints as Python reads it back."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        is_plain = isinstance(self.value, str | int | float | bool | None) or self.value == ()
        return repr(self.value).replace("'", '"') if is_plain else "..."


def directive(kind: str, name: str, value: Any, body: str, *, fence: str = "`" * 6) -> str:
    return f"{fence}{{py:{kind}}} {name}{signature(value) if kind != 'property' else ''}\n\n{body}\n{fence}\n"


def entry(prefix: str, name: str, value: Any) -> str:
    """One public name: signature, docstring, and for a class its fields and public methods."""
    if not (inspect.isclass(value) or callable(value)):
        return f"{'`' * 6}{{py:data}} {prefix}{name}\n\n{type(value).__name__}\n{'`' * 6}\n"
    room = getattr(ri, name, None)
    text = inspect.getdoc(room if isinstance(room, ModuleType) and prefix == "ri." else value) or ""
    if not inspect.isclass(value):
        return directive("function", f"{prefix}{name}", value, to_markdown(text))
    fields = {}
    if dataclasses.is_dataclass(value):
        fields = {name: said for name, said in field_words(value).items() if said}
        text = "" if text.startswith(f"{value.__name__}(") else text
    parts = [to_markdown(text, fields=fields)]
    for method_name, method in vars(value).items():
        said = inspect.getdoc(method) or ""
        if method_name.startswith("_") or not said or issubclass(value, BaseException):
            continue
        if isinstance(method, property):
            parts.append(directive("property", method_name, method, to_markdown(said), fence="`" * 5))
        elif isinstance(method, staticmethod | classmethod) or inspect.isfunction(method):
            parts.append(
                directive("method", method_name, getattr(value, method_name), to_markdown(said), fence="`" * 5)
            )
    return directive("class", f"{prefix}{name}", value, "\n\n".join(parts))


def pages() -> dict[str, str]:
    """The pages of the reference, by file name."""
    names = public_names()
    grouped = {title: [name for name in chosen if name in names] for title, chosen in GROUPS.items()}
    placed = {name for chosen in grouped.values() for name in chosen} | set(VALUES) | {"generative"}
    networks = [name for name in names if name not in placed and callable(getattr(ri.family.catalog, name, None))]
    grouped["Networks"] += networks
    grouped["Also"] = [name for name in names if name not in placed and name not in networks]
    text = [
        "# Python\n\n`import reinception as ri` loads neither torch nor torchvision; each name is loaded when it is "
        "first used. Every example here is run by a test, in a folder that holds `model.safetensors` and `images/`.\n"
    ]
    for title, chosen in grouped.items():
        if chosen:
            text.append(f"## {title}\n\n" + "\n".join(entry("ri.", name, function_behind(name)) for name in chosen))
    found = {"python.md": "\n".join(text)}
    for name, title in VALUES.items():
        module = getattr(ri, name)
        body = "\n".join(entry(f"ri.{name}.", one, value) for one, value in members(module).items())
        found[f"{name}.md"] = (
            f"# ri.{name}: {title[0].lower()}{title[1:]}\n\n{to_markdown(module.__doc__ or '')}\n\n{body}"
        )
    chosen = listed_names(PACKAGE / "generative" / "__init__.pyi")
    body = "\n".join(entry("ri.generative.", name, getattr(ri.generative, name)) for name in chosen)
    found["generative.md"] = f"# ri.generative: scores of generated images\n\n{body}"
    return found
