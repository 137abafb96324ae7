"""A whole run, begun or resumed: the plan, the checked data, the session, the folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from reinception.data.prepare.audit import check_images
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Source
from reinception.data.sources.split import assign_splits
from reinception.distributed import Ranks, require_same
from reinception.errors import Interrupted, ReinceptionError, UsageError
from reinception.machine import choose_device, precision
from reinception.model.build import Network, build
from reinception.preprocess import read_exclusions
from reinception.report import write_report
from reinception.train.config import TrainConfig
from reinception.train.finetune import start_from
from reinception.train.run.checkpoint import FOLDER_NAME, Checkpoint, Checkpoints, differences, surroundings
from reinception.train.run.console import Console
from reinception.train.run.metadata import describe_data, describe_machine, precision_name
from reinception.train.run.out_of_memory import OutOfMemoryError, divided
from reinception.train.run.plan import Plan, make_plan
from reinception.train.run.run_folder import RunFolder, is_barely_begun, refuse_unusable, refuse_without_room
from reinception.train.run.session import Session
from reinception.train.run.signals import Stop

__all__ = ["TrainConfig", "resume", "train"]

NAMED_PROBLEMS = 3
FINISHED_NAME = "finished.json"


def train(config: TrainConfig) -> Path:
    """Trains as `config` says and returns the new run folder.

    What can be known to fail is refused before anything is written: ReinceptionError (UsageError where the request
    makes no sense), one line. Progress goes to the standard error stream. Seeds torch's global generator. Under
    torchrun every rank calls it, and after a restart of theirs it goes on with the run it had begun.
    """
    plan = make_plan(config)
    out = Path(config.out)
    device = choose(config.device)
    ranks = Ranks(device)
    ranks.require_replicas(plan.recipe.replicas)
    dtype = precision(config.precision, device)
    with ranks, Console(is_silent=not ranks.is_first) as console:
        if ranks.restarts and _was_begun_by(out, config):
            _go_on(_plan_of(out), ranks, console)
            return out
        refuse_unusable(out)
        ranks.barrier()  # all have found `out` free; now the first may make it
        source = open_data(plan, console)
        _check(source, plan, console, ranks)
        plan = dataclasses.replace(plan, arch=dataclasses.replace(plan.arch, num_classes=len(source.classes)))
        network = fresh_network(plan)
        refuse_without_room(out, model_bytes=sum(tensor.nbytes for tensor in network.state_dict().values()))
        for note in plan.notes:
            console.say(note)
        folder = None
        if ranks.is_first:
            description = {**plan.to_json(), **describe_data(source), "precision": precision_name(dtype)}
            folder = RunFolder(out, config=description)
            console.log_to(lambda line: folder.note("log.txt", line))
            folder.write_json("environment.json", describe_machine(out, device, dtype))
        with _stoppable(out, console) as stop:
            session = Session(
                plan, source, folder=folder, console=console, ranks=ranks, stop=stop, device=device, dtype=dtype
            )
            session.train(session.prepare(network))
            _finish(session)
    return out


def resume(
    run: str | Path, *, workers: int | None = None, batch_size: int | None = None, replicas: int | None = None
) -> Path:
    """Goes on with the interrupted run in the folder `run`, from its newest whole checkpoint, as if nothing had been.

    A run that was interrupted before its first checkpoint begins at its first step. `batch_size` and `replicas` cut
    its steps into other batches of the same images, for one that ran out of memory: that, it says, changes the run.
    Returns the folder; a finished run is left as it is. ReinceptionError where there is nothing to resume, or where
    the images are no longer those it was begun with.
    """
    out = Path(run)
    plan = _plan_of(out)
    plan = dataclasses.replace(plan, recipe=divided(plan.recipe, batch_size=batch_size, replicas=replicas))
    if workers is not None:
        plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, workers=workers))
    ranks = Ranks(choose(plan.config.device))
    ranks.require_replicas(plan.recipe.replicas)
    with ranks, Console(is_silent=not ranks.is_first) as console:
        _go_on(plan, ranks, console)
    return out


def _go_on(plan: Plan, ranks: Ranks, console: Console) -> None:
    """The rest of `resume`, once the ranks are connected."""
    out = Path(plan.config.out)
    document = _config_of(out)
    with _stoppable(out, console) as stop:
        if (out / FOLDER_NAME / FINISHED_NAME).exists():
            console.say(f"{out}: finished already")
            return
        checkpoints = Checkpoints(out / FOLDER_NAME)
        checkpoint = _newest(checkpoints, out, console)
        first_step = 0 if checkpoint is None else checkpoint.step
        dtype = precision(document["precision"], ranks.device)
        ranks.barrier()  # all have read it; now the first may tidy up
        folder = None
        if ranks.is_first:
            checkpoints.forget_after(first_step)
            if checkpoint is None:
                folder = RunFolder.begun_again(out)
                folder.write_json("environment.json", describe_machine(out, ranks.device, dtype))
            else:
                folder = RunFolder.reopened(out, checkpoint.document["folder"])
                shutil.rmtree(out / "predictions", ignore_errors=True)  # of a verdict that was interrupted
            console.log_to(lambda line: folder.note("log.txt", line))
        if checkpoint is not None:
            _same_surroundings(checkpoint, ranks.device, console)
        source = open_data(plan, console)
        if source.fingerprint != document["fingerprint"]:
            raise ReinceptionError(f"{plan.config.data}: these are not the images {out} was begun with")
        size, num = plan.recipe.batch_size, plan.recipe.replicas
        if folder is not None and size != document["recipe"]["batch_size"]:
            changes = {"batch_size": size, "replicas": num, "recipe": plan.recipe.to_json()}
            folder.change_config(document | changes)
            console.say(f"from here on a step is {num} x {size} images: the same ones, but not quite the same run")
        console.say(
            f"{out}: begins at its first step, having no checkpoint yet"
            if checkpoint is None
            else f"{out}: goes on after step {first_step:,}"
        )
        stop.check()  # nothing is lost: the checkpoint is where it was
        session = Session(
            plan,
            source,
            folder=folder,
            console=console,
            ranks=ranks,
            stop=stop,
            device=ranks.device,
            dtype=dtype,
        )
        network = fresh_network(plan) if checkpoint is None else build(plan.arch, seed=plan.config.seed)
        session.train(session.prepare(network, checkpoint), first_step=first_step)
        _finish(session)


def _finish(session: Session) -> None:
    """The verdict, the report, and the mark of a finished run."""
    session.judge()
    folder = session.folder
    if folder is not None:
        folder.settle()
        write_report(folder.path, None)
        session.console.say(f"report: {folder.path / 'report.html'}")
        folder.settle()
        if (folder.path / FOLDER_NAME).is_dir():
            folder.write_json(f"{FOLDER_NAME}/{FINISHED_NAME}", {"finished": True})
    session.ranks.barrier()


@contextmanager
def _stoppable(out: Path, console: Console) -> Iterator[Stop]:
    """Signals end the work where its state is whole; what is said last is how to go on."""
    how = f"to go on: {shlex.join(['reinception', 'train', '--resume', str(out)])}"
    with Stop() as stop:
        try:
            yield stop
        except Interrupted as interruption:
            console.stop_bar()
            raise Interrupted(how, number=interruption.number) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(how) from None
        except OutOfMemoryError as error:
            if not error.flags:
                raise
            raise OutOfMemoryError(f"{error}; {how} {' '.join(error.flags)}") from None


def _config_of(out: Path) -> dict[str, Any]:
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


def _plan_of(out: Path) -> Plan:
    return Plan.from_json(_config_of(out), out=out)


def _was_begun_by(out: Path, config: TrainConfig) -> bool:
    """Whether `out` is an unfinished run of this very command, which a restart may go on with."""
    with contextlib.suppress(ReinceptionError):
        begun = _config_of(out)["command"] == config.command()
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


def _same_surroundings(checkpoint: Checkpoint, device: torch.device, console: Console) -> None:
    """As many threads as before, because they change bits; what cannot be had again is said aloud."""
    then = checkpoint.document["surroundings"]
    torch.set_num_threads(then["threads"])
    changed = differences(then, surroundings(device))
    if changed:
        console.say(f"WARNING: {'; '.join(changed)}: the run goes on, but not to the same bits")


def open_data(plan: Plan, console: Console) -> Source:
    """The data of a plan, divided. ReinceptionError where nothing is left to train on."""
    config = plan.config
    source = assign_splits(
        open_source(config.data),
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
    )
    num_listed = len(source.records)
    if config.exclude is not None:
        source = source.without(read_exclusions(config.exclude))
    if "train" not in source.splits:
        raise ReinceptionError(f"{config.data}: no images are left to train on; give the train split some")
    counts = ", ".join(f"{split} {len(source.split(split)):,}" for split in source.splits)
    used = f"{len(source.records):,} used of {num_listed:,} listed, " if config.exclude is not None else ""
    console.say(f"{source.name}: {used}{len(source.records):,} images of {len(source.classes)} classes ({counts})")
    return source


def _check(source: Source, plan: Plan, console: Console, ranks: Ranks) -> None:
    """Every image decoded once, each rank its part: a bad one is named now and not in the third hour."""
    require_same(ranks, source.fingerprint)
    mine = source.records[ranks.rank :: ranks.world_size]
    found = check_images(mine, workers=plan.config.workers)
    problems = [
        why for some in ranks.all_gather_objects([f"{bad.name}: {bad.reason}" for bad in found]) for why in some
    ]
    if problems:
        more = f" and {len(problems) - NAMED_PROBLEMS} more" if len(problems) > NAMED_PROBLEMS else ""
        raise ReinceptionError(
            f"{plan.config.data}: {len(problems)} of {len(source.records)} images cannot be used "
            f"({'; '.join(problems[:NAMED_PROBLEMS])}{more}); mend or remove them"
        )
    console.say(f"all {len(source.records):,} images decode")


def fresh_network(plan: Plan) -> Network:
    """The network as the first step finds it: of random weights, or of those the plan starts from."""
    weights, seed = plan.config.weights, plan.config.seed
    return build(plan.arch, seed=seed) if weights is None else start_from(str(weights), plan.arch, seed=seed)


def choose(name: str) -> torch.device:
    """The device a run means by `name`. UsageError where there is none."""
    if name == "auto":
        local = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # as torchrun numbers the processes of one machine
        return torch.device(local) if "LOCAL_RANK" in os.environ and torch.cuda.is_available() else choose_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"--device {name}: no such device here; see `reinception doctor`") from None
    return device
