"""A run whose data and folder are open, new or interrupted, before anything is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from reinception.data.prepare.audit import check_images
from reinception.data.sources.exclusions import read_exclusions
from reinception.data.sources.labels import SPLITS
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record, Source
from reinception.data.sources.split import assign_fold, assign_splits
from reinception.data.sources.understanding import understand
from reinception.distributed import Ranks, require_same
from reinception.errors import ReinceptionError
from reinception.inference.compute import Compute
from reinception.machine import Precision, choose_device, training_precision
from reinception.model.artifact import Manifest
from reinception.model.build import Network, build
from reinception.train.config import TrainConfig
from reinception.train.frozen import FrozenTrunk, features_root
from reinception.train.run.checkpoint import FOLDER_NAME, Checkpoint, Checkpoints
from reinception.train.run.console import Console
from reinception.train.run.going_on import changed_config, is_longer, replanned, with_found_data
from reinception.train.run.metadata import (
    describe_data,
    describe_machine,
    describe_model,
    differences,
    numeric_environment,
    precision_name,
)
from reinception.train.run.plan import Plan, make_plan
from reinception.train.run.run_folder import RunFolder, is_barely_begun, refuse_unusable, refuse_without_room
from reinception.train.run.run_lock import RunLock
from reinception.train.run.signals import StopRequest

NAMED_PROBLEMS = 3
FINISHED_NAME = "finished.json"
IMBALANCE = 2
"""So many times as many images of one class as of another are worth a line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenRun:
    """A run whose data and folder are open. `network` is as the first step finds it, or to be overwritten by the
    `checkpoint` that the run goes on from; `folder` is None in a process that is not the first of several."""

    plan: Plan
    source: Source
    network: Network
    ranks: Ranks
    console: Console
    stop: StopRequest
    folder: RunFolder | None = None
    checkpoint: Checkpoint | None = None

    @cached_property
    def records(self) -> Mapping[str, Sequence[Record]]:
        """The records of each split, none where there is no such split."""
        return {split: self.source.split(split) if split in self.source.splits else () for split in SPLITS}

    @property
    def frequencies(self) -> torch.Tensor:
        """(classes,) each class's part of the training images."""
        targets = torch.tensor([record.target for record in self.records["train"]])
        counts = torch.bincount(targets, minlength=len(self.source.classes))
        return (counts / counts.sum()).to(self.ranks.device)

    @property
    def dtype(self) -> torch.dtype:
        """What the heavy layers compute in."""
        return training_precision(self.plan.config.precision, self.ranks.device)

    @property
    def steps_per_epoch(self) -> float:
        """Steps per pass over the training images; rarely a whole number. A frozen trunk's classifier is fitted to all
        of them in every step."""
        if self.plan.config.freeze == "trunk":
            return 1.0
        return len(self.records["train"]) / self.plan.images_per_step

    def describe_model(self, training: Mapping[str, Any]) -> Manifest:
        """The manifest of a model of this run; `training` says after which `step` and how it scored."""
        epoch = training["step"] / self.steps_per_epoch
        return describe_model(self.plan, self.source, {"epoch": epoch, **training})


def begin(plan: Plan, ranks: Ranks, console: Console, stop: StopRequest, lock: RunLock) -> OpenRun:
    """A new run: its images checked, its folder made."""
    out, dtype = Path(plan.config.out), training_precision(plan.config.precision, ranks.device)
    refuse_unusable(out)
    ranks.barrier()  # all have found `out` free; now the first may make it
    source = open_data(plan, console)
    plan = plan.for_classes(source.classes)
    network = plan.network()
    _check_images(source, plan, network, console, ranks)
    refuse_without_room(out, model_bytes=sum(tensor.nbytes for tensor in network.state_dict().values()))
    for note in (*plan.notes, *_imbalance(source, plan)):
        console.say(note)
    folder = None
    if ranks.is_first:
        description = {**plan.to_json(), **describe_data(source), "precision": precision_name(dtype)}
        folder = RunFolder(out, config=description)
        lock.take()
        console.log_to(partial(folder.note, "log.txt"))
        folder.write_json("environment.json", describe_machine(out, ranks.device, dtype))
    stop.listen()
    return OpenRun(plan=plan, source=source, network=network, ranks=ranks, console=console, stop=stop, folder=folder)


def rehearse(config: TrainConfig) -> OpenRun:
    """What `train(config)` would begin, for a few steps that are measured: in memory, silent, with no folder."""
    plan, console = make_plan(config), Console(is_silent=True)
    ranks = Ranks(choose_device(config.device))
    ranks.rank, ranks.world_size = 0, 1  # also where torchrun has started several: it exchanges nothing
    source = open_data(plan, console)
    plan = plan.for_classes(source.classes)
    return OpenRun(plan=plan, source=source, network=plan.network(), ranks=ranks, console=console, stop=StopRequest())


