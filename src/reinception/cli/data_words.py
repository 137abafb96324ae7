"""The words of `reinception data`: its verbs and flags; standard library only."""

from __future__ import annotations

from reinception.cli.flags import Verbs, add_verb
from reinception.cli.parsing import Parser, fraction, natural_int, positive_int


def add_data(verbs: Verbs[Parser]) -> None:
    """The verb `data` with its three verbs below it."""
    data = verbs.add_parser(
        "data",
        usage="reinception data VERB ...",
        help="find what is wrong with pictures, split them without leaking, pack them into shards",
        description="Pictures before training: what is wrong with them, who trains and who judges, and tar shards.",
    )
    below = data.add_subparsers(
        prog="reinception data", title="verbs", metavar="VERB", required=True, parser_class=Parser, help="one of"
    )
    for add in (_check, _split, _pack):
        add(below)


def _check(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "check",
        under="data",
        call="data:check",
        usage="DATA [options]",
        does="decode and compare every picture and say what is wrong",
        more="Errors, with exit code 1: files that can not be used, the same picture in two splits or under two "
        "labels. Warnings: duplicates, rare sizes, modes and orientations, tiny and unequal classes. Changes nothing.",
    )
    _data(verb)
    verb.add_argument("--json", metavar="FILE", help="write all that was found as JSON; - is the standard output")
    verb.add_argument("--html", metavar="FILE", help="write a page with a small copy of each picture that is named")
    verb.add_argument(
        "--quarantine",
        metavar="FILE",
        help="write the names of the files that can not be used, one a line, for --exclude of train and evaluate",
    )
    _workers(verb)


def _split(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "split",
        under="data",
        call="data:split",
        usage="DATA -o FILE.csv [options]",
        does="write a manifest with train, val and test that do not leak",
        more="Stratified by class. Pictures of one group, and pictures that are the same, stay in one split.",
    )
    _data(verb)
    verb.add_argument(
        "-o",
        "--out",
        metavar="FILE.csv",
        required=True,
        help="the manifest to write, DATA for train; never over a file",
    )
    verb.add_argument(
        "--group-by",
        metavar="HOW",
        help="what stays together: a column of a manifest, folder, regex:PATTERN on the names, or group (of elpv, the "
        "solar module)",
    )
    verb.add_argument(
        "--folds", metavar="K", type=positive_int, help="write K manifests that test on another part each"
    )
    verb.add_argument(
        "--val-fraction", metavar="F", type=fraction, default=0.1, help="share for val (default: %(default)s)"
    )
    verb.add_argument(
        "--test-fraction", metavar="F", type=fraction, default=0.25, help="share for test (default: %(default)s)"
    )
    verb.add_argument(
        "--no-compare",
        action="store_true",
        help="read no picture, and so do not look for those that are the same: seconds for a million",
    )
    verb.add_argument(
        "--seed", metavar="S", type=int, default=0, help="another seed, another split (default: %(default)s)"
    )
    _workers(verb)


def _pack(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "pack",
        under="data",
        call="data:pack",
        usage="DATA -o DIR [options]",
        does="put the pictures into tar shards with an index and checksums",
        more="The folder is DATA for train, and WebDataset reads its shards. Interrupted, the same command goes on.",
    )
    _data(verb)
    verb.add_argument("-o", "--out", metavar="DIR", required=True, help="the folder to make, or to go on with")
    verb.add_argument(
        "--shorter-side",
        metavar="N",
        type=positive_int,
        help="resize larger pictures to N pixels on the shorter side, as JPEG (default: bytes as they are)",
    )
    verb.add_argument(
        "--per-shard", metavar="N", type=positive_int, default=2000, help="pictures per shard (default: %(default)s)"
    )
    _workers(verb)


def _data(verb: Parser) -> None:
    verb.add_argument(
        "data",
        metavar="DATA",
        help="a folder of class folders or tar shards, a manifest, an address (s3://...), or elpv",
    )


def _workers(verb: Parser) -> None:
    verb.add_argument(
        "--workers",
        metavar="K",
        type=natural_int,
        default=2,
        help="processes that read pictures (default: %(default)s)",
    )
