"""The words of the command line: every verb and flag, with what it means; standard library only."""

from __future__ import annotations

import argparse

from reinception import __version__
from reinception.cli.data_words import add_data
from reinception.cli.judge_words import add_ablate, add_compare, add_features
from reinception.cli.parsing import Parser, duration, fraction, natural_int, positive_float, positive_int, sizes
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
    for add in (_models, _show, _draw, _train, _recipe, _evaluate, _predict, _report, _judging):
        add(verbs)
    add_data(verbs, _verb)
    add_weights(verbs, _verb)
    _doctor(verbs)
    return top


Verbs = argparse._SubParsersAction


def _verb(
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


def _models(verbs: Verbs[Parser]) -> None:
    verb = _verb(
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
    _json_or_stdout(verb)


def _show(verbs: Verbs[Parser]) -> None:
    verb = _verb(
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
    _input_size(verb)
    _width(verb)
    _json_or_stdout(verb)


def _draw(verbs: Verbs[Parser]) -> None:
    verb = _verb(
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
    _input_size(verb)
    _width(verb)


def _train(verbs: Verbs[Parser]) -> None:
    verb = _verb(
        verbs,
        "train",
        call="work:train",
        usage="DATA -o RUN [options] | --resume RUN",
        does="train a network on a folder of images",
        more="DATA is a folder with one folder of images per class (optionally under train/, val/ and test/), or the "
        "word elpv for the solar cells of the package elpv-dataset. Every image is checked before the first step. "
        "RUN is a new folder that gets the model, the metrics, the predictions and the report. Killed at any moment, "
        "it goes on from its last checkpoint with --resume. Under torchrun the same command shares the replicas of a "
        "step among all processes.",
    )
    verb.add_argument("data", metavar="DATA", nargs="?", help="a folder of class folders, or elpv")
    verb.add_argument("-o", "--out", metavar="RUN", help="the run folder to create; never overwritten")
    verb.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with an interrupted run, to the same bits as if it had never stopped; takes no other flag but "
        "--workers",
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing: print the plan, with memory and time estimated from three measured steps",
    )
    verb.add_argument(
        "--model",
        metavar="NAME",
        help="a network of `reinception models` (default: inception_v3, or the network of --weights)",
    )
    verb.add_argument(
        "--recipe",
        metavar="NAME",
        default="from_scratch",
        help="how to train, one of `reinception recipe list`: paper_2015, from_scratch for a few thousand images, "
        "fine_tune for --weights, modern (default: %(default)s)",
    )
    length = verb.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", metavar="N", type=positive_int, help="passes over the training images (default: the recipe's)"
    )
    length.add_argument(
        "--time-budget",
        metavar="TIME",
        type=duration,
        help="train for this long instead, as 90s, 15m or 2h; the learning rate is fitted to it",
    )
    verb.add_argument(
        "--batch-size",
        metavar="N",
        type=positive_int,
        help="images per step and replica, which share batch statistics (default: the recipe's)",
    )
    verb.add_argument(
        "--replicas",
        metavar="R",
        type=positive_int,
        help="batches whose gradients are averaged in one step, as the paper's 50 workers did (default: the recipe's)",
    )
    verb.add_argument(
        "--reduction",
        choices=("exact", "fast"),
        default="exact",
        help="how gradients of replicas are added: exact gives the same bits on any number of processes, fast is "
        "torch's overlapped all-reduce (default: %(default)s)",
    )
    verb.add_argument(
        "--checkpoint-time",
        metavar="TIME",
        type=duration,
        default=600.0,
        help="how often a checkpoint is written for --resume, as 30s or 10m; one is also written at each validation "
        "and on SIGTERM (default: 10m)",
    )
    verb.add_argument(
        "--checkpoint-steps", metavar="N", type=positive_int, help="write a checkpoint every N steps as well"
    )
    _input_size(verb)
    _width(verb)
    verb.add_argument(
        "--aux",
        choices=("auto", "strict", "adaptive", "none"),
        default="auto",
        help="the auxiliary classifier: strict takes only inputs its 5x5 pool fits, adaptive takes any, auto is strict "
        "where it fits and adaptive elsewhere, none trains without (default: %(default)s)",
    )
    verb.add_argument(
        "--weights",
        metavar="FILE",
        help="start from this model file, run folder, other's Inception-v3 weights (see `reinception weights`) or "
        "torchvision:TAG or timm:NAME, instead of random weights",
    )
    verb.add_argument(
        "--freeze",
        choices=("trunk", "stem", "none"),
        default="none",
        help="the part of --weights that does not learn: trunk is all below the classifier, stem the first layers "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--val-fraction",
        metavar="F",
        type=fraction,
        default=0.1,
        help="share of each class held out to choose the best weights, where DATA has no val/ (default: %(default)s)",
    )
    verb.add_argument(
        "--test-fraction",
        metavar="F",
        type=fraction,
        default=0.25,
        help="share of each class never trained or chosen on, where DATA has no test/ (default: %(default)s)",
    )
    verb.add_argument(
        "--exclude",
        metavar="FILE",
        help="leave out the images it names, one a line, as `data check --quarantine` writes them",
    )
    verb.add_argument(
        "--seed",
        metavar="S",
        type=int,
        default=0,
        help="fixes the split, the initial weights, the order and every distortion (default: %(default)s)",
    )
    _workers(verb)
    _precision(verb, "auto", "auto is bf16 where the hardware has it")
    verb.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="cpu, cuda or cuda:N; auto is the current GPU, else the processor (default: %(default)s)",
    )


def _recipe(verbs: Verbs[Parser]) -> None:
    verb = _verb(
        verbs,
        "recipe",
        call="recipes:recipe",
        usage="list | show NAME [--json [FILE]]",
        does="print how a recipe trains, every number with its meaning and its source",
    )
    verb.add_argument("action", choices=("list", "show"), help="every recipe in a line, or one of them in full")
    verb.add_argument("name", metavar="NAME", nargs="?", help="a recipe of `reinception recipe list`")
    _json_or_stdout(verb)


def _evaluate(verbs: Verbs[Parser]) -> None:
    verb = _verb(
        verbs,
        "evaluate",
        call="work:evaluate",
        usage="MODEL [MODEL ...] DATA [options]",
        does="measure a model's errors, with their intervals",
        more="MODEL is a .safetensors file or a run folder; the probabilities of several are averaged. DATA is what "
        "train takes.",
    )
    verb.add_argument(
        "models", metavar="MODEL", nargs="+", help="a model file or a run folder; several make an ensemble"
    )
    verb.add_argument("data", metavar="DATA", help="a folder of class folders, or elpv")
    verb.add_argument(
        "--split",
        metavar="NAME",
        help="train, val or test, as in the model's training (default: test where the data have one, else every image)",
    )
    verb.add_argument(
        "--crops",
        type=int,
        choices=(1, 10, 12, 144),
        default=1,
        help="crops per image whose probabilities are averaged; the paper's Tables 4 and 5 have 12 and 144 "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--scales",
        metavar="S,...",
        type=sizes,
        help="pixels of the image's shorter side, four for 144 crops, one for 10 or 12: the paper names none "
        "(default: 342,384,427,470 for an input of 299, in proportion for others)",
    )
    verb.add_argument(
        "--resize",
        choices=("tf", "torchvision", "timm"),
        help="cut the single crop as that library's evaluation does, to compare with its figures (default: as the "
        "model was trained)",
    )
    verb.add_argument(
        "--exclude",
        metavar="FILE",
        help="leave out the images it names, one a line, as the paper did with 1,762 of ImageNet's",
    )
    _batches(verb)
    verb.add_argument(
        "--predictions", metavar="FILE", help="write each image's probabilities as CSV; never over a file"
    )
    _json_file(verb)


def _predict(verbs: Verbs[Parser]) -> None:
    verb = _verb(
        verbs,
        "predict",
        call="work:predict",
        usage="MODEL PATH [PATH ...] [options]",
        does="name what is in images, most probable first",
        more="A file that cannot be read is named, and the rest go on; the exit code is then 1.",
    )
    verb.add_argument("model", metavar="MODEL", help="a model file or a run folder")
    verb.add_argument(
        "paths", metavar="PATH", nargs="+", help="image files, folders (searched through) or quoted globs"
    )
    verb.add_argument(
        "--top", metavar="K", type=positive_int, default=5, help="labels per image (default: %(default)s)"
    )
    _batches(verb)
    verb.add_argument(
        "--csv",
        metavar="FILE",
        help="write one row per image with the probability of every class; - is the standard output",
    )
    _json_file(verb)


def _report(verbs: Verbs[Parser]) -> None:
    verb = _verb(
        verbs,
        "report",
        call="work:report",
        usage="RUN [-o FILE.html]",
        does="write a run's report: one HTML file that opens offline",
    )
    verb.add_argument("run", metavar="RUN", help="a run folder")
    verb.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="the file to write, never over another (default: RUN/report.html, rewritten)",
    )


def _judging(verbs: Verbs[Parser]) -> None:
    add_compare(verbs, _verb)
    _batches(add_features(verbs, _verb))
    study = add_ablate(verbs, _verb)
    for flag in (_input_size, _width, _workers):
        flag(study)


def _doctor(verbs: Verbs[Parser]) -> None:
    verb = _verb(
        verbs,
        "doctor",
        call="look:doctor",
        usage="[--json [FILE]]",
        does="say what this machine has: versions, processor, devices, disk",
        more="Put its output into a bug report.",
    )
    _json_or_stdout(verb)


# -- flags that several verbs share ------------------------------------------------------------------------------------


def _input_size(verb: Parser) -> None:
    verb.add_argument(
        "--input-size",
        metavar="N",
        type=positive_int,
        help="pixels per side of the square the network sees (default: the network's own)",
    )


def _width(verb: Parser) -> None:
    verb.add_argument(
        "--width",
        metavar="W",
        type=positive_float,
        default=1.0,
        help="channels of every layer times W, at least 16: a smaller W is faster (default: %(default)s)",
    )


def _workers(verb: Parser) -> None:
    verb.add_argument(
        "--workers",
        metavar="K",
        type=natural_int,
        default=0,
        help="processes that read images; the result is the same for any number (default: %(default)s)",
    )


def _precision(verb: Parser, default: str, why: str) -> None:
    verb.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default=default,
        help=f"number format of the heavy layers; {why} (default: %(default)s)",
    )


def _batches(verb: Parser) -> None:
    """Flags of the verbs that run a trained model over many images."""
    verb.add_argument(
        "--batch-size",
        metavar="N",
        type=positive_int,
        default=32,
        help="images at a time: memory and speed, not the result (default: %(default)s)",
    )
    _workers(verb)
    _precision(verb, "fp32", "fp32 gives the same figures on every processor, bf16 is faster where the hardware has it")


def _json_or_stdout(verb: Parser) -> None:
    verb.add_argument("--json", metavar="FILE", nargs="?", const="-", help="print JSON instead, or write it to FILE")


def _json_file(verb: Parser) -> None:
    verb.add_argument(
        "--json",
        metavar="FILE",
        help="write the result as JSON too; - is the standard output, and then replaces the text",
    )
