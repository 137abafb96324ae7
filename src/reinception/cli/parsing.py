"""The whole command line: its verbs, its help, and what is said where a command makes no sense."""

from __future__ import annotations

import difflib
import importlib
import inspect
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from reinception import __version__
from reinception.cli.flags import ARGUMENTS, Verb
from reinception.cli.values import suggestion
from reinception.errors import UsageError

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

PROGRAM = "reinception"
ABOUT = "Inception-v3 on PyTorch: look at the networks, train one on your images, evaluate it, use it."
CODES = """`reinception VERB --help` explains a verb, `reinception --version` prints the version.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

# Each is the function `run` of the module of its name: `data check` is in data_check.py.
VERBS = (
    *("models", "show", "draw", "train", "recipe list", "recipe show"),
    *("evaluate", "predict", "report", "compare", "features", "ablate"),
    *("data check", "data split", "data pack", "weights identify", "weights convert", "doctor"),
)
GROUPS = {
    "recipe": "Say how a recipe trains, every number with its meaning and its source.",
    "data": "Check images before training, split them without leaks, pack them into shards.",
    "weights": "Identify the Inception-v3 weights of other libraries, convert them here and back.\n\nFiles are read "
    "without running anything in them: a pickle that wants more than tensors is refused.",
}


def parse(words: Sequence[str]) -> Callable[[], None]:
    """What a command line asks for, ready to be called. UsageError, one line, where it makes no sense."""
    if list(words) == ["--version"]:
        return partial(print, PROGRAM, __version__)
    top = _app(words)
    if not words:
        return lambda: _print_help(top, [], is_error=True)
    try:
        call, bound, _ = top.parse_args(_plain(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UsageError(_reason(error)) from None
    if getattr(call, "__func__", None) is App.help_print:
        asked = bound.arguments["tokens"]
        if not {"--help", "-h"} & set(words):
            raise UsageError(f"{asked[-1]}: {suggestion('', _verbs_below(asked[-1]))}")
        return lambda: _print_help(top, asked)
    return lambda: call(*bound.args, **bound.kwargs)


def _plain(words: Iterable[str]) -> list[str]:
    """`--json` alone asks for the standard output, and `-`, which names it, is the value of a flag and not a flag."""
    plain: list[str] = []
    given = list(words)
    for index, word in enumerate(given):
        following = given[index + 1] if index + 1 < len(given) else "--"
        if word == "-" and plain and plain[-1].startswith("-"):
            plain[-1] = plain[-1].removesuffix("=-") + "=-"
        else:
            is_bare = word == "--json" and following.startswith("-")
            plain.append("--json=-" if is_bare else word)
    return plain


def _app(words: Sequence[str]) -> App:
    """The verbs; only the one that is asked for with its flags."""
    top = App(
        name=PROGRAM,
        help=ABOUT,
        usage="Usage: reinception VERB ...",
        help_epilogue=CODES,
        help_format="plaintext",
        help_formatter=_print_panel,
        version_flags=[],
        group_commands="Verbs",
        result_action="return_value",
    )
    asked = [*words, "", ""][:2]
    above = {"": top}
    for order, name in enumerate(VERBS):
        group, _, last = name.rpartition(" ")
        if group not in above:
            above[group] = App(
                name=group,
                help=GROUPS[group],
                usage=f"Usage: reinception {group} VERB ...",
                help_epilogue=f"`reinception {group} VERB --help` explains a verb.",
                version_flags=[],
                group_commands="Verbs",
                sort_key=order,
            )
            top.command(above[group])
        verb = verb_named(name)
        about, _, example = inspect.cleandoc(verb.run.__doc__ or "").partition("\n\nExample: ")
        app = App(name=last, help=_unwrapped(about), version_flags=[], group_arguments=ARGUMENTS, sort_key=order)
        if name.split() == asked[: len(name.split())]:
            app.usage, app.help_epilogue = verb.usage, f"Example: {_unwrapped(example)}"
            app.default(verb.command)
        above[group].command(app)
    for app in above.values():
        app["--help"].show = False
    return top


def _unwrapped(text: str) -> str:
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


# -- help --------------------------------------------------------------------------------------------------------------

NAME_WIDTH = 24


def _print_help(top: App, asked: Sequence[str], *, is_error: bool = False) -> None:
    """Help reads the same everywhere: no colours, as wide as the terminal, 100 columns where there is none."""
    from rich.console import Console

    width = shutil.get_terminal_size((100, 24)).columns
    written = io.StringIO()
    console = Console(file=written, width=width, color_system=None, highlight=False, markup=False)
    top.help_print(list(asked), console=console)
    text = re.sub(r" +$", "", written.getvalue(), flags=re.MULTILINE)
    print(re.sub(r"\n{3,}", "\n\n", text), end="", file=sys.stderr if is_error else sys.stdout)


def _print_panel(console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
    """One group of arguments, flags or verbs: two columns, names and words."""
    rows = []
    for entry in panel.entries:
        name = ", ".join((*entry.positive_shorts, *entry.positive_names)) or str(entry.positional_label)
        if entry.metavar and not entry.positional_label:
            name += f" {entry.metavar}"
        with console.capture() as captured:
            console.print(entry.description, soft_wrap=True)
        rows.append((name, captured.get().strip()))
    if not rows:
        return
    column = max(len(name) for name, _ in rows) + 4
    lines = [f"\n{panel.title}:"]
    for name, words in rows:
        lines += textwrap.wrap(
            f"  {name:<{column - 2}}{words}",
            console.width,
            subsequent_indent=" " * column,
            break_long_words=False,
            break_on_hyphens=False,
        )
    console.print("\n".join(lines), soft_wrap=True)


# -- what is said where a command makes no sense -----------------------------------------------------------------------


def _reason(error: CycloptsError) -> str:
    """One line: what, where, what to do."""
    chain = " ".join(error.command_chain or ())
    where = f"{chain}: " if chain else ""
    return f"{where}{_what(error, chain)} (see {' '.join(filter(None, (PROGRAM, chain)))} --help)"


def _what(error: CycloptsError, chain: str) -> str:
    match error:
        case UnknownCommandError():
            word = (error.unused_tokens or [""])[0]
            return f"unknown: {word}; {suggestion(word, _verbs_below(chain))}"
        case UnknownOptionError():
            word = (error.token.keyword or error.token.value).partition("=")[0]
            known = [name for one in error.argument_collection for name in one.names if name.startswith("-")]
            near = difflib.get_close_matches(word, known, n=1)
            return f"unknown flag: {word}{f'; did you mean {near[0]}?' if near else ''}"
        case MissingArgumentError():
            return f"{error.keyword} needs a value" if error.keyword else f"more is needed: {verb_named(chain).usage}"
        case CoercionError() if error.token is not None:
            return f"{error.token.keyword}: {error.msg or error}"
        case UnusedCliTokensError():
            return f"too many arguments: {' '.join(error.unused_tokens or ())}"
        case _:
            return str(error)


def verb_named(name: str) -> Verb:
    return Verb(name=name, run=importlib.import_module(f"reinception.cli.{name.replace(' ', '_')}").run)


def _verbs_below(group: str) -> list[str]:
    """The words that may follow: the verbs of a group, or with no group the first words of all."""
    if not group:
        return list(dict.fromkeys(verb.split()[0] for verb in VERBS))
    return [verb.removeprefix(f"{group} ") for verb in VERBS if verb.startswith(f"{group} ")]
