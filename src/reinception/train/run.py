"""A whole run: the plan, the checked data, the network, the loop, the verdict on held-out images, the folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reinception import __version__
from reinception.data.audit import check_images
from reinception.data.loader import TrainingStream
from reinception.data.records import SPLITS, Source
from reinception.data.sources import open_source
from reinception.data.split import assign_splits
from reinception.errors import ReinceptionError, UsageError
from reinception.metrics import PredictionTable
from reinception.model.artifact import MODEL_NAME, Manifest, load, read_manifest
from reinception.model.build import Network, build
from reinception.report import write_report
from reinception.runtime import choose_device, precision, prepare, score
from reinception.train.budget import Budget, StepBudget, TimeBudget
from reinception.train.console import Console
from reinception.train.describe import describe_data, describe_machine, precision_name, verdict
from reinception.train.finetune import freeze, start_from
from reinception.train.folder import LAST_NAME, RunFolder, refuse_unusable, refuse_without_room
from reinception.train.journal import Journal, Score
from reinception.train.loop import Training, fit
from reinception.train.optim import ParameterAverage, make_optimizer
from reinception.train.plan import Plan, TrainConfig, make_plan

__all__ = ["TrainConfig", "train"]

NAMED_PROBLEMS = 3


def train(config: TrainConfig) -> Path:
    """Trains as `config` says and returns the new run folder.

    What can be known to fail is refused before anything is written: ReinceptionError (UsageError where the request
    makes no sense), one line. Progress goes to the standard error stream. Seeds torch's global generator.
    """
    plan = make_plan(config)
    out = Path(config.out)
    refuse_unusable(out)
    device = _device(config.device)
    dtype = precision(config.precision, device)
    with Console() as console:
        source = _open_data(plan, console)
        plan = dataclasses.replace(plan, arch=dataclasses.replace(plan.arch, num_classes=len(source.classes)))
        network = _network(plan)
        refuse_without_room(out, model_bytes=sum(tensor.nbytes for tensor in network.state_dict().values()))
        for note in plan.notes:
            console.say(note)
        folder = RunFolder(out)
        console.log_to(lambda line: folder.append("log.txt", line))
        folder.write_json(
            "config.json", {**plan.to_json(), **describe_data(source), "precision": precision_name(dtype)}
        )
        folder.write_json("environment.json", describe_machine(out, device, dtype))
        run = _Run(plan, source, folder=folder, console=console, device=device, dtype=dtype)
        run.train(network)
        run.judge()
        write_report(out, None)
        console.say(f"report: {out / 'report.html'}")
    return out


class _Run:
    """A run in progress: what its files are made from."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        *,
        folder: RunFolder,
        console: Console,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.plan = plan
        self.source = source
        self.folder = folder
        self.console = console
        self.device = device
        self.dtype = dtype
        self.records = {split: source.split(split) if split in source.splits else () for split in SPLITS}
        self.images_per_step = plan.recipe.batch_size * plan.recipe.replicas
        self.steps_per_epoch = len(self.records["train"]) / self.images_per_step
        self._kept: dict[str, Any] = {}

    def train(self, network: Network) -> None:
        """The loop; it leaves the best parameter average in model.safetensors and the last in last.safetensors."""
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
        )
        stream = TrainingStream(
            self.records["train"],
            input_size=plan.arch.input_size,
            augmentation=recipe.augmentation,
            batch_size=recipe.batch_size,
            seed=plan.config.seed,
            workers=plan.config.workers,
        )
        num_steps = fit(
            Training(
                network=network,
                average=average,
                optimizer=optimizer,
                recipe=recipe,
                stream=stream,
                budget=self._budget(),
                journal=journal,
                preprocessing=plan.preprocessing,
                seed=plan.config.seed,
                freeze=plan.config.freeze,
                dtype=self.dtype,
                device=self.device,
            )
        )
        self.console.stop_bar()
        self.console.say(f"trained {num_steps:,} steps in {journal.seconds:.0f} s")
        self.folder.save_model(average.network, self._manifest({"step": num_steps}), name=LAST_NAME)

    def judge(self) -> None:
        """The best network on the images it was chosen by, and on those it was neither trained on nor chosen by.

        In float32, whatever precision trained it: a published error should not depend on the processor.
        """
        best, _ = load(self.folder.path / MODEL_NAME)
        best = prepare(best, self.device)
        if self.records["val"]:
            self.folder.save_predictions("val", self._predict(best, "val", torch.float32))
        if self.records["test"]:
            table = self._predict(best, "test", torch.float32)
            self.folder.save_predictions("test", table)
            held_out = {"num_images": len(table), **dataclasses.asdict(Score.of(table))}
            step = self._kept["step"]
            position = {"step": step, "epoch": step / self.steps_per_epoch}
            self.folder.add_metrics({"split": "test", **position, **held_out})
            self.folder.save_model(best, self._manifest({**self._kept, "held_out": held_out}))
            self.console.say(verdict(table))

    def _budget(self) -> Budget:
        recipe, seconds = self.plan.recipe, self.plan.config.time_budget_seconds
        if seconds is not None:
            return TimeBudget(seconds=seconds, batches_per_validation=len(self.records["val"]) / recipe.batch_size)
        num_steps = max(1, round(recipe.epochs * self.steps_per_epoch))
        return StepBudget(num_steps=num_steps, steps_per_epoch=self.steps_per_epoch)

    def _keep(self, network: Network, step: int, validation: Score | None) -> None:
        self._kept = {"step": step, "validation": None if validation is None else dataclasses.asdict(validation)}
        self.folder.save_model(network, self._manifest(self._kept))

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
            origin=_origin(plan),
        )

    def _predict(self, network: Network, split: str, dtype: torch.dtype) -> PredictionTable:
        """Every record once. An image that could be read before and cannot now is an error: n must not change."""
        records = self.records[split]
        scored = score(
            network,
            self.plan.preprocessing,
            records,
            batch_size=self.plan.recipe.batch_size,
            workers=self.plan.config.workers,
            dtype=dtype,
        )
        for refusal in scored.refused.values():
            raise refusal
        return PredictionTable(
            names=tuple(record.name for record in records),
            targets=np.array([record.target for record in records]),
            probabilities=scored.probabilities,
            classes=self.source.classes,
        )


