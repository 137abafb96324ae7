"""Runs with another step than the plain one: killed and resumed, on several ranks, chosen by measuring."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from cells import class_folders

from processes import ends, start, start_ranks
from reinception.distributed import Ranks
from reinception.errors import UsageError
from reinception.train.config import StepKind, TrainConfig
from reinception.train.forward import forward_of, require_compiler
from reinception.train.run.checkpoint import Checkpoints
from reinception.train.run.choose_step import MEASURED, StepChoice, measure
from reinception.train.run.console import Console
from reinception.train.run.open_run import OpenRun, open_data
from reinception.train.run.plan import make_plan
from reinception.train.run.signals import StopRequest
from tensors import fingerprint

SMALL = (
    *("--epochs", 3, "--batch-size", 2, "--replicas", 3, "--width", 0.1, "--input-size", 75, "--precision", "fp32"),
    *("--checkpoint-steps", 1, "--test-fraction", 0.4, "--val-fraction", 0.2),
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders with real solar cells."""
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=15)


def trained(cells: Path, run: Path, *flags: object, world: int = 1) -> Path:
    log = run.with_name(f"{run.name}.log")
    codes = ends(*start_ranks(["train", cells, "-o", run, *SMALL, *flags], log, world=world))
    assert codes == [0] * world, log.with_name(f"{log.name}.0").read_text()[-2000:]
    return run


@pytest.fixture(scope="module")
def fused(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused run in one process that nothing happens to."""
    return trained(cells, tmp_path_factory.mktemp("fused") / "run", "--step", "fused")


def sha256(run: Path) -> str:
    """Of the last checkpoint's tensors: weights, batch-norm buffers, optimizer and average."""
    return hashlib.sha256(max((run / "state").glob("step-*.safetensors")).read_bytes()).hexdigest()


def test_a_fused_step_of_three_replicas_is_one_sha256_on_one_and_on_three_processes(
    cells: Path, fused: Path, tmp_path: Path
) -> None:
    assert json.loads((fused / "config.json").read_text())["step"] == "fused"
    assert sha256(trained(cells, tmp_path / "run", "--step", "fused", world=3)) == sha256(fused)


def test_a_fused_run_that_is_killed_goes_on_to_the_same_bits(cells: Path, fused: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(["train", cells, "-o", run, *SMALL, "--step", "fused"], tmp_path / "log")
    while max(Checkpoints(run / "state").steps(), default=-1) < 1:
        assert process.is_alive()
    process.kill()
    ends(process)
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [0]
    assert sha256(run) == sha256(fused)


def test_fused_steps_are_reduced_by_torch_too(cells: Path, tmp_path: Path) -> None:
    flags = ("--step", "fused", "--replicas", 2, "--reduction", "fast", "--epochs", 1)
    run = trained(cells, tmp_path / "run", *flags, world=2)
    assert (run / "model.safetensors").is_file()


# -- auto --------------------------------------------------------------------------------------------------------------


def test_auto_stores_its_choice_which_a_resumed_run_goes_by(cells: Path, tmp_path: Path) -> None:
    run = trained(cells, tmp_path / "run", "--step", "auto", "--epochs", 1)
    document = json.loads((run / "config.json").read_text())
    choice = StepChoice(kind=document["step"], seconds=document["step_choice"]["seconds"])
    assert set(choice.seconds) == {"plain", "fused"}
    assert choice.kind == StepChoice.of(choice.seconds).kind
    assert str(choice) in (run / "log.txt").read_text()
    (run / "state" / "finished.json").unlink()
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [0]
    assert f"medians of {MEASURED} steps" not in (tmp_path / "log").read_text()


def test_a_run_whose_step_was_chosen_has_the_bits_of_one_that_was_told(cells: Path, tmp_path: Path) -> None:
    run = trained(cells, tmp_path / "auto", "--step", "auto", "--epochs", 1)
    kind = json.loads((run / "config.json").read_text())["step"]
    assert sha256(run) == sha256(trained(cells, tmp_path / "told", "--step", kind, "--epochs", 1))


def test_measuring_changes_nothing(cells: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=cells, out=tmp_path / "run", width=0.1, input_size=75, batch_size=4, precision="fp32")
    plan, console, ranks = make_plan(config), Console(is_silent=True), Ranks(torch.device("cpu"))
    network = plan.network()
    source = open_data(plan, console)
    run = OpenRun(plan=plan, source=source, network=network, ranks=ranks, console=console, stop=StopRequest())
    torch.manual_seed(5)
    before = fingerprint(network.state_dict() | {"random": torch.get_rng_state()})
    seconds = measure(run, ("plain", "fused"))
    assert min(seconds.values()) > 0
    assert fingerprint(network.state_dict() | {"random": torch.get_rng_state()}) == before
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [
        ({"plain": 1.0, "fused": 0.98}, "plain"),
        ({"plain": 1.0, "fused": 0.9}, "fused"),
        ({"plain": 1.0, "fused": 0.9, "compiled": 0.5}, "compiled"),
        ({"plain": 1.0, "fused": 1.5}, "plain"),
    ],
)
def test_what_is_hardly_faster_than_the_plain_step_is_not_chosen(seconds: dict[StepKind, float], kind: str) -> None:
    choice = StepChoice.of(seconds)
    assert choice.kind == kind
    assert choice.gain == seconds["plain"] / seconds[choice.kind]


def test_without_a_compiler_a_compiled_step_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        UsageError, match=r"--step compiled: no C\+\+ compiler here; install g\+\+, or use --step fused"
    ):
        require_compiler(torch.device("cpu"))
    with pytest.raises(UsageError, match="--step compiled: not on mps"):
        require_compiler(torch.device("mps"))


def test_auto_is_no_step_of_its_own() -> None:
    with pytest.raises(ValueError, match="auto is resolved"):
        forward_of("auto", torch.nn.Module())  # pyrefly: ignore[bad-argument-type]
