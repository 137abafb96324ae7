"""Every option of training and of ablations, written once; flags, help, defaults, JSON and `--resume` come from it."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reinception.errors import UsageError
from reinception.machine import TrainingPrecision
from reinception.preprocess import Scaling
from reinception.recipe import Balance, BatchNormMode, Recipe, SmoothingPrior

AuxMode = Literal["auto", "strict", "adaptive", "none"]
Reduction = Literal["exact", "fast"]
Freeze = Literal["trunk", "stem", "grid35", "reduce35", "grid17", "reduce17", "none"]
StepKind = Literal["plain", "fused", "compiled", "auto"]

DEFAULT_MODEL = "inception_v3"
AUTO = "auto"
"""The recipe that stands for what `recipe suggest` chooses."""
FLAGS = {
    "time_budget_seconds": "--time-budget",
    "checkpoint_seconds": "--checkpoint-time",
    "budget_seconds": "--budget",
    "latency_seconds": "--latency",
    "num_seeds": "--seeds",
    "out": "-o",
}
"""The flags whose name is not their option's: a time is given with its unit, as 15m."""
RESUMABLE = {"resumable": True}
"""Field metadata: `train --resume RUN` may change this option. Nothing else can be changed in the middle of a run."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what, for how long and where. None means: as the recipe, the network or the model file has it.

    `epochs` and `time_budget_seconds` exclude each other.

    Args: each is a field, explained below.

    Example:
        >>> import reinception as ri
        >>> config = ri.TrainConfig(data="images", out="run", model="inception_v3", epochs=30)
        >>> config.command()
        'reinception train images -o run --model inception_v3 --epochs 30'
    """

    data: str | Path = field(metadata=RESUMABLE)
    """the images: a folder of class folders, a manifest, tar shards, an address of them, or the word elpv"""

    out: str | Path
    """the run folder to create; never overwritten"""

    model: str | None = None
    """a network of `reinception models` (default: inception_v3, or the network of --weights)"""

    recipe: str | Recipe = "from_scratch"
    """how to train, one of `reinception recipe list`: paper_2015, from_scratch for a few thousand images, small_images
    for as many in minutes, fine_tune for --weights, modern; auto is what `recipe suggest` chooses for --time-budget,
    which `train` also does where neither recipe, model, width, input size nor freeze is given"""

    epochs: int | None = field(default=None, metadata=RESUMABLE)
    """passes over the training images (default: the recipe's)"""

    time_budget_seconds: float | None = None
    """the whole command may take this long, as 90s, 15m or 2h, judging and report included; the learning rate schedule
    is fitted to what is left for training"""

    batch_size: int | None = field(default=None, metadata=RESUMABLE)
    """images per step and replica, which share batch statistics (default: the recipe's)"""

    replicas: int | None = field(default=None, metadata=RESUMABLE)
    """batches whose gradients are averaged in one step, as the paper's 50 workers did (default: the recipe's)"""

    augmentation: str | None = None
    """how training images are distorted: inception, crop, gentle, none, or some of mirror, flips, half_turns,
    quarter_turns, shifts, light joined by + (default: the recipe's)"""

    balance: Balance | None = None
    """what is done about rare classes: weights of examples, every class drawn equally often, or logits adjusted by the
    classes' frequencies (default: the recipe's)"""

    batch_norm: BatchNormMode | None = None
    """the trunk's batch norm under --weights: train normalises with the batch, eval_statistics with what the weights
    came with, frozen also keeps gamma and beta; auto is train for batches of 16 or more (default: the recipe's)"""

    smoothing_prior: SmoothingPrior | None = None
    """the distribution that label smoothing mixes in (default: the recipe's)"""

    scaling: Scaling | None = None
    """values to numbers by a fixed mean and deviation or by each image's own (default: the recipe's, that of --weights)
    """

    patience: int | None = None
    """after so many validations without a better one the learning rate comes down early and the run ends (default: the
    recipe's)"""

    reduction: Reduction = "exact"
    """how gradients of replicas are added: exact gives the same bits on any number of processes, fast is torch's
    overlapped all-reduce"""

    checkpoint_seconds: float = 600.0
    """how often a checkpoint is written for --resume, as 30s or 10m; one is also written at each validation and on
    SIGTERM"""

    checkpoint_steps: int | None = None
    """write a checkpoint every N steps as well"""

    input_size: int | None = None
    """pixels per side of the square the network sees (default: the network's own)"""

    width: float = 1.0
    """factor on the channels of every layer, of which each keeps at least 16: smaller is faster"""

    depth: float = 1.0
    """part of the modules of each grid that is kept, the first ones; above 0 and up to 1"""

    aux: AuxMode = "auto"
    """the auxiliary classifier: strict takes only inputs its 5x5 pool fits, adaptive takes any, auto is strict where it
    fits and adaptive elsewhere, none trains without"""

    weights: str | Path | None = None
    """start from this model file, run folder, another library's Inception-v3 weights (see `reinception weights`) or
    torchvision:TAG or timm:NAME, instead of random weights"""

    freeze: Freeze = "none"
    """the part of --weights that does not learn, up to and including the stage of that name: trunk is all below the
    classifier, whose features are computed once, kept on disk, and a classifier fitted to them in seconds"""

    views: int = 1
    """with --freeze trunk: features of so many views of each training image, the first undistorted, the others
    distorted as the recipe says; each costs one pass over the images, once"""

    cache: str | Path | None = field(default=None, metadata=RESUMABLE)
    """folder that keeps the features of --freeze by content, for other runs too (default: the user's cache folder)"""

    teacher: str | Path | None = None
    """learn from this trained model's probabilities too (distillation); it sees the same views of the images, once"""

    teacher_weight: float = 0.5
    """how much of the loss is the teacher's; the rest is the labels'"""

    temperature: float = 2.0
    """softens the probabilities that teacher and student are compared by"""

    teacher_views: int = 4
    """distortions of each image that the teacher answers for: training sees these, one after the other"""

    val_fraction: float = 0.1
    """fraction of each class held out to choose the best weights, where DATA has no val/"""

    test_fraction: float = 0.25
    """fraction of each class never trained or chosen on, where DATA has no test/"""

    folds: int | None = None
    """cross-validation: train so many times, each time testing on another part of DATA, and report the mean and its
    interval; RUN gets a run folder for each"""

    fold: int | None = None
    """with --folds: only this fold, from 1; it is the same as in the whole"""

    exclude: str | Path | None = None
    """leave out the images it names, one a line, as `data check --quarantine` writes them"""

    background: tuple[int, int, int] | None = None
    """the colour that transparent images are put on, as 0,0,0; kept with the model (default: white)"""

    deep_range: tuple[int, int] | None = None
    """the values of 16-bit grey images that become black and white, as 0,4095 for 12 bits; kept with the model
    (default: all that the file may hold)"""

    seed: int = 0
    """fixes the split, the initial weights, the order and every distortion"""

    split_seed: int | None = None
    """fixes the split alone, so that runs with other seeds hold out the same images (default: the seed)"""

    tensorboard: bool = False
    """write the metrics for TensorBoard too, into RUN/tensorboard; needs the extra track"""

    workers: int = field(default=0, metadata=RESUMABLE)
    """processes that read images; any number gives the same result. With 0 this process reads them, and an image that
    crashes the decoder ends it; with 1 or more such an image is named"""

    precision: TrainingPrecision = "auto"
    """number format of the heavy layers; auto is bf16 where the hardware has it, fp16 on a GPU that has not"""

    step: StepKind = "plain"
    """how a step is computed: plain is layer by layer, fused needs half of its memory, compiled is torch.compile, which
    takes minutes first; auto measures which is the fastest here, so that another run may choose otherwise"""

    device: str = "auto"
    """cpu, cuda or cuda:N; auto is the current GPU, else the processor"""

    def command(self) -> str:
        """The command line that asks for the same."""
        changed = [one.name for one in dataclasses.fields(self) if getattr(self, one.name) != one.default]
        return _command("train", self, [name for name in changed if name != "data"])


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """What to study, on what, and how much of it; None means: as the recipe or the network has it.

    `budget_seconds` is ignored where `epochs` is given. Table 2 takes no `input_size`: its sizes are its subject.
    """

    data: str
    """what train takes"""

    out: str | Path
    """the folder of the study: the runs and the table go there"""

    study: str = "table_3"
    """table_2, table_3 or an experiment of family.EXPERIMENTS"""

    budget_seconds: float = 600.0
    """time of each row and seed, judging included, as 90s, 10m or 2h"""

    epochs: int | None = None
    """passes over the training images, instead of a time"""

    num_seeds: int = 1
    """repetitions of every row, each with another seed"""

    batch_size: int | None = None
    """images per step (default: the recipe's)"""

    input_size: int | None = None
    width: float = TrainConfig.width
    workers: int = TrainConfig.workers

    def command(self) -> str:
        """The command line that asks for the same, and so goes on with it."""
        length = "budget_seconds" if self.epochs is None else "epochs"
        optional = [name for name in ("input_size", "batch_size") if getattr(self, name) is not None]
        names = ["out", "study", length, "num_seeds", "width", *optional, *(["workers"] if self.workers else [])]
        return _command("ablate", self, names)


