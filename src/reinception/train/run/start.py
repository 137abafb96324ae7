"""A whole run, begun or resumed: data opened and checked, everything wired together, trained, evaluated, reported."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reinception.data.loading.loader import TrainingStream
from reinception.distributed import Ranks
from reinception.errors import Interrupted, ReinceptionError
from reinception.inference.compute import Compute
from reinception.machine import choose_device
from reinception.report.page import write_report
from reinception.train.ahead import window_of
from reinception.train.budget import Budget, StepBudget, TimeBudget, Turn
from reinception.train.config import AUTO, TrainConfig
from reinception.train.distill import Teacher, TeacherTargets
from reinception.train.loop import Training, fit
from reinception.train.run.checkpoint import FOLDER_NAME, Checkpoint, Checkpointer, Checkpoints, capture, restore
from reinception.train.run.choose_step import with_chosen_step
from reinception.train.run.console import Console
from reinception.train.run.cross_validation import cross_validate, is_cross_validation
from reinception.train.run.fit_head import fit_head
from reinception.train.run.log import BestWeights, RunLogger
from reinception.train.run.metadata import numeric_environment
from reinception.train.run.open_run import FINISHED_NAME, OpenRun, begin, read_plan, reopen, was_begun_by
from reinception.train.run.out_of_memory import DeviceLostError, OutOfMemoryError
from reinception.train.run.plan import Plan, make_plan
from reinception.train.run.run_folder import LAST_NAME
from reinception.train.run.run_lock import RunLock
from reinception.train.run.signals import StopRequest
from reinception.train.run.tensorboard import Scalars
from reinception.train.run.time_plan import plan_time, seconds_per_image
from reinception.train.run.verdict import judge, predict_split
from reinception.train.step import TrainState
from reinception.train.waiting import ImageWait, describe_waiting

__all__ = ["TrainConfig", "resume", "train"]


def train(config: TrainConfig, *, began: float | None = None) -> Path:
    """Trains as `config` says and returns the new run folder.

    What can be known to fail is refused before anything is written: ReinceptionError (UsageError where the request
    makes no sense), one line. Progress goes to the standard error stream. Seeds torch's global generator. Under
    torchrun every rank calls it, and after a restart of theirs it goes on with the run it had begun.

    A time budget holds for the whole call: start, training, validations, judging, report. It is counted from `began`,
    a moment of time.monotonic() (default: now).

    With `config.folds` and no `config.fold` it is a cross-validation: the folder has a run for each fold.
    """
    if config.folds is not None and config.fold is None:
        return cross_validate(config, train=train, resume=resume)
    began = time.monotonic() if began is None else began
    return _run(make_plan(config), is_resumed=False, began=began)


def resume(run: str | Path, **changes: Any) -> Path:
    """Goes on with the interrupted run in the folder `run`, from its newest whole checkpoint, as if nothing had been.

    `changes` are fields of TrainConfig that are RESUMABLE: `workers`; `data`, where the images are now; `epochs` in
    all, for more of them, which plans the rest of the learning rate anew; and for a run that ran out of memory
    `batch_size` and `replicas`, which cut its steps into other batches of the same images: that, it says, changes the
    run. None changes nothing. A run that was interrupted before its first checkpoint begins at its first step. Returns
    the folder; a finished run without more epochs is left as it is. ReinceptionError where there is nothing to resume,
    where another process trains it, or where the images are no longer those it was begun with.
    """
    if is_cross_validation(Path(run)):
        return cross_validate(Path(run), train=train, resume=partial(resume, **changes))
    return _run(read_plan(Path(run)).changed(changes), is_resumed=True, began=time.monotonic())


def _run(plan: Plan, *, is_resumed: bool, began: float) -> Path:
    """The run of `plan` from its beginning or its last checkpoint to its report; returns its folder."""
    out = Path(plan.config.out)
    ranks = Ranks(choose_device(plan.config.device))
    ranks.require_replicas(plan.recipe.replicas)
    with (
        ranks,
        Console(is_silent=not ranks.is_first) as console,
        RunLock(out, console.say) as lock,
        _stoppable(out, console) as stop,
    ):
        if not is_resumed and ranks.restarts and was_begun_by(out, plan.config):
            plan, is_resumed = read_plan(out), True
        if not is_resumed and plan.config.recipe == AUTO:
            plan = _chosen(plan, ranks, console)
        run = (reopen if is_resumed else begin)(plan, ranks, console, stop, lock)
        if run is not None:
            is_solved = plan.config.freeze == "trunk"
            run = run if is_solved else with_chosen_step(run)
            training = wire(run)
            first_step = 0 if run.checkpoint is None else run.checkpoint.step
            if is_solved:
                num_steps = fit_head(run, training, first_step=first_step)
            else:
                _divide_time(run, training, began)
                if first_step == 0:
                    training.checkpointer.save(0)  # from here on there is always something to resume from
                num_steps = fit(training, first_step=first_step)
            _finish(run, training, num_steps)
    return out


def _chosen(plan: Plan, ranks: Ranks, console: Console) -> Plan:
    """The plan with what `recipe suggest` chooses here; the first rank measures, and all take what it has chosen."""
    from reinception.train.run.suggestion import suggest  # here, for it wires runs of its own

    config, answer = plan.config, None
    if ranks.is_first:
        found = suggest(config, keep_weights=True)
        answer = {"changes": found.changes, "line": found.line()}
    told = ranks.all_gather_objects(answer)[0]
    console.say(told["line"])
    return dataclasses.replace(make_plan(dataclasses.replace(config, **told["changes"])), asked=config.command())


@contextmanager
def _stoppable(out: Path, console: Console) -> Iterator[StopRequest]:
    """Signals end the run between two steps; the last message says how to resume it, once there is a run to resume."""

    def how() -> str:
        words = ["reinception", "train", "--resume", str(out)]
        return f"to go on: {shlex.join(words)}" if (out / "config.json").is_file() else ""

    with StopRequest() as stop:
        try:
            yield stop
        except Interrupted as interruption:
            console.stop_bar()
            raise Interrupted(how(), number=interruption.number) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(how()) from None
        except DeviceLostError as error:
            raise DeviceLostError(f"{error}; {how()}") from None
        except OutOfMemoryError as error:
            if not error.flags:
                raise
            raise OutOfMemoryError(f"{error}; {how()} {' '.join(error.flags)}") from None


# -- wiring ------------------------------------------------------------------------------------------------------------


def wire(run: OpenRun) -> Training:
    """All that the loop needs, with the state of the run's checkpoint where there is one."""
    plan, config, checkpoint = run.plan, run.plan.config, run.checkpoint
    stream = _stream(run)
    state = TrainState(
        network=run.network.to(run.ranks.device).to(memory_format=torch.channels_last),
        recipe=plan.recipe,
        ranks=run.ranks,
        preprocessing=plan.preprocessing,
        reduction=config.reduction,
        freeze=config.freeze,
        seed=config.seed,
        dtype=run.dtype,
        teacher=_teacher(run, stream),
        step=config.step,
        frequencies=run.frequencies,
    )
    average, waiting = state.average.network, ImageWait()
    best = BestWeights(average, run.folder, describe=run.describe_model, say=run.console.say)
    logger = RunLogger(
        run.folder,
        run.console,
        images_per_step=plan.images_per_step,
        steps_per_epoch=run.steps_per_epoch,
        best=best,
        waiting=waiting,
        scalars=_scalars(run),
    )
    if checkpoint is not None:
        _restore(checkpoint, state, logger, best)
    budget = _budget(run, 0.0 if checkpoint is None else checkpoint.document["budget_seconds"])
    if checkpoint is not None and (turn := checkpoint.document.get("turn")):
        budget.turn = Turn(**turn)
    return Training(
        state=state,
        stream=stream,
        budget=budget,
        logger=logger,
        best=best,
        checkpointer=_checkpointer(run, state, logger, best, budget),
        stop=run.stop,
        waiting=waiting,
        window=window_of(state),
        predict_validation=partial(predict_split, run, average, "val", run.dtype) if run.records["val"] else None,
        rate_ceiling=plan.rate_ceiling,
        say=run.console.say,
    )


