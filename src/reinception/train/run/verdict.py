"""How good the network of a run is on its own validation and test images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from reinception import metrics
from reinception.data.sources.records import Record
from reinception.distributed import collect, shard
from reinception.inference.compute import Compute
from reinception.inference.engine import score
from reinception.inference.speed import SPEED_NAME, measure
from reinception.metrics import PredictionTable
from reinception.model.artifact import MODEL_NAME, load
from reinception.model.build import Network, build
from reinception.train.run.fit_head import prediction_table, probabilities_from_cache
from reinception.train.run.log import BestWeights, Score
from reinception.train.run.open_run import OpenRun
from reinception.train.run.run_folder import RunFolder


def judge(run: OpenRun, best: BestWeights) -> None:
    """Evaluates the best network on the validation and test images; writes predictions, speed, metrics and model card.

    In float32, whatever precision trained it: a published error should not depend on the processor.
    """
    network = build(run.plan.arch) if run.folder is None else load(run.folder.path / MODEL_NAME).network
    network = network.to(run.ranks.device).to(memory_format=torch.channels_last)
    run.ranks.broadcast(list(network.state_dict().values()))
    tables = {
        split: predict_split(run, network, split, torch.float32) for split in ("val", "test") if run.records[split]
    }
    if run.folder is None:
        return
    for split, table in tables.items():
        run.folder.save_predictions(split, table)
    (run.folder.path / SPEED_NAME).unlink(missing_ok=True)  # of a verdict that was interrupted
    is_solved = run.plan.config.freeze == "trunk"  # in seconds, of which a batch would take most
    speed = measure(network, run.plan.preprocessing, batch_size=1 if is_solved else run.plan.recipe.batch_size)
    run.folder.write_json(SPEED_NAME, speed)
    if "test" in tables:
        _write_test_metrics(run, run.folder, network, tables["test"], best)


def _write_test_metrics(
    run: OpenRun, folder: RunFolder, network: Network, table: PredictionTable, best: BestWeights
) -> None:
    assert best.step is not None
    held_out = {"num_images": len(table), **dataclasses.asdict(Score.of(table))}
    position = {"step": best.step, "epoch": best.step / run.steps_per_epoch}
    folder.add_metrics({"split": "test", **position, **held_out})
    folder.save_model(network, run.describe_model({**best.to_json(), "held_out": held_out}))
    right, (name, baseline) = metrics.accuracy(table), metrics.majority(table)
    low, high = right.interval()
    run.console.say(
        f"held-out images: {right.percent:.2f} % of {len(table):,} right (95 % interval {low:.1f} to {high:.1f}), "
        f"balanced accuracy {100 * metrics.balanced_accuracy(table):.2f} %; "
        f"always answering {name!r}: {baseline.percent:.1f} %"
    )


def predict_split(run: OpenRun, network: Network, split: str, dtype: torch.dtype) -> PredictionTable:
    """Every record of `split` once, shared among the ranks, on the device of `network`.

    An image that could be read before and cannot now is an error: n must not change.
    """
    records = run.records[split]
    if run.plan.config.freeze == "trunk":
        probabilities = probabilities_from_cache(run, network, records)
    else:
        probabilities = _probabilities(run, network, records, dtype)
    return prediction_table(run, records, probabilities)


def _probabilities(
    run: OpenRun, network: Network, records: Sequence[Record], dtype: torch.dtype
) -> npt.NDArray[np.float32]:
    batch_size = run.plan.recipe.batch_size
    compute = Compute(
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        backend="torch",
        batch_size=batch_size,
        workers=run.plan.config.workers,
        progress=lambda done, total: run.stop.check(),
    )
    own = shard(records, run.ranks, batch_size=batch_size)
    scored = score(network, run.plan.preprocessing, own, compute=compute)
    for bad in scored.bad.values():
        raise bad
    probabilities, _ = collect(scored.probabilities, {}, run.ranks, batch_size=batch_size)
    return probabilities
