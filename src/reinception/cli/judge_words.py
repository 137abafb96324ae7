"""The words of the verbs that judge a trained model and use it; standard library only."""

from __future__ import annotations

from reinception.cli.flags import Verbs, add_verb, batches, input_size, json_file, width, workers
from reinception.cli.parsing import Parser, duration, positive_int, sizes


def add_evaluate(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "evaluate",
        call="work:evaluate",
        usage="MODEL [MODEL ...] DATA [options]",
        does="measure a model's errors, with their intervals",
        more="MODEL is a .safetensors file or a run folder; the probabilities of several are averaged. DATA is what "
        "train takes. Under torchrun each process takes its share, and the figures are the same.",
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
    batches(verb)
    verb.add_argument(
        "--predictions", metavar="FILE", help="write each image's probabilities as CSV; never over a file"
    )
    json_file(verb)


def add_predict(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "predict",
        call="work:predict",
        usage="MODEL PATH [PATH ...] [options]",
        does="name what is in images, most probable first",
        more="A file that cannot be read is named, and the rest go on; the exit code is then 1. Under torchrun each "
        "process takes its share.",
    )
    verb.add_argument("model", metavar="MODEL", help="a model file or a run folder")
    verb.add_argument(
        "paths", metavar="PATH", nargs="+", help="image files, folders (searched through) or quoted globs"
    )
    verb.add_argument(
        "--top", metavar="K", type=positive_int, default=5, help="labels per image (default: %(default)s)"
    )
    batches(verb)
    verb.add_argument(
        "--csv",
        metavar="FILE",
        help="write one row per image with the probability of every class; - is the standard output",
    )
    json_file(verb)


def add_report(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "report",
        call="work:report",
        usage="RUN [--baseline RUN] [-o FILE.html]",
        does="write a run's report: one HTML file that opens offline",
    )
    verb.add_argument("run", metavar="RUN", help="a run folder")
    verb.add_argument(
        "--baseline",
        metavar="RUN",
        help="say whether the run is better than this one, or than a CSV file of predictions, on the same images",
    )
    verb.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="the file to write, never over another (default: RUN/report.html, rewritten)",
    )


def add_compare(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
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
    json_file(verb)


def add_features(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
        verbs,
        "features",
        call="judge:features",
        usage="MODEL PATH [PATH ...] -o FILE.npz [options]",
        does="write what a network knows of images before it names them",
        more="The pooled features, 2,048 for each image at full width, as the array `features` beside `paths`. A file "
        "that cannot be read is named, and the rest go on; the exit code is then 1. Under torchrun each process takes "
        "its share.",
    )
    verb.add_argument("model", metavar="MODEL", help="a model file or a run folder")
    verb.add_argument(
        "paths", metavar="PATH", nargs="+", help="image files, folders (searched through) or quoted globs"
    )
    verb.add_argument("-o", "--out", metavar="FILE", required=True, help="the .npz to write, never over another file")
    batches(verb)


def add_ablate(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
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
    input_size(verb)
    width(verb)
    workers(verb)
