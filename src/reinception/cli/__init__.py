"""The command line: parses, calls one verb, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from reinception.errors import Interrupted, ReinceptionError, UsageError

PROGRAM = "reinception"
DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
COMPUTING = {
    "train",
    "evaluate",
    "predict",
    "features",
    "score",
    "ablate",
    "shrink",
    "weights",
    "rewrite",
    "export",
    "serve",
    "bench",
}
"""Verbs that run networks: what they free they need again at once, and their threads wait for each other often."""
TRAINING = {"train", "ablate", "shrink"}
SIGNALLED = 128  # plus the number of the signal, as shells count


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted, 143
    terminated."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no name of a file or class ends the work, whatever the encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        # Here, so that Ctrl-C while modules load is one line too.
        from reinception.cli.parsing import parse
        from reinception.machine import keep_freed_memory, share_processors, use_free_processors

        call = parse(words)
        if words and words[0] in COMPUTING:
            # A run that is resumed has the number of threads that it began with, for they change bits.
            if words[0] in TRAINING and "--resume" not in words and (line := use_free_processors()):
                say(line)
            share_processors()
            keep_freed_memory()
        call()
        sys.stdout.flush()
    except KeyboardInterrupt as interruption:
        again = interruption.again if isinstance(interruption, Interrupted) else ()
        command = shlex.join([PROGRAM, *words, *(flag for flag in again if flag not in words)])
        way = "to go on" if again else "to start again"
        say(f"interrupted; {str(interruption) or f'{way}: {command}'}")
        return SIGNALLED + interruption.number if isinstance(interruption, Interrupted) else INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone, as in `reinception show NAME | head`; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        say(one_line(error))
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED
    return DONE if words else WRONG_USAGE


def say(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """What failed, where, and what to do, in one line, for any exception a verb lets through."""
    if isinstance(error, ReinceptionError):
        return _joined(str(error))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{_place(error)}no room left on the disk; free some and start again"
    if isinstance(error, OSError) and error.strerror:
        return f"{_place(error)}{error.strerror}"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"out of memory; try a smaller --batch-size or --input-size ({_joined(str(error))[:120]})"
    return f"{type(error).__name__}: {_joined(str(error))}; this is a fault of reinception: --debug shows where"


def _place(error: OSError) -> str:
    return f"{error.filename}: " if error.filename is not None else ""


def _joined(text: str) -> str:
    return " ".join(text.split())
