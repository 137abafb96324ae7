"""The words of `reinception train`; standard library only."""

from __future__ import annotations

from reinception.cli.flags import Verbs, add_verb, input_size, precision, width, workers
from reinception.cli.parsing import Parser, duration, fraction, positive_int


def add_train(verbs: Verbs[Parser]) -> None:
    verb = add_verb(
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
        "--workers and, where memory ran out, a smaller --batch-size with as many more --replicas, which changes the "
        "run a little",
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
    input_size(verb)
    width(verb)
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
    verb.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the metrics for TensorBoard too, into RUN/tensorboard; needs the extra track",
    )
    workers(verb)
    precision(verb, "auto", "auto is bf16 where the hardware has it")
    verb.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="cpu, cuda or cuda:N; auto is the current GPU, else the processor (default: %(default)s)",
    )
