"""How a verb is added, and the flags that several verbs share; standard library only."""

from __future__ import annotations

import argparse

from reinception.cli.parsing import Parser, natural_int, positive_float, positive_int

Verbs = argparse._SubParsersAction


def add_verb(
    verbs: Verbs[Parser], name: str, *, call: str, usage: str, does: str, more: str = "", under: str = ""
) -> Parser:
    verb = verbs.add_parser(
        name,
        usage=" ".join(filter(None, ("reinception", under, name, usage))),
        help=does,
        description=f"{does[0].upper()}{does[1:]}. {more}".strip(),
    )
    verb.add_argument("--debug", action="store_true", help="on failure, print the traceback too")
    verb.set_defaults(call=call)
    return verb


def input_size(verb: Parser) -> None:
    verb.add_argument(
        "--input-size",
        metavar="N",
        type=positive_int,
        help="pixels per side of the square the network sees (default: the network's own)",
    )


def width(verb: Parser) -> None:
    verb.add_argument(
        "--width",
        metavar="W",
        type=positive_float,
        default=1.0,
        help="channels of every layer times W, at least 16: a smaller W is faster (default: %(default)s)",
    )


def workers(verb: Parser, default: int = 0) -> None:
    verb.add_argument(
        "--workers",
        metavar="K",
        type=natural_int,
        default=default,
        help="processes that read images; the result is the same for any number. With 0 they are read in this one, and "
        "an image that crashes the decoder ends it without a word; with 1 or more it is named (default: %(default)s)",
    )


def precision(verb: Parser, default: str, why: str) -> None:
    verb.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default=default,
        help=f"number format of the heavy layers; {why} (default: %(default)s)",
    )


def batches(verb: Parser) -> None:
    """Flags of the verbs that run a trained model over many images."""
    verb.add_argument(
        "--batch-size",
        metavar="N",
        type=positive_int,
        default=32,
        help="images at a time: memory and speed, not the result (default: %(default)s)",
    )
    workers(verb, default=1)
    precision(verb, "fp32", "fp32 gives the same figures on every processor, bf16 is faster where the hardware has it")


def json_or_stdout(verb: Parser) -> None:
    verb.add_argument("--json", metavar="FILE", nargs="?", const="-", help="print JSON instead, or write it to FILE")


def json_file(verb: Parser) -> None:
    verb.add_argument(
        "--json",
        metavar="FILE",
        help="write the result as JSON too; - is the standard output, and then replaces the text",
    )
