"""The loop of --freeze trunk: features once, then a classifier for each weight decay, of which validation picks one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reinception import machine
from reinception.data.sources.records import Record
from reinception.inference.backends.torch_backend import probabilities_of_features
from reinception.inference.compute import Compute
from reinception.machine import Precision
from reinception.metrics import PredictionTable
from reinception.model.build import Network
from reinception.report.formatting import count
from reinception.train.frozen import FrozenTrunk, features_root
from reinception.train.head import PATIENCE, WEIGHT_DECAYS, SolvedHead, solve_heads
from reinception.train.loop import Training
from reinception.train.run.log import Score
from reinception.train.run.open_run import OpenRun
from reinception.train.step import StepRecord

HEAD_NAME = "head.json"
USUAL_DECAY = 0.1
"""What is taken where there are no validation images to choose on."""


def fit_head(run: OpenRun, training: Training, *, first_step: int) -> int:
    """Fits the classifier of a network whose trunk is frozen; returns how many weight decays were tried.

    The best one, by its loss on the validation images, is the run's model. Test images play no part. It takes seconds
    once the features are there, and depends on nothing but them, so an interrupted run does it again; after
    `first_step` of 1 or more it has been logged.
    """
    config = run.plan.config
    run.console.say(
        f"--freeze trunk: features of {count(config.views, 'view')} of each image, the first undistorted, are computed "
        "once; the classifier is then solved for, so that epochs, batch size, learning rate and time budget play no "
        "part" + ("; the recipe's distortions are off: --views 2 or more has them" if config.views == 1 else "")
    )
    asked: Precision = "auto" if config.precision == "fp16" else config.precision  # the plan refuses it
    trunk = frozen_trunk(run, training.state.network, precision=asked)
    records = run.records["train"]
    features = torch.cat([trunk.rows(records, view) for view in range(config.views)])
    targets = _targets(records, training.state.network.arch.num_classes).repeat(config.views, 1)
    _say_computed(run, trunk, len(features))
    heads, scores = _solved(run, training, features, targets, is_logged=first_step > 0)
    chosen = _best(scores) if scores else next(iter(heads))
    _install(training, heads[chosen])
    if not first_step:
        training.checkpointer.save(max(heads))
    training.best.step = None  # what an interrupted run offered is offered again
    training.best.offer(chosen, scores.get(chosen))
    if scores:
        run.console.say(f"weight decay {WEIGHT_DECAYS[chosen - 1]:g} is best on the validation images")
    _write(run, heads, scores, chosen)
    return max(heads)


def frozen_trunk(run: OpenRun, network: Network, *, precision: Precision) -> FrozenTrunk:
    """The features of this run's images under the trunk of `network`, from the user's cache or --cache."""
    config, began = run.plan.config, time.monotonic()

    def progress(done: int, total: int | None) -> None:
        run.stop.check()
        pace = done / max(time.monotonic() - began, 1e-9)
        run.console.advance(done / (total or done), state=f"{done:,} of {total:,} images", images_per_second=pace)

    return FrozenTrunk(
        network=network,
        preprocessing=run.plan.preprocessing,
        root=features_root(config.cache),
        compute=Compute(
            device=str(run.ranks.device),
            precision=precision,
            # float32 is what a model is judged in: by the reference, as `predict_split` does.
            backend="torch" if machine.precision(precision, run.ranks.device) == torch.float32 else "auto",
            workers=config.workers,
            ranks=run.ranks if run.ranks.world_size > 1 else None,
            progress=progress,
            notice=run.console.say,
        ),
        augmentation=run.plan.recipe.augmentation,
        num_images=len(run.records["train"]),
        say=run.console.say,
    )


def probabilities_from_cache(run: OpenRun, network: Network, records: Sequence[Record]) -> npt.NDArray[np.float32]:
    """The probabilities (n, classes) that `network`, whose trunk is frozen, gives `records`, computed in float32."""
    trunk = frozen_trunk(run, network, precision="fp32")
    rows = trunk.rows(records)
    return probabilities_of_features(network.classifier, rows)


def prediction_table(
    run: OpenRun, records: Sequence[Record], probabilities: npt.NDArray[np.float32]
) -> PredictionTable:
    """What was predicted of `records`, with what they are."""
    return PredictionTable(
        names=tuple(record.name for record in records),
        targets=np.array([record.target for record in records]),
        probabilities=probabilities,
        classes=run.source.classes,
    )


# -- parts -------------------------------------------------------------------------------------------------------------


def _solved(
    run: OpenRun, training: Training, features: Tensor, targets: Tensor, *, is_logged: bool
) -> tuple[dict[int, SolvedHead], dict[int, Score]]:
    """The classifier of each weight decay that was tried, by number from 1, and its score on the validation images."""
    heads: dict[int, SolvedHead] = {}
    scores: dict[int, Score] = {}
    validation, decays = run.records["val"], WEIGHT_DECAYS
    if not validation:
        run.console.say(f"no validation images: weight decay {USUAL_DECAY:g} is taken as it is")
        decays = (USUAL_DECAY,)
    trunk = frozen_trunk(run, training.state.network, precision="fp32")
    rows = trunk.rows(validation) if validation else None
    for head, decay in zip(solve_heads(features, targets, decays), decays, strict=True):
        training.stop.check_all(run.ranks)
        step = WEIGHT_DECAYS.index(decay) + 1
        heads[step] = head
        _install(training, head)
        if not is_logged:
            record = StepRecord(
                loss=head.loss, auxiliary_loss=None, learning_rate=0.0, gradient_norm=head.gradient_norm, clipped=False
            )
            training.logger.stepped(step, step / len(WEIGHT_DECAYS), record)
            training.logger.flush(step)
        if rows is not None:
            probabilities = probabilities_of_features(training.state.average.network.classifier, rows)
            scores[step] = Score.of(prediction_table(run, validation, probabilities))
            best = _best(scores)
            if not is_logged:
                training.logger.validated(step, scores[step], num_images=len(validation), is_best=best == step)
            if step - best >= PATIENCE:
                break
    return heads, scores


def _best(scores: Mapping[int, Score]) -> int:
    """The number of the best score; of equals the first, whose weights decay most."""
    return min(scores, key=lambda step: (scores[step].rank, step))


def _install(training: Training, head: SolvedHead) -> None:
    """Puts the solution into the network and into its average; all ranks have that of the first."""
    with torch.no_grad():
        for network in (training.state.network, training.state.average.network):
            network.classifier.weight.copy_(head.weight)
            network.classifier.bias.copy_(head.bias)
            training.state.ranks.broadcast([network.classifier.weight, network.classifier.bias])


def _targets(records: Sequence[Record], num_classes: int) -> Tensor:
    """What is to be learned, (n, classes) probabilities: where a label is not certain, the others share the rest."""
    certain = torch.tensor([record.certainty for record in records], dtype=torch.float64)[:, None]
    own = torch.tensor([record.target for record in records])[:, None]
    return ((1 - certain) / (num_classes - 1)).repeat(1, num_classes).scatter_(1, own, certain)


def _say_computed(run: OpenRun, trunk: FrozenTrunk, num: int) -> None:
    kept = "in memory" if trunk.root is None else f"in {trunk.root}"
    run.console.say(
        f"features: {num:,} rows in {trunk.precision}, {trunk.num_computed:,} computed now by this process, "
        f"the rest from the cache; kept {kept}"
    )


def _write(run: OpenRun, heads: dict[int, SolvedHead], scores: dict[int, Score], chosen: int) -> None:
    """head.json: what was tried and what was chosen."""
    if run.folder is None:
        return
    (run.folder.path / HEAD_NAME).unlink(missing_ok=True)  # of an attempt that was interrupted
    tried = [
        {
            "weight_decay": WEIGHT_DECAYS[step - 1],
            "training_loss": head.loss,
            "validation": dataclasses.asdict(scores[step]) if step in scores else None,
        }
        for step, head in heads.items()
    ]
    run.folder.write_json(
        HEAD_NAME,
        {"weight_decay": WEIGHT_DECAYS[chosen - 1], "views": run.plan.config.views, "tried": tried},
    )
