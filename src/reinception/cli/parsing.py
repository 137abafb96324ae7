"""The whole command line: its verbs, its help, and what is said where a command makes no sense."""

from __future__ import annotations

import importlib
import inspect
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from reinception import __version__
from reinception.cli.flags import ARGUMENTS, Verb
from reinception.errors import UsageError

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

PROGRAM = "reinception"
ABOUT = "Inception-v3 on PyTorch: look at the networks, train one on your images, evaluate it, use it."
CODES = f"""`{PROGRAM} VERB --help` explains a verb, `{PROGRAM} --version` prints the version.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

# Each is the function `run` of the module of its name: `data check` is in data_check.py.
VERBS = (
    *("models", "show", "draw", "train", "recipe list", "recipe show", "recipe suggest"),
    "recipe find-rate",
    *("evaluate", "predict", "report", "compare", "features", "score", "ablate", "shrink"),
    *("data check", "data split", "data pack", "weights identify", "weights convert"),
    *("export", "bench", "rewrite check", "serve", "push", "pull", "doctor"),
)
GROUPS = {
    "recipe": "Say how a recipe trains, every number with its meaning and its source.",
    "data": "Check images before training, split them without leaks, pack them into shards.",
    "weights": "Identify the Inception-v3 weights of other libraries, convert them here and back.\n\nFiles are read "
    "without running anything in them: a pickle that wants more than tensors is refused.",
    "rewrite": "Make a network cheaper to compute without changing what it computes, and check that.",
}


def parse(words: Sequence[str]) -> Callable[[], None]:
    """What a command line asks for, ready to be called. UsageError, one line, where it makes no sense."""
    if list(words) == ["--version"]:
        return partial(print, PROGRAM, __version__)
    top = _app(words)
    if not words:
        return lambda: print(_help(top, []), end="", file=sys.stderr)
    try:
        call, bound, _ = top.parse_args(_explicit(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        chain = " ".join(error.command_chain or ())
        what = verb_named(chain).usage if chain in VERBS else f"See {PROGRAM} {chain}{' ' if chain else ''}--help."
        raise UsageError(f"{error}{'' if str(error).endswith('.') else '.'} {what}") from None
    if getattr(call, "__func__", None) is App.help_print:
        asked = bound.arguments["tokens"]
        if not {"--help", "-h"} & set(words):
            raise UsageError(f"{asked[0]} needs one of its verbs. See {PROGRAM} {asked[0]} --help.")
        return lambda: print(_help(top, asked), end="")
    return lambda: call(*bound.args, **bound.kwargs)


def verb_named(name: str) -> Verb:
    return Verb(name=name, run=importlib.import_module(f"reinception.cli.{re.sub('[ -]', '_', name)}").run)


def _explicit(words: Sequence[str]) -> list[str]:
    """`--json` alone asks for the standard output, and `-`, which names it, is the value of a flag and not a flag."""
    explicit: list[str] = []
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word == "-" and explicit and explicit[-1].startswith("-"):
            explicit[-1] = explicit[-1].removesuffix("=-") + "=-"
        else:
            explicit.append("--json=-" if word == "--json" and following.startswith("-") else word)
    return explicit


def _app(words: Sequence[str]) -> App:
    """The verbs; only the one that is asked for with its flags."""
    make = partial(App, version_flags=[], group_commands="Verbs", group_arguments=ARGUMENTS)
    top = make(PROGRAM, ABOUT, f"Usage: {PROGRAM} VERB ...", help_epilogue=CODES, help_format="plaintext")
    top.help_formatter = _print_panel
    above = {"": top}
    # Only those that can be meant are imported.
    meant = [name for name in VERBS if name.split()[0] in words[:1]] or VERBS
    for order, name in enumerate(meant):
        group, _, last = name.rpartition(" ")
        if group not in above:
            explains = f"`{PROGRAM} {group} VERB --help` explains a verb."
            usage = f"Usage: {PROGRAM} {group} VERB ..."
            above[group] = make(group, GROUPS[group], usage, help_epilogue=explains, sort_key=order)
            top.command(above[group])
        verb = verb_named(name)
        about, _, example = inspect.cleandoc(verb.run.__doc__ or "").partition("\n\nExample: ")
        app = make(last, re.sub(r"(?<!\n)\n(?!\n)", " ", about), help_epilogue=f"Example: {example}", sort_key=order)
        if name.split() == list(words[: len(name.split())]):
            app.usage = verb.usage
            app.default(verb.command)
        above[group].command(app)
    for app in above.values():
        app["--help"].show = False
    return top


# -- help --------------------------------------------------------------------------------------------------------------


def _help(top: App, asked: Sequence[str]) -> str:
    """Help reads the same everywhere: no colours, as wide as the terminal, 100 columns where there is none."""
    from rich.console import Console

    file, width = io.StringIO(), shutil.get_terminal_size((100, 24)).columns
    console = Console(file=file, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    top.help_print(list(asked), console=console)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +$", "", file.getvalue(), flags=re.MULTILINE))


def _print_panel(console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
    """One group of arguments, flags or verbs in two columns: names and words."""
    rows = []
    for entry in panel.entries:
        names = entry.positional_label or ", ".join((*entry.positive_shorts, *entry.positive_names))
        with console.capture() as words:
            console.print(entry.description, soft_wrap=True)
        rows.append((f"{names} {'' if entry.positional_label else entry.metavar or ''}".rstrip(), words.get().strip()))
    column = max((len(name) for name, _ in rows), default=0) + 4
    wrap = partial(textwrap.wrap, width=console.width, subsequent_indent=" " * column, break_on_hyphens=False)
    lines = [line for name, words in rows for line in wrap(f"  {name:<{column - 2}}{words}")]
    console.print("\n".join([f"\n{panel.title}:", *lines]) if rows else "", soft_wrap=True)
