"""A verb's arguments, flags, defaults and help, derived from the documented fields of the option classes it takes."""

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
"""What was given of an option class, none of which is then required: `Annotated[Given, TrainConfig]`."""

STDOUT = Path("-")
ARGUMENTS = Group("Arguments", sort_key=-1)
METAVARS = {"models": "MODEL", "paths": "PATH"}
NOT_FLAGS = {"progress", "ranks", "study", "with_auxiliary"}
"""Fields that are not typed on a command line: what a program hands over."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """Flags of many verbs: a field elsewhere that bears the same name and no words of its own has these."""

    json: Path | None = None
    """write the result to FILE as JSON; without FILE, or with -, print JSON instead of the text"""

    data: str
    """a folder of class folders, a manifest, tar shards, an address of them, or the word elpv"""

    workers: int = 2
    """processes that read images"""

    debug: bool = False
    """on failure, print the traceback too"""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One argument or flag: the field of an option class that it sets."""

    owner: type
    name: str
    hint: Any
    words: str
    default: Any = MISSING
    is_partial: bool = False
    """Whether the verb takes what was given of `owner`, so that nothing of it is required."""
    is_last: bool = False
    """Whether no argument follows, so that a list takes all there are, also after flags."""

    @property
    def is_positional(self) -> bool:
        """Arguments are what has no default, but for the file or folder to write."""
        return self.default is MISSING and self.name != "out"

    @property
    def is_list(self) -> bool:
        return self.is_positional and get_origin(self.hint) is tuple

    @property
    def is_required(self) -> bool:
        return self.default is MISSING and not self.is_partial

    @property
    def metavar(self) -> str:
        if self.is_positional:
            return METAVARS.get(self.name, self.name.upper())
        return value_of(self.name, self.hint).metavar

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--out", "-o") if self.name == "out" else (flag(self.name),)

    @property
    def help(self) -> str:
        """Its words, with what there is to choose from, and the default."""
        notes = [f"one of {', '.join(map(str, choices))}"] if (choices := choices_of(self.hint)) else []
        if not any(self.default is nothing for nothing in (MISSING, None, False)):
            notes.append(f"default: {shown(self.name, self.default)}")
        if not notes:
            return self.words
        open_words = self.words.removesuffix(")") if "(default: " in self.words else self.words
        return f"{open_words}{' (' if open_words == self.words else '; '}{'; '.join(notes)})"

    def parameter(self, group: Group) -> inspect.Parameter:
        """The same for cyclopts, without what it would add: negative flags, None for `none`, values of its own."""
        if self.hint is bool:
            how = Parameter(name=self.flags, help=self.help, negative=(), group=group)
            return inspect.Parameter(
                self.name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, how]
            )
        read = str if self.is_positional else value_of(self.name, self.hint).read
        is_tuple = self.is_list and not self.is_last

        def convert(_: object, tokens: Sequence[Token]) -> object:
            return tuple(one.value for one in tokens) if is_tuple else read(tokens[0].value)

        how = Parameter(
            name=self.metavar if self.is_positional else self.flags,
            help=self.help,
            metavar=self.metavar,
            group=group,
            required=self.is_required,
            show_default=False,
            allow_repeating=True,
            converter=convert,
        )
        if self.is_list and self.is_last:
            return inspect.Parameter(self.name, inspect.Parameter.VAR_POSITIONAL, annotation=Annotated[str, how])
        kind = inspect.Parameter.POSITIONAL_ONLY if self.is_positional else inspect.Parameter.KEYWORD_ONLY
        default = inspect.Parameter.empty if self.is_required else None
        type_ = tuple[str, ...] if is_tuple else str | None
        return inspect.Parameter(self.name, kind, default=default, annotation=Annotated[type_, how])


def options_of(owner: type, *, is_partial: bool = False) -> list[Option]:
    """The options that the fields of a dataclass are."""
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
            is_partial=is_partial,
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
    """A verb: the function that does it, and the options its parameters are."""

    name: str
    run: Callable[..., None]

    @property
    def owners(self) -> dict[str, tuple[type, bool]]:
        """The option class of each parameter of `run`, and whether only what was given of it is handed over."""
        hints = get_type_hints(self.run, include_extras=True)
        return {
            name: (get_args(hint)[1], True) if get_args(hint) else (hint, False)
            for name, hint in hints.items()
            if name != "return"
        }

    @property
    def options(self) -> list[Option]:
        found = [one for owner, is_partial in self.owners.values() for one in options_of(owner, is_partial=is_partial)]
        common = [one for one in options_of(Common) if one.name == "debug"]
        # What `run` takes first goes before: an option of the verb hides one of the same name behind it.
        known = {one.name: one for one in reversed([*found, *common])}
        return sorted(reversed(known.values()), key=lambda one: not one.is_positional)

    @property
    def usage(self) -> str:
        words = [f"{one.metavar}..." if one.is_list else one.metavar for one in self.options if one.is_positional]
        words += [
            f"{one.flags[-1]} {one.metavar}" for one in self.options if one.default is MISSING and one.name == "out"
        ]
        return f"Usage: reinception {' '.join([self.name, *words])} [options]"

    @property
    def command(self) -> Callable[..., None]:
        """The function for cyclopts: its signature are the flags, and it calls `run` with the option classes filled."""

        def call(*arguments: Any, **given: Any) -> None:
            for one in self.options:
                if one.is_positional and arguments:
                    given[one.name], arguments = (
                        (arguments, ()) if one.is_list and one.is_last else (arguments[0], arguments[1:])
                    )
            filled = {}
            for name, (owner, is_partial) in self.owners.items():
                own = {one.name: given[one.name] for one in options_of(owner) if one.name in given}
                filled[name] = own if is_partial else owner(**own)
            self.run(**filled)

        titles = [*self._sections, "Options", "Speed and memory"]
        groups = {ARGUMENTS.name: ARGUMENTS} | {
            title: Group(title, sort_key=order) for order, title in enumerate(titles)
        }
        parameters = [one.parameter(groups[self._title(one)]) for one in self.options]
        call.__signature__ = inspect.Signature(parameters)  # pyrefly: ignore[missing-attribute]
        return call

    @property
    def _sections(self) -> Mapping[str, Sequence[str]]:
        """How help groups the flags, where the verb's module says it: fields by title."""
        return getattr(sys.modules[self.run.__module__], "GROUPS", {})

    def _title(self, option: Option) -> str:
        if option.is_positional:
            return ARGUMENTS.name
        if option.owner is Compute:
            return "Speed and memory"
        return next((title for title, names in self._sections.items() if option.name in names), "Options")


def refuse_results(*files: Path | None) -> None:
    """ReinceptionError where a file to write is there: before the work, for a result with nowhere to go is lost."""
    for file in files:
        if file is not None and file != STDOUT:
            refuse_existing(file)


def exclusive(given: Given, *names: str) -> None:
    """UsageError where more than one of these was given."""
    if len(both := [flag(name) for name in names if name in given]) > 1:
        raise UsageError(f"{' and '.join(both)} exclude each other: leave one of them out")
