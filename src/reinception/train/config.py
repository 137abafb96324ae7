"""TrainConfig: every option of training, written once; flags, help, defaults, JSON and `--resume` come from it."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reinception.machine import Precision
from reinception.recipe import Recipe

AuxMode = Literal["auto", "strict", "adaptive", "none"]
Reduction = Literal["exact", "fast"]
Freeze = Literal["trunk", "stem", "none"]

DEFAULT_MODEL = "inception_v3"
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

    data: str | Path
    """what to train on: a folder of class folders, a manifest, tar shards, an address of them, or the word elpv"""

    out: str | Path
    """the run folder to create; never overwritten"""

    model: str | None = None
    """a network of `reinception models` (default: inception_v3, or the network of --weights)"""

    recipe: str | Recipe = "from_scratch"
    """how to train, one of `reinception recipe list`: paper_2015, from_scratch for a few thousand images, fine_tune for
    --weights, modern"""

    epochs: int | None = None
    """passes over the training images (default: the recipe's)"""

    time_budget_seconds: float | None = None
    """train for this long instead, as 90s, 15m or 2h; the learning rate schedule is fitted to it"""

    batch_size: int | None = field(default=None, metadata=RESUMABLE)
    """images per step and replica, which share batch statistics (default: the recipe's)"""

    replicas: int | None = field(default=None, metadata=RESUMABLE)
    """batches whose gradients are averaged in one step, as the paper's 50 workers did (default: the recipe's)"""

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
    """channels of every layer times W, at least 16: a smaller W is faster"""

    aux: AuxMode = "auto"
    """the auxiliary classifier: strict takes only inputs its 5x5 pool fits, adaptive takes any, auto is strict where it
    fits and adaptive elsewhere, none trains without"""

    weights: str | Path | None = None
    """start from this model file, run folder, another library's Inception-v3 weights (see `reinception weights`) or
    torchvision:TAG or timm:NAME, instead of random weights"""

    freeze: Freeze = "none"
    """the part of --weights that does not learn: trunk is all below the classifier, stem the first layers"""

    val_fraction: float = 0.1
    """fraction of each class held out to choose the best weights, where DATA has no val/"""

    test_fraction: float = 0.25
    """fraction of each class never trained or chosen on, where DATA has no test/"""

    exclude: str | Path | None = None
    """leave out the images it names, one a line, as `data check --quarantine` writes them"""

    seed: int = 0
    """fixes the split, the initial weights, the order and every distortion"""

    tensorboard: bool = False
    """write the metrics for TensorBoard too, into RUN/tensorboard; needs the extra track"""

    workers: int = field(default=0, metadata=RESUMABLE)
    """processes that read images; the result is the same for any number. With 0 they are read in this one, and an image
    that crashes the decoder ends it without a word; with 1 or more it is named"""

    precision: Precision = "auto"
    """number format of the heavy layers; auto is bf16 where the hardware has it"""

    device: str = "auto"
    """cpu, cuda or cuda:N; auto is the current GPU, else the processor"""

    def command(self) -> str:
        """The command line that asks for the same."""
        words = ["reinception", "train", str(self.data), "-o", str(self.out)]
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name in {"data", "out"} or value == one.default:
                continue
            if one.name == "time_budget_seconds":
                words += ["--time-budget", f"{value:g}s"]
            elif one.name == "checkpoint_seconds":
                words += ["--checkpoint-time", f"{value:g}s"]
            elif isinstance(value, bool):
                words.append(f"--{one.name.replace('_', '-')}")
            else:
                words += [f"--{one.name.replace('_', '-')}", value.name if isinstance(value, Recipe) else str(value)]
        return shlex.join(words)
