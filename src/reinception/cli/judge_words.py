"""The words of the verbs `compare`, `features` and `ablate`; standard library only."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from reinception.cli.parsing import Parser, duration, positive_int

Verbs = argparse._SubParsersAction


def add_compare(verbs: Verbs[Parser], verb_of: Callable[..., Parser]) -> None:
    verb = verb_of(
        verbs,
        "compare",
        call="judge:compare",
        usage="A B [--json FILE]",
        does="say whether one model is better than another on the same images",
        more="A and B are run folders, or files of `reinception evaluate --predictions`. Paired: McNemar's exact test, "
        "and the difference in accuracy with a bootstrap interval. Where there is no evidence, it says so.",
    )
    verb.add_argument("a", metavar="A", help="a run folder, or a CSV file of predictions")
    verb.add_argument("b", metavar="B", help="what to compare it with")
    verb.add_argument(
        "--json",
        metavar="FILE",
        help="write the result as JSON too; - is the standard output, and then replaces the text",
    )


def add_features(verbs: Verbs[Parser], verb_of: Callable[..., Parser]) -> Parser:
    verb = verb_of(
        verbs,
        "features",
        call="judge:features",
        usage="MODEL PATH [PATH ...] -o FILE.npz [options]",
        does="write what a network knows of images before it names them",
        more="The pooled features, 2,048 for each image at full width, as the array `features` beside `paths`. A file "
        "that cannot be read is named, and the rest go on; the exit code is then 1.",
    )
    verb.add_argument("model", metavar="MODEL", help="a model file or a run folder")
    verb.add_argument(
        "paths", metavar="PATH", nargs="+", help="image files, folders (searched through) or quoted globs"
    )
    verb.add_argument("-o", "--out", metavar="FILE", required=True, help="the .npz to write, never over another file")
    return verb


def add_ablate(verbs: Verbs[Parser], verb_of: Callable[..., Parser]) -> Parser:
    verb = verb_of(
        verbs,
        "ablate",
        call="judge:ablate",
        usage="DATA -o FOLDER [--table 2|3 | --experiment NAME] [options]",
        does="train the rows of one of the paper's tables on your images, side by side",
        more="Every row and seed gets the same budget and becomes a run folder of its own in FOLDER. Killed at any "
        "moment, the same command goes on with the rows that are missing.",
    )
    verb.add_argument("data", metavar="DATA", help="what train takes")
    verb.add_argument("-o", "--out", metavar="FOLDER", required=True, help="where the runs and the table go")
    which = verb.add_mutually_exclusive_group()
    which.add_argument(
        "--table",
        choices=("2", "3"),
        default="3",
        help="3 is the ladder from Inception-v2 to v3, 2 is 79, 151 and 299 pixels at equal cost "
        "(default: %(default)s)",
    )
    which.add_argument(
        "--experiment",
        metavar="NAME",
        help="one of the paper's small experiments instead: figure_2, figure_9, section_3_2, auxiliary or "
        "factorization_place",
    )
    length = verb.add_mutually_exclusive_group()
    length.add_argument(
        "--budget",
        metavar="TIME",
        type=duration,
        default=600.0,
        help="training time of each row and seed, as 90s, 10m or 2h (default: 10m)",
    )
    length.add_argument(
        "--epochs", metavar="N", type=positive_int, help="passes over the training images instead of a time"
    )
    verb.add_argument(
        "--seeds", metavar="N", type=positive_int, default=1, help="repetitions of every row (default: %(default)s)"
    )
    verb.add_argument("--batch-size", metavar="N", type=positive_int, help="images per step (default: the recipe's)")
    return verb