def _open_data(plan: Plan, console: Console) -> Source:
    """The data, divided, every image decoded once: a bad one is named now and not in the third hour."""
    config = plan.config
    source = assign_splits(
        open_source(config.data),
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
    )
    if "train" not in source.splits:
        raise ReinceptionError(f"{config.data}: no images are left to train on; give the train split some")
    counts = ", ".join(f"{split} {len(source.split(split)):,}" for split in source.splits)
    console.say(f"{source.name}: {len(source.records):,} images of {len(source.classes)} classes ({counts})")
    problems = check_images(source.records, workers=config.workers)
    if problems:
        first = "; ".join(f"{problem.name}: {problem.reason}" for problem in problems[:NAMED_PROBLEMS])
        more = f" and {len(problems) - NAMED_PROBLEMS} more" if len(problems) > NAMED_PROBLEMS else ""
        raise ReinceptionError(
            f"{config.data}: {len(problems)} of {len(source.records)} images cannot be used ({first}{more}); "
            "mend or remove them"
        )
    console.say(f"all {len(source.records):,} images decode")
    return source


def _network(plan: Plan) -> Network:
    weights, seed = plan.config.weights, plan.config.seed
    return build(plan.arch, seed=seed) if weights is None else start_from(weights, plan.arch, seed=seed)


def _origin(plan: Plan) -> Mapping[str, Any]:
    """Where the weights come from: from nothing, or from a file with an origin of its own."""
    weights = plan.config.weights
    if weights is None:
        return {"trained_by": f"reinception {__version__}", "from": "random initial weights"}
    return {
        "trained_by": f"reinception {__version__}",
        "from": Path(weights).name,
        "origin_of_that": dict(read_manifest(weights).origin),
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        return choose_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"--device {name}: no such device here; see `reinception doctor`") from None
    return device