def reopen(plan: Plan, ranks: Ranks, console: Console, stop: StopRequest, lock: RunLock) -> OpenRun | None:
    """A run that was interrupted, taken back to its newest whole checkpoint; None for one that is finished and is to
    train no more epochs."""
    stop.listen()
    out = Path(plan.config.out)
    document = config_of(out)
    if (out / FOLDER_NAME / FINISHED_NAME).exists() and not is_longer(plan, document):
        console.say(f"{out}: finished already; --epochs N beside --resume trains it for more")
        return None
    if ranks.is_first:
        lock.take()
    checkpoints = Checkpoints(out / FOLDER_NAME)
    checkpoint = _newest(checkpoints, out, console)
    plan = with_found_data(plan, document)
    source = open_data(plan, console)
    if source.fingerprint != document["fingerprint"]:
        raise ReinceptionError(
            f"{plan.config.data}: these are not the images {out} was begun with; where those are elsewhere: "
            f"{shlex.join(['reinception', 'train', 'DATA', '--resume', str(out)])}"
        )
    plan = plan.for_classes(source.classes)
    if is_longer(plan, document):
        steps_per_epoch = len(source.split("train")) / plan.images_per_step
        plan, said = replanned(plan, checkpoint, steps_per_epoch=steps_per_epoch)
        console.say(said)
    config = changed_config(plan, document, source, console.say)
    ranks.barrier()  # all have read it; now the first may tidy up
    folder = _reopened_folder(plan, checkpoint, config, ranks, console) if ranks.is_first else None
    if checkpoint is None:
        console.say(f"{out}: begins at its first step, having no checkpoint yet")
    else:
        _restore_environment(checkpoint, ranks.device, console)
        console.say(f"{out}: goes on after step {checkpoint.step:,}")
    stop.check()  # nothing is lost: the checkpoint is where it was
    network = plan.network() if checkpoint is None else build(plan.arch, seed=plan.config.seed)
    run = OpenRun(plan=plan, source=source, network=network, ranks=ranks, console=console, stop=stop, folder=folder)
    return dataclasses.replace(run, checkpoint=checkpoint)


def _reopened_folder(
    plan: Plan, checkpoint: Checkpoint | None, config: Mapping[str, Any], ranks: Ranks, console: Console
) -> RunFolder:
    """The folder of the run, taken back to the checkpoint, with `config` as its config.json."""
    out = Path(plan.config.out)
    (out / FOLDER_NAME / FINISHED_NAME).unlink(missing_ok=True)
    Checkpoints(out / FOLDER_NAME).forget_after(0 if checkpoint is None else checkpoint.step)
    if checkpoint is None:
        folder = RunFolder.begun_again(out)
        dtype = training_precision(plan.config.precision, ranks.device)
        folder.write_json("environment.json", describe_machine(out, ranks.device, dtype))
    else:
        folder = RunFolder.reopened(out, checkpoint.document["folder"])
        shutil.rmtree(out / "predictions", ignore_errors=True)  # of a verdict that was interrupted
    console.log_to(partial(folder.note, "log.txt"))
    if config != config_of(out):
        folder.change_config(config)
    return folder


# -- the files of an interrupted run -----------------------------------------------------------------------------------


def config_of(out: Path) -> dict[str, Any]:
    try:
        document = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ReinceptionError(
            f"{out}: no config.json that can be read; is it a run that `train` began? One that was killed before it "
            "had any file begins with the same command again"
        ) from None
    if not isinstance(document, dict):
        raise ReinceptionError(f"{out}: config.json is not a JSON object")
    return document


def read_plan(out: Path) -> Plan:
    return Plan.from_json(config_of(out), out=out)


def was_begun_by(out: Path, config: TrainConfig) -> bool:
    """Whether `out` is an unfinished run of this very command, which a restart may go on with."""
    with contextlib.suppress(ReinceptionError):
        document = config_of(out)
        begun = config.command() in (document["command"], document.get("asked"))
        can_go_on = bool(Checkpoints(out / FOLDER_NAME).steps()) or is_barely_begun(out)
        return begun and can_go_on and not (out / FOLDER_NAME / FINISHED_NAME).exists()
    return False