def _restore(checkpoint: Checkpoint, state: TrainState, logger: RunLogger, best: BestWeights) -> None:
    """Puts the checkpoint's tensors and document back. ReinceptionError where another version has written others."""
    try:
        restore(checkpoint.tensors, state.network, state.average, state.optimizer)
        state.average.num_updates = checkpoint.document["num_averaged"]
        logger.resume(checkpoint.document["journal"])
        best.resume(checkpoint.document["kept"])
        best.num_stale = checkpoint.document.get("num_stale", 0)
        if learning := checkpoint.document.get("learning"):  # older runs never unfroze anything
            state.resume_learning(learning["stages"])
            if state.num_learning != learning["parameters"]:
                raise KeyError(f"{learning['parameters']:,} parameters learned, now {state.num_learning:,} would")
        state.scale.resume(checkpoint.document.get("loss_scale", state.scale.to_json()))
    except (KeyError, TypeError) as error:
        raise ReinceptionError(
            f"the checkpoint of step {checkpoint.step} is not one that this version can resume ({error}); finish the "
            "run with the version that began it, or start it anew"
        ) from None


def _stream(run: OpenRun) -> TrainingStream:
    stream = TrainingStream(
        run.records["train"],
        input_size=run.plan.arch.input_size,
        augmentation=run.plan.recipe.augmentation,
        batch_size=run.plan.recipe.batch_size,
        seed=run.plan.config.seed,
        workers=run.plan.config.workers,
        num_classes=run.plan.arch.num_classes,
        views=None if run.plan.config.teacher is None else run.plan.config.teacher_views,
        preprocessing=run.plan.preprocessing,
        is_balanced=run.plan.recipe.balance == "sampling",
    )
    if stream.decodes_each_time:
        run.console.say(
            "--workers: its processes cannot share decoded images here (is /dev/shm writable?): "
            "they decode each one anew in every epoch; --workers 0 keeps them"
        )
    return stream


