"""A run in progress, on one process or on each of several: network, loop, checkpoints, verdict on held-out images."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reinception import __version__
from reinception.data.loading.loader import TrainingStream
from reinception.data.sources.records import SPLITS, Source
from reinception.distributed import Ranks, collect, shard
from reinception.errors import ReinceptionError
from reinception.inference.engine import prepare, score
from reinception.inference.speed import SPEED_NAME, measure
from reinception.metrics import PredictionTable
from reinception.model.artifact import MODEL_NAME, Manifest, load
from reinception.model.build import Network, build
from reinception.train.budget import Budget, StepBudget, TimeBudget
from reinception.train.finetune import freeze, learned
from reinception.train.loop import Training, fit
from reinception.train.optim import ParameterAverage, make_optimizer
from reinception.train.reduction import Replicas
from reinception.train.run.checkpoint import FOLDER_NAME, Checkpoint, Checkpoints, capture, restore, surroundings
from reinception.train.run.checkpointer import Keeper
from reinception.train.run.console import Console
from reinception.train.run.log import Journal, Score
from reinception.train.run.metadata import verdict
from reinception.train.run.plan import Plan
from reinception.train.run.run_folder import LAST_NAME, RunFolder
from reinception.train.run.signals import Stop
from reinception.train.run.tensorboard import Scalars


class Session:
    """What the files of a run are made from. `folder` is None in a process that is not the first of several."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        *,
        folder: RunFolder | None,
        console: Console,
        ranks: Ranks,
        stop: Stop,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.plan = plan
        self.source = source
        self.folder = folder
        self.console = console
        self.ranks = ranks
        self.stop = stop
        self.device = device
        self.dtype = dtype
        self.records = {split: source.split(split) if split in source.splits else () for split in SPLITS}
        self.images_per_step = plan.recipe.batch_size * plan.recipe.replicas
        self.steps_per_epoch = len(self.records["train"]) / self.images_per_step
        self._kept: dict[str, Any] = {}
        self._unsaved: tuple[Network, Manifest] | None = None  # the best weights, while the disk has no room for them

    def prepare(self, network: Network, checkpoint: Checkpoint | None = None) -> Training:
        """All that the loop needs, `network` being fresh or, with a `checkpoint`, as it was left."""
        plan, recipe = self.plan, self.plan.recipe
        network = prepare(network, self.device)
        network.set_batch_norm_decay(recipe.batch_norm_decay)
        freeze(network, plan.config.freeze)
        average = ParameterAverage(network, recipe.parameter_average)
        optimizer = make_optimizer(network, recipe.optimizer)
        journal = Journal(
            folder=self.folder,
            console=self.console,
            images_per_step=self.images_per_step,
            steps_per_epoch=self.steps_per_epoch,
            predict_validation=partial(self._predict, average.network, "val", self.dtype)
            if self.records["val"]
            else None,
            keep=partial(self._keep, average.network),
            scalars=self._scalars(None if checkpoint is None else checkpoint.step),
        )
        if checkpoint is not None:
            restore(checkpoint.tensors, network, average, optimizer)
            average.num_updates = checkpoint.document["num_averaged"]
            journal.resume(checkpoint.document["journal"])
            self._kept = dict(checkpoint.document["kept"])
        budget = self._budget(0.0 if checkpoint is None else checkpoint.document["budget_seconds"])

        def state(step: int) -> Checkpoint:
            self._save_unsaved()
            assert self.folder is not None
            document = {
                "num_averaged": average.num_updates,
                "journal": journal.to_json(),
                "kept": self._kept,
                "budget_seconds": budget.elapsed,
                "folder": self.folder.position(),
                "surroundings": surroundings(self.device),
            }
            return Checkpoint(step=step, tensors=capture(network, average, optimizer), document=document)

        return Training(
            network=network,
            average=average,
            optimizer=optimizer,
            recipe=recipe,
            replicas=Replicas(
                network,
                recipe,
                ranks=self.ranks,
                reduction=plan.config.reduction,
                preprocessing=plan.preprocessing,
                seed=plan.config.seed,
                dtype=self.dtype,
                device=self.device,
            ),
            ranks=self.ranks,
            stream=TrainingStream(
                self.records["train"],
                input_size=plan.arch.input_size,
                augmentation=recipe.augmentation,
                batch_size=recipe.batch_size,
                seed=plan.config.seed,
                workers=plan.config.workers,
                num_classes=plan.arch.num_classes,
            ),
            budget=budget,
            journal=journal,
            keeper=Keeper(
                None if self.folder is None else Checkpoints(self.folder.path / FOLDER_NAME),
                state,
                seconds=plan.config.checkpoint_seconds,
                steps=plan.config.checkpoint_steps,
                say=self.console.say,
            ),
            stop=self.stop,
            freeze=plan.config.freeze,
        )

    def train(self, training: Training, *, first_step: int = 0) -> None:
        """The loop; it leaves the best parameter average in model.safetensors and the last in last.safetensors."""
        if first_step == 0:
            training.keeper.keep(0)  # from here on there is always something to resume from
        num_steps = fit(training, first_step=first_step)
        self.console.stop_bar()
        self.console.say(f"trained {num_steps:,} steps in {training.journal.seconds:.0f} s")
        if self.folder is not None:
            self._save_unsaved()
            self.folder.save_model(training.average.network, self._manifest({"step": num_steps}), name=LAST_NAME)

    def judge(self) -> None:
        """The best network on the images it was chosen by, and on those it was neither trained on nor chosen by.

        In float32, whatever precision trained it: a published error should not depend on the processor.
        """
        best = build(self.plan.arch) if self.folder is None else load(self.folder.path / MODEL_NAME)[0]
        best = prepare(best, self.device)
        self.ranks.broadcast(list(best.state_dict().values()))
        tables = {split: self._predict(best, split, torch.float32) for split in ("val", "test") if self.records[split]}
        if self.folder is None:
            return
        for split, table in tables.items():
            self.folder.save_predictions(split, table)
        (self.folder.path / SPEED_NAME).unlink(missing_ok=True)  # of a verdict that was interrupted
        speed = measure(best, self.plan.preprocessing, batch_size=self.plan.recipe.batch_size)
        self.folder.write_json(SPEED_NAME, speed)
        if "test" in tables:
            table = tables["test"]
            held_out = {"num_images": len(table), **dataclasses.asdict(Score.of(table))}
            step = self._kept["step"]
            position = {"step": step, "epoch": step / self.steps_per_epoch}
            self.folder.add_metrics({"split": "test", **position, **held_out})
            self.folder.save_model(best, self._manifest({**self._kept, "held_out": held_out}))
            self.console.say(verdict(table))

    def _scalars(self, resumed_after: int | None) -> Scalars | None:
        if self.folder is None or not self.plan.config.tensorboard:
            return None
        return Scalars(self.folder.path, resumed_after=resumed_after, say=self.console.say)

    def _budget(self, spent: float) -> Budget:
        recipe, seconds = self.plan.recipe, self.plan.config.time_budget_seconds
        if seconds is not None:
            batches = len(self.records["val"]) / recipe.batch_size
            return TimeBudget(seconds=seconds, batches_per_validation=batches, spent=spent)
        num_steps = max(1, round(recipe.epochs * self.steps_per_epoch))
        return StepBudget(num_steps=num_steps, steps_per_epoch=self.steps_per_epoch)

    def _keep(self, network: Network, step: int, validation: Score | None) -> None:
        self._kept = {"step": step, "validation": None if validation is None else dataclasses.asdict(validation)}
        if self.folder is None:
            return
        manifest = self._manifest(self._kept)
        self._unsaved = None
        try:
            self.folder.save_model(network, manifest)
        except ReinceptionError as error:
            self._unsaved = copy.deepcopy(network), manifest
            self.console.say(f"{error}; training goes on with the best weights in memory")

    def _save_unsaved(self) -> None:
        if self._unsaved is not None and self.folder is not None:
            self.folder.save_model(*self._unsaved)
            self._unsaved = None

    def _manifest(self, training: Mapping[str, Any]) -> Manifest:
        plan, config = self.plan, self.plan.config
        return Manifest(
            arch=plan.arch,
            classes=self.source.classes,
            preprocessing=plan.preprocessing,
            training={
                "recipe": plan.recipe.to_json(),
                "data": {"name": self.source.name, "fingerprint": self.source.fingerprint},
                "split": {
                    "seed": config.seed,
                    "val_fraction": config.val_fraction,
                    "test_fraction": config.test_fraction,
                },
                "seed": config.seed,
                "weights": "parameter average",
                "epoch": training["step"] / self.steps_per_epoch,
                **training,
            },
            origin=origin(plan),
        )

    def _predict(self, network: Network, split: str, dtype: torch.dtype) -> PredictionTable:
        """Every record once. An image that could be read before and cannot now is an error: n must not change."""
        records, batch_size = self.records[split], self.plan.recipe.batch_size
        scored = score(
            network,
            self.plan.preprocessing,
            shard(records, self.ranks, batch_size=batch_size),
            batch_size=batch_size,
            workers=self.plan.config.workers,
            dtype=dtype,
            progress=lambda done, total: self.stop.check(),
        )
        for bad in scored.refused.values():
            raise bad
        probabilities, _ = collect(scored.probabilities, {}, self.ranks, batch_size=batch_size)
        return PredictionTable(
            names=tuple(record.name for record in records),
            targets=np.array([record.target for record in records]),
            probabilities=probabilities,
            classes=self.source.classes,
        )


def origin(plan: Plan) -> Mapping[str, Any]:
    """Where the weights come from: from nothing, or from a file with an origin of its own."""
    weights = plan.config.weights
    if weights is None:
        return {"trained_by": f"reinception {__version__}", "from": "random initial weights"}
    return {
        "trained_by": f"reinception {__version__}",
        "from": Path(weights).name,
        "origin_of_that": dict(learned(str(weights)).manifest.origin),
    }