def _newest(checkpoints: Checkpoints, out: Path, console: Console) -> Checkpoint | None:
    """The checkpoint to go on from, None where the run was interrupted before its first."""
    checkpoint, skipped = checkpoints.newest()
    for why in skipped:
        console.say(f"skipped a checkpoint: {why}")
    if checkpoint is None and not is_barely_begun(out):
        raise ReinceptionError(f"{out}: no checkpoint in {checkpoints.folder} can be used; start the run anew")
    return checkpoint


def _restore_environment(checkpoint: Checkpoint, device: torch.device, console: Console) -> None:
    """As many threads as before, because they change bits; a warning for what cannot be restored."""
    before = checkpoint.document["surroundings"]
    torch.set_num_threads(before["threads"])
    changed = differences(before, numeric_environment(device))
    if changed:
        console.say(f"WARNING: {'; '.join(changed)}: the run goes on, but not to the same bits")


def _imbalance(source: Source, plan: Plan) -> Iterator[str]:
    """A line where classes have very unequal numbers of training images, with what is done about it."""
    counts = Counter(record.target for record in source.split("train"))
    (common, most), (rare, fewest) = counts.most_common(1)[0], counts.most_common()[-1]
    if most < IMBALANCE * fewest:
        return
    names, how = source.classes, plan.recipe.balance
    done = "nothing is done about it; see --balance" if how == "none" else f"--balance {how}"
    yield f"classes are unequal: {names[common]!r} {most:,} images, {names[rare]!r} {fewest:,}; {done}"


# -- data and device --------------------------------------------------------------------------------------------------


def open_data(plan: Plan, console: Console) -> Source:
    """The data of a plan, split. ReinceptionError where nothing is left to train on."""
    config = plan.config
    source = _split(open_source(config.data), config)
    num_listed = len(source.records)
    if config.exclude is not None:
        source = source.without(read_exclusions(config.exclude))
    if "train" not in source.splits:
        raise ReinceptionError(f"{config.data}: no images are left to train on; give the train split some")
    if config.exclude is not None:
        console.say(f"{source.name}: {len(source.records):,} used of {num_listed:,} listed")
    for line in str(understand(source)).splitlines():
        console.say(line)
    return source


def _split(source: Source, config: TrainConfig) -> Source:
    seed, val_fraction = config.seed if config.split_seed is None else config.split_seed, config.val_fraction
    if config.folds is not None:
        fold = 1 if config.fold is None else config.fold
        return assign_fold(source, folds=config.folds, fold=fold, seed=seed, val_fraction=val_fraction)
    return assign_splits(source, seed=seed, val_fraction=val_fraction, test_fraction=config.test_fraction)


def _check_images(source: Source, plan: Plan, network: Network, console: Console, ranks: Ranks) -> None:
    """Every image decoded once, each rank its part: a bad one is named now and not in the third hour. Those whose
    features are kept have been decoded before."""
    require_same(ranks, source.fingerprint)
    # In cross-validation no image is read before the fold that tests on it is judged; other folds check it.
    checked = source.records if plan.config.folds is None else [one for one in source.records if one.split != "test"]
    mine = checked[ranks.rank :: ranks.world_size]
    if plan.config.freeze == "trunk":
        mine = _without_kept(mine, plan, network, ranks.device)
    found = check_images(mine, workers=plan.config.workers)
    problems = [
        why for some in ranks.all_gather_objects([f"{bad.name}: {bad.reason}" for bad in found]) for why in some
    ]
    if problems:
        more = f" and {len(problems) - NAMED_PROBLEMS} more" if len(problems) > NAMED_PROBLEMS else ""
        raise ReinceptionError(
            f"{plan.config.data}: {len(problems)} of {len(checked)} images cannot be used "
            f"({'; '.join(problems[:NAMED_PROBLEMS])}{more}); fix or remove them, or list them "
            "with `data check --quarantine FILE` and leave them out with --exclude FILE"
        )
    console.say(f"all {len(checked):,} images decode")


def _without_kept(records: Sequence[Record], plan: Plan, network: Network, device: torch.device) -> list[Record]:
    """The records whose features under the frozen trunk of `network` are not in the cache."""
    remaining = list(records)
    asked = plan.config.precision
    kinds: tuple[Precision, ...] = ("fp32", "auto" if asked == "fp16" else asked)  # the plan refuses fp16
    for kind in dict.fromkeys(kinds):
        compute = Compute(device=str(device), precision=kind, workers=plan.config.workers)
        root = features_root(plan.config.cache)
        trunk = FrozenTrunk(network=network, preprocessing=plan.preprocessing, root=root, compute=compute)
        kept = trunk.known(remaining)
        remaining = [record for record, is_kept in zip(remaining, kept, strict=True) if not is_kept]
    return remaining
