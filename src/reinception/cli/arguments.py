"""The words of the command line: its frame, and the verbs that look at networks, recipes and the machine; standard
library only. Training, judging, data and weights have modules of words of their own."""

from __future__ import annotations

from reinception import __version__
from reinception.cli.data_words import add_data
from reinception.cli.flags import Verbs, add_verb, input_size, json_or_stdout, width
from reinception.cli.judge_words import add_ablate, add_compare, add_evaluate, add_features, add_predict, add_report
from reinception.cli.parsing import Parser
from reinception.cli.train_words import add_train
from reinception.cli.weights_words import add_weights


def parser() -> Parser:
    """The whole command line; `call` of what it parses is the `module:function` in this package that does the work."""
    top = Parser(
        prog="reinception",
        usage="reinception VERB ...",
        description="Inception-v3 on PyTorch: look at the networks, train one on your images, judge it, use it.",
        epilog="`reinception VERB --help` explains a verb. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"reinception {__version__}", help="print the version")
    verbs = top.add_subparsers(prog="reinception", title="verbs", metavar="VERB", required=True, parser_class=Parser)
    for add in (
        *(add_models, add_show, add_draw, add_train, add_recipe),
        *(add_evaluate, add_predict, add_report, add_compare, add_features, add_ablate),
        *(add_data, add_weights, add_doctor),
    ):
        add(verbs)
    return top


def add_models(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "models",
        call="look:models",
        usage="[--experiments] [--json [FILE]]",
        does="list every network, what it costs and what the paper reports",
        more="Sizes and costs are computed from the network itself; reported figures are the paper's.",
    )
    verb.add_argument(
        "--experiments",
        action="store_true",
        help="list the variants of the paper's small experiments instead: Inception-v3 with one part exchanged",
    )
    json_or_stdout(verb)


def add_show(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "show",
        call="look:show",
        usage="NAME [--input-size N] [--width W] [--json [FILE]]",
        does="print one network layer by layer",
        more="Shapes, parameters and multiply-adds of each layer, totals by stage, and at each cut of the network what "
        "one unit sees of the image.",
    )
    verb.add_argument(
        "name", metavar="NAME", help="a network of `reinception models`, or a variant of its --experiments"
    )
    input_size(verb)
    width(verb)
    json_or_stdout(verb)


def add_draw(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "draw",
        call="draw:draw",
        usage="NAME -o FILE.svg [--at PART] [--input-size N] [--width W]",
        does="draw one network as a picture",
        more="An SVG like the paper's figures, from the image at the top to the classifier at the bottom; what looks "
        "the same several times in a row is drawn once. Each box says its path and shapes when pointed at.",
    )
    verb.add_argument("name", metavar="NAME", help="a network of `reinception models`")
    verb.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        required=True,
        help="the file to write, never over another; - is the standard output",
    )
    verb.add_argument(
        "--at",
        metavar="PART",
        help="draw only this module or auxiliary classifier, as grid17.0 or aux, upwards as in the paper's figures",
    )
    input_size(verb)
    width(verb)


def add_recipe(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "recipe",
        call="recipes:recipe",
        usage="list | show NAME [--json [FILE]]",
        does="print how a recipe trains, every number with its meaning and its source",
    )
    verb.add_argument("action", choices=("list", "show"), help="every recipe in a line, or one of them in full")
    verb.add_argument("name", metavar="NAME", nargs="?", help="a recipe of `reinception recipe list`")
    json_or_stdout(verb)


def add_doctor(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "doctor",
        call="look:doctor",
        usage="[--json [FILE]]",
        does="say what this machine has: versions, processor, devices, disk",
        more="Put its output into a bug report.",
    )
    json_or_stdout(verb)