def _teacher(run: OpenRun, stream: TrainingStream) -> TeacherTargets | None:
    """What the teacher says of every view of the training images, computed or read from the cache."""
    config = run.plan.config
    if config.teacher is None:
        return None
    compute = Compute(device=str(run.ranks.device), precision="auto", workers=config.workers)
    teacher = Teacher(path=config.teacher, classes=run.source.classes, stream=stream, compute=compute)
    answers = teacher.targets(run.ranks, say=run.console.say, check=run.stop.check)
    return TeacherTargets(log_probabilities=answers, weight=config.teacher_weight, temperature=config.temperature)


def _scalars(run: OpenRun) -> Scalars | None:
    if run.folder is None or not run.plan.config.tensorboard:
        return None
    resumed_after = None if run.checkpoint is None else run.checkpoint.step
    return Scalars(run.folder.path, resumed_after=resumed_after, say=run.console.say)


def _budget(run: OpenRun, spent_seconds: float) -> Budget:
    recipe, seconds = run.plan.recipe, run.plan.config.time_budget_seconds
    if seconds is not None:
        batches = len(run.records["val"]) / recipe.batch_size
        return TimeBudget(seconds=seconds, batches_per_validation=batches, spent_seconds=spent_seconds)
    num_steps = max(1, round(recipe.epochs * run.steps_per_epoch))
    return StepBudget(num_steps=num_steps, steps_per_epoch=run.steps_per_epoch)


def _divide_time(run: OpenRun, training: Training, began: float) -> None:
    """Leaves of a time budget what the command needs before and after training. A resumed run keeps its division."""
    budget, total = training.budget, run.plan.config.time_budget_seconds
    if not isinstance(budget, TimeBudget) or total is None:
        return
    if run.checkpoint is not None:
        budget.seconds = run.checkpoint.document.get("training_seconds") or budget.seconds
        return
    network, recipe = training.state.average.network, run.plan.recipe
    num_judged = len(run.records["val"]) + len(run.records["test"])
    cost = seconds_per_image(network, run.plan.preprocessing, batch_size=recipe.batch_size)
    plan = plan_time(
        total,
        start=time.monotonic() - began,
        seconds_per_image=cost,
        num_judged=math.ceil(num_judged / run.ranks.world_size),
    )
    budget.seconds = plan.training
    run.console.say(str(plan))


def _checkpointer(
    run: OpenRun, state: TrainState, logger: RunLogger, best: BestWeights, budget: Budget
) -> Checkpointer:
    def captured(step: int) -> Checkpoint:
        best.save_pending()
        assert run.folder is not None
        document = {  # the names are those of checkpoint.FORMAT 1
            "num_averaged": state.average.num_updates,
            "journal": logger.to_json(),
            "kept": best.to_json(),
            "learning": {"stages": list(state.learning), "parameters": state.num_learning},
            "loss_scale": state.scale.to_json(),
            "budget_seconds": budget.elapsed,
            "training_seconds": budget.seconds if isinstance(budget, TimeBudget) else None,
            "turn": None if budget.turn is None else dataclasses.asdict(budget.turn),
            "num_stale": best.num_stale,
            "folder": run.folder.position(),
            "surroundings": numeric_environment(run.ranks.device),
        }
        tensors = capture(state.network, state.average, state.optimizer)
        return Checkpoint(step=step, tensors=tensors, document=document)

    return Checkpointer(
        None if run.folder is None else Checkpoints(run.folder.path / FOLDER_NAME),
        captured,
        seconds=run.plan.config.checkpoint_seconds,
        num_steps=run.plan.config.checkpoint_steps,
        say=run.console.say,
    )


# -- the end -----------------------------------------------------------------------------------------------------------


def _finish(run: OpenRun, training: Training, num_steps: int) -> None:
    """The last weights, the verdict, the report, and the mark of a finished run."""
    console, config = run.console, run.plan.config
    console.stop_bar()
    console.say(f"trained {num_steps:,} steps in {training.logger.seconds:.0f} s")
    fractions = [fraction for (fraction,) in run.ranks.all_gather_numbers(training.waiting.fraction or 0.0)]
    worst = None if training.waiting.fraction is None else max(fractions)
    console.say(describe_waiting(worst, workers=config.workers, input_size=run.plan.arch.input_size))
    if run.folder is not None:
        training.best.save_pending()
        run.folder.save_model(training.state.average.network, run.describe_model({"step": num_steps}), name=LAST_NAME)
    judge(run, training.best)
    folder = run.folder
    if folder is not None:
        folder.settle()
        write_report(folder.path, None)
        console.say(f"report: {folder.path / 'report.html'}")
        folder.settle()
        if (folder.path / FOLDER_NAME).is_dir():
            folder.write_json(f"{FOLDER_NAME}/{FINISHED_NAME}", {"finished": True})
    run.ranks.barrier()
