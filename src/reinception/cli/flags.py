"""The arguments, flags, defaults and help of a verb, derived from the documented fields of the option classes it takes.

A field without a default is an argument, any other a flag of its name. The text under it is its help.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

from reinception.cli.values import choices_of, shown, value_of
from reinception.errors import UsageError
from reinception.files import refuse_existing
from reinception.inference.compute import Compute
from reinception.train.config import TrainConfig, flag
from reinception.weights.choices import Choices

Given = Mapping[str, Any]
"""`Annotated[Given, TrainConfig]`: what was given of the options of a class, none of which is then required."""

STDOUT = Path("-")
ARGUMENTS = Group("Arguments", sort_key=-1)
METAVARS = {"models": "MODEL", "paths": "PATH"}
NOT_FLAGS = {"progress", "notice", "ranks", "study", "with_auxiliary"}
"""Fields that only programs set."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of many verbs: a field of the same name without words of its own has these."""

    data: str
    """a folder of class folders, a manifest, tar shards, an address of them, or the word elpv"""

    workers: int = 2
    """processes that read images"""

    json: Path | None = None
    """write the result as JSON to FILE; without FILE, or with -, print it instead of the text"""

    debug: bool = False
    """on failure, print the traceback too"""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One argument or flag: the field of an option class that it sets."""

    owner: type
    name: str
    hint: Any
    words: str
    default: Any
    is_required: bool
    is_last: bool
    """Whether no argument comes after it: a list then takes all there are, also those after flags."""

    @property
    def is_positional(self) -> bool:
        return self.default is MISSING and self.name != "out"

    @property
    def usage(self) -> str:
        """How a call must mention it; nothing for what may be left out."""
        if self.is_positional:
            return self.metavar + "..." * (get_origin(self.hint) is tuple)
        return f"-o {self.metavar}" if self.default is MISSING else ""

    @property
    def metavar(self) -> str:
        if self.is_positional:
            return METAVARS.get(self.name, self.name.upper())
        return value_of(self.name, self.hint)[0]

    @property
    def help(self) -> str:
        """Its words, with what there is to choose from and the default, in brackets at the end."""
        notes = [f"one of {', '.join(map(str, choices))}"] if (choices := choices_of(self.hint)) else []
        if not any(self.default is nothing for nothing in (MISSING, None, False)):
            notes.append(f"default: {shown(self.name, self.default)}")
        if not notes:
            return self.words
        start = f"{self.words[:-1]}; " if "(default: " in self.words else f"{self.words} ("
        return f"{start}{'; '.join(notes)})"

    def parameter(self, group: Group) -> inspect.Parameter:
        """The same for cyclopts, without what it would add: negative flags, None for the word `none`, conversions."""
        is_flag, is_list = self.hint is bool, get_origin(self.hint) is tuple and self.is_positional
        is_tuple = is_list and not self.is_last
        read = str if self.is_positional or is_flag else value_of(self.name, self.hint)[1]

        def convert(_: object, tokens: Sequence[Token]) -> object:
            return tuple(one.value for one in tokens) if is_tuple else read(tokens[0].value)

        how = Parameter(
            name=self.metavar if self.is_positional else ("-o", "--out") if self.name == "out" else flag(self.name),
            help=self.help,
            metavar=None if is_flag else self.metavar,
            group=group,
            required=self.is_required,
            show_default=False,
            allow_repeating=True,
            negative=(),
            converter=None if is_flag else convert,
        )
        kind = inspect.Parameter.POSITIONAL_ONLY if self.is_positional else inspect.Parameter.KEYWORD_ONLY
        if is_list and self.is_last:
            return inspect.Parameter(self.name, inspect.Parameter.VAR_POSITIONAL, annotation=Annotated[str, how])
        type_ = bool if is_flag else tuple[str, ...] if is_tuple else str | None
        default = inspect.Parameter.empty if self.is_required else False if is_flag else None
        return inspect.Parameter(self.name, kind, default=default, annotation=Annotated[type_, how])


def options_of(owner: type, *, is_partial: bool = False) -> list[Option]:
    """The options that the fields of a dataclass are; with `is_partial` none is required."""
    words = _words(Choices) | _words(TrainConfig) | _words(Common) | _words(owner)
    fields = [one for one in dataclasses.fields(owner) if one.name not in NOT_FLAGS]
    last = [one.name for one in fields if one.default is MISSING and one.name != "out"][-1:]
    # Of these fields only: another may have a type that only a type checker imports.
    hints = get_type_hints(
        SimpleNamespace(__annotations__={one.name: one.type for one in fields}), vars(sys.modules[owner.__module__])
    )
    return [
        Option(
            owner=owner,
            name=one.name,
            hint=hints[one.name],
            words=words[one.name],
            default=one.default,
            is_required=one.default is MISSING and not is_partial,
            is_last=one.name in last,
        )
        for one in fields
    ]


@cache
def _words(owner: type) -> dict[str, str]:
    """The text under each field of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb: the function that does it, whose parameters are option classes."""

    name: str
    run: Callable[..., None]

    @property
    def owners(self) -> dict[str, tuple[type, bool]]:
        """The option class of each parameter of `run`, and whether only what was given of it is handed over."""
        hints = get_type_hints(self.run, include_extras=True)
        del hints["return"]
        return {name: (get_args(hint)[1], True) if get_args(hint) else (hint, False) for name, hint in hints.items()}

    @property
    def options(self) -> list[Option]:
        """Arguments first; where two classes have an option of the same name, the one that `run` takes first."""
        found = [one for owner, is_partial in self.owners.values() for one in options_of(owner, is_partial=is_partial)]
        found += [one for one in options_of(Common) if one.name == "debug"]
        known = {one.name: one for one in reversed(found)}
        return sorted(reversed(known.values()), key=lambda one: not one.is_positional)

    @property
    def usage(self) -> str:
        words = [one.usage for one in self.options if one.usage]
        return f"Usage: {' '.join(['reinception', self.name, *words, '[options]'])}"

    @property
    def command(self) -> Callable[..., None]:
        """A function whose signature is the flags; it fills the option classes and calls `run`."""
        options = self.options

        def call(*arguments: Any, **given: Any) -> None:
            values = list(arguments)
            for one in [one for one in options if one.is_positional][: len(values)]:
                is_rest = one.is_last and get_origin(one.hint) is tuple
                given[one.name] = tuple(values) if is_rest else values.pop(0)
            filled = {}
            for name, (owner, is_partial) in self.owners.items():
                own = {one.name: given[one.name] for one in options_of(owner) if one.name in given}
                filled[name] = own if is_partial else owner(**own)
            self.run(**filled)

        # How help groups the flags, where the verb's module says it: fields by title.
        sections: Mapping[str, Sequence[str]] = getattr(sys.modules[self.run.__module__], "GROUPS", {})
        titles = {name: title for title, names in sections.items() for name in names}
        order = [*sections, "Options", "Speed and memory"]
        groups = {title: Group(title, sort_key=place) for place, title in enumerate(order)}
        parameters = []
        for one in options:
            title = "Speed and memory" if one.owner is Compute else titles.get(one.name, "Options")
            parameters.append(one.parameter(ARGUMENTS if one.is_positional else groups[title]))
        call.__signature__ = inspect.Signature(parameters)  # pyrefly: ignore[missing-attribute]
        return call


def refuse_results(*files: Path | None) -> None:
    """ReinceptionError where a file to write exists: before the work, for a result with nowhere to go is lost."""
    for file in files:
        if file is not None and file != STDOUT:
            refuse_existing(file)


def exclusive(given: Given, *names: str) -> None:
    """UsageError where more than one of these was given."""
    if len(both := [flag(name) for name in names if name in given]) > 1:
        raise UsageError(f"{' and '.join(both)} exclude each other: leave one of them out")