_LEAST_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class FindRateConfig:
    """The range of learning rates and how finely it is swept."""

    lowest: float = 1e-6
    """the learning rate of the first step"""

    highest: float = 1.0
    """the learning rate of the last step, where the loss has not left the range before"""

    steps: int = 100
    """training steps, at learning rates in equal ratios"""

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest < math.inf:
            raise UsageError(f"--lowest {self.lowest:g} and --highest {self.highest:g}: 0 < lowest < highest is needed")
        if self.steps < _LEAST_STEPS:
            raise UsageError(f"--steps must be at least {_LEAST_STEPS}, got {self.steps}")


def flag(name: str) -> str:
    """The flag of the option `name`."""
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def _command(verb: str, config: TrainConfig | AblateConfig, names: list[str]) -> str:
    """`reinception VERB DATA` with a flag for each of the options `names`."""
    return shlex.join(
        ["reinception", verb, str(config.data), *(word for name in names for word in _words(config, name))]
    )


def _words(config: TrainConfig | AblateConfig, name: str) -> Iterator[str]:
    value = getattr(config, name)
    if name == "study":
        yield from ("--table", value[-1]) if value.startswith("table_") else ("--experiment", value)
        return
    yield flag(name)
    if name.endswith("_seconds"):
        yield f"{value:g}s"
    elif not isinstance(value, bool):
        yield value.name if isinstance(value, Recipe) else _word(value)


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
