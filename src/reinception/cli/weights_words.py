"""The words of the verb `weights`, kept apart from what does the work so that help answers without torch."""

from __future__ import annotations

from reinception.cli.flags import Verbs, add_verb, json_or_stdout
from reinception.cli.parsing import Parser

SOURCE = (
    "whose weights they are, where names and shapes leave it open: torchvision, timm:tv_in1k, timm:tf_in1k, "
    "timm:tf_adv_in1k, timm:gluon_in1k, keras, tf-slim, pytorch-fid, torch-fidelity or lucid"
)


def add_weights(verbs: Verbs[Parser]) -> None:
    """The verb `weights` with its two verbs below it."""
    weights = verbs.add_parser(
        "weights",
        usage="reinception weights identify|convert ...",
        help="identify others' Inception-v3 weights, convert them here and back",
        description="Identify others' Inception-v3 weights, convert them here and back. Files are read without running "
        "anything in them: a pickle that wants more than tensors is refused.",
    )
    kinds = weights.add_subparsers(
        prog="reinception weights", title="verbs", metavar="VERB", required=True, parser_class=Parser, help="one of"
    )
    _identify(kinds)
    _convert(kinds)


def _identify(kinds: Verbs[Parser]) -> None:
    verb = add_verb(
        kinds,
        "identify",
        under="weights",
        call="weights:identify",
        usage="FILE [--source NAME] [--json [FILE]]",
        does="say which Inception-v3 a file is",
        more="The layout is known by names and shapes, the publisher only where the file's digest is: else what "
        "else it could be is said.",
    )
    verb.add_argument(
        "file", metavar="FILE", help="a .pth, .safetensors, .npz, .h5, .weights.h5 or .keras file, a .ckpt"
    )
    verb.add_argument("--source", metavar="NAME", help=SOURCE)
    json_or_stdout(verb)


def _convert(kinds: Verbs[Parser]) -> None:
    verb = add_verb(
        kinds,
        "convert",
        under="weights",
        call="weights:convert",
        usage="FILE -o OUT [options]",
        does="make a model file of others' weights, or a file for another library",
        more="Where the publisher's library is installed both networks are run on the same images, and nothing is "
        "written when they differ. What was dropped, added or assumed is printed and kept in the model's manifest.",
    )
    verb.add_argument(
        "file",
        metavar="FILE",
        help="a file as for identify, a model or run of ours, or a download by its own library: "
        "torchvision:IMAGENET1K_V1, timm:inception_v3.tf_in1k",
    )
    verb.add_argument("-o", "--out", metavar="OUT", required=True, help="the file to write, never over another")
    verb.add_argument(
        "--to",
        metavar="LIBRARY",
        help="write for torchvision, timm, pytorch-fid (.pth, .safetensors), lucid (.safetensors), keras (.h5, "
        ".weights.h5) or tf-slim (.npz) instead of a model file",
    )
    verb.add_argument("--source", metavar="NAME", help=SOURCE)
    verb.add_argument(
        "--border",
        choices=("source", "counted", "ignored"),
        default="source",
        help="whether padded average pools count the border; the source's own rule unless you know better "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--aux",
        choices=("keep", "drop"),
        default="keep",
        help="the auxiliary head, where the file has one (default: %(default)s)",
    )
    verb.add_argument(
        "--background",
        choices=("drop", "keep"),
        default="drop",
        help="class 0 of 1,001, TF-slim's background (default: %(default)s)",
    )
    verb.add_argument(
        "--normalisation",
        choices=("source", "inception", "imagenet"),
        default="source",
        help="what the weights were trained on: inception is mean and std 0.5, imagenet is ImageNet's "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--fold-normalisation",
        action="store_true",
        help="move mean and std into the first convolution: the network then takes values in [0, 1]",
    )
    verb.add_argument("--classes", metavar="FILE", help="names of the outputs, one a line or a JSON list")
    verb.add_argument("--licence", metavar="TEXT", help="the weights' licence, for the manifest, where you know it")
    verb.add_argument(
        "--parity",
        choices=("auto", "off"),
        default="auto",
        help="compare with the publisher's own network where it is installed (default: %(default)s)",
    )
    verb.add_argument(
        "--json",
        metavar="FILE",
        help="write the report as JSON too; - is the standard output, and then replaces the text",
    )
