"""What people met on GPUs in other tools, as far as a processor shows it: averages, scaling, layouts, lost devices."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from cells import class_folders
from gpu_checks import batch_of, close, examples, network, state_of, taken, tensors
from torch import Tensor, nn

from processes import ends, start
from reinception.data.images.random_stream import RandomStream
from reinception.errors import UsageError
from reinception.machine import refuse_too_old, training_precision
from reinception.model.build import Network, Outputs
from reinception.model.layers import ConvNorm
from reinception.recipe import Averaging, named
from reinception.spec import BatchNorm, Conv
from reinception.train.ahead import Snapshot, window_of
from reinception.train.fused.kept_tensors import KeptTensor
from reinception.train.fused.units import SideBySide
from reinception.train.fused.walk import first_unit, fused_outputs
from reinception.train.loop import Training
from reinception.train.loss import training_loss
from reinception.train.loss_scale import FIRST, GROWS_AFTER, LossScale
from reinception.train.optim import ParameterAverage
from reinception.train.run.open_run import OpenRun
from reinception.train.run.out_of_memory import is_device_lost
from reinception.train.run.step_memory import StepMemory, halved
from tensors import fingerprint

CPU = torch.device("cpu")
FORWARDS: list[Callable[[Network, Tensor], Outputs]] = [Network.outputs, fused_outputs]

pytestmark = pytest.mark.usefixtures("one_thread")


# -- averages and statistics -------------------------------------------------------------------------------------------


def test_an_average_moves_by_a_ten_thousandth_a_step_and_does_not_stand_still() -> None:
    live = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        live.weight.fill_(1.0)
        average = ParameterAverage(live, Averaging(decay=0.9999, warm_up=False))
        live.weight.fill_(1.01)
    for _ in range(100):
        average.update()
    moved = float(average.network.weight.detach()) - 1
    right = 0.01 * (1 - 0.9999**100)
    assert math.isclose(moved, right, rel_tol=0.05)


def test_a_batch_of_two_numbers_has_the_biased_variance_in_its_output_and_the_unbiased_one_in_the_buffer() -> None:
    layer = ConvNorm(Conv(channels=1, batch_norm=BatchNorm(), activation="linear"), 1)
    assert isinstance(layer.bn, nn.BatchNorm2d)
    with torch.no_grad():
        layer.conv.weight.fill_(1.0)
    images = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1)
    head, _ = first_unit([layer], images)
    assert head is not None
    (out,) = SideBySide.apply(images, KeptTensor(images), [head], *head.parameters)
    torch.testing.assert_close(out.detach().flatten(), torch.tensor([-1.0, 1.0]), rtol=0, atol=1e-3)
    assert math.isclose(float(layer.bn.get_buffer("running_var")), 0.9 * 1 + 0.1 * 2, rel_tol=1e-6)


def test_a_validation_between_two_steps_changes_neither() -> None:
    """The average and the raw weights are judged in one process, and what follows is as if they had not been."""
    images, _ = examples(CPU, torch.float32)
    plain, judged = state_of(CPU, dtype=torch.bfloat16), state_of(CPU, dtype=torch.bfloat16)
    taken(plain, range(3))
    found = []
    for step in range(3):
        for net in (judged.network, judged.average.network, judged.network):
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                found.append(net.eval()(images).float().clone())
        assert torch.equal(found[-1], found[-3])
        taken(judged, range(step, step + 1))
    assert fingerprint(tensors(plain)) == fingerprint(tensors(judged))


# -- layouts and passes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", FORWARDS, ids=["plain", "fused"])
def test_both_memory_layouts_have_one_gradient(forward: Callable[[Network, Tensor], Outputs]) -> None:
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        net = network(CPU, width=0.1, dtype=torch.float64).to(memory_format=layout)
        images, labels = examples(CPU, torch.float64)
        outputs = forward(net, images.contiguous(memory_format=layout))
        training_loss(outputs, labels, named("from_scratch")).total.backward()
        found.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        close(found[1][name], gradient, 1e-8, name)


def test_two_forward_passes_before_one_backward_pass_are_two_passes() -> None:
    grads = []
    for forward in FORWARDS:
        net = network(CPU, width=0.1, dtype=torch.float64)
        images, labels = examples(CPU, torch.float64)
        losses = [
            training_loss(forward(net, views), labels, named("from_scratch")).total
            for views in (images, images.flip(3).contiguous(memory_format=torch.channels_last))
        ]
        torch.stack(losses).sum().backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    for name, gradient in grads[0].items():
        close(grads[1][name], gradient, 1e-8, name)


def test_a_fused_pass_cannot_be_differentiated_twice_and_says_so() -> None:
    net = network(CPU, width=0.1)
    images, _ = examples(CPU, torch.float32)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(fused_outputs(net, images).logits.sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# -- half precision ----------------------------------------------------------------------------------------------------


def test_a_step_that_overflows_changes_nothing_but_the_factor_on_the_loss() -> None:
    state = state_of(CPU)
    state.scale = LossScale(is_used=True)
    taken(state, range(1))
    before, num = fingerprint(tensors(state)), state.average.num_updates
    assert state.scale.to_json() == {"factor": FIRST, "num_finite": 1}
    state.scale.factor = 2.0**127  # the loss is finite in float32, its gradients are not
    (record,) = taken(state, range(1, 2))
    assert record.skipped
    assert fingerprint(tensors(state)) == before
    assert state.average.num_updates == num
    assert state.scale.to_json() == {"factor": 2.0**126, "num_finite": 0}


def test_a_factor_that_is_a_power_of_two_changes_no_bit() -> None:
    plain, scaled = state_of(CPU), state_of(CPU)
    scaled.scale = LossScale(is_used=True)
    assert [one.loss for one in taken(plain, range(3))] == [one.loss for one in taken(scaled, range(3))]
    assert fingerprint(tensors(plain)) == fingerprint(tensors(scaled))


def test_the_factor_grows_again_and_survives_a_resume() -> None:
    scale, resumed = LossScale(is_used=True), LossScale(is_used=True)
    for _ in range(GROWS_AFTER - 1):
        scale.update(is_finite=True)
    resumed.resume(scale.to_json())
    resumed.update(is_finite=True)
    assert resumed.to_json() == {"factor": 2 * FIRST, "num_finite": 0}
    unused = LossScale(is_used=False)
    unused.update(is_finite=False)
    assert unused.factor == 1.0


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(UsageError, match="fp16: cpu trains in fp32 or bf16"):
        training_precision("fp16", CPU)


# -- steps ahead -------------------------------------------------------------------------------------------------------


def test_on_a_processor_every_step_is_looked_at() -> None:
    assert window_of(state_of(CPU)) == 1


def test_a_window_can_only_be_taken_back_after_the_optimizer_has_made_its_tensors() -> None:
    state = state_of(CPU)
    assert not Snapshot(state).is_possible
    taken(state, range(1))
    assert Snapshot(state).is_possible


def wired(*, window: int, spoilt: int | None = None, lost_at: int | None = None) -> None:
    """Makes a run take windows of steps; the batch of step `spoilt` becomes NaN before the first layer, and at the
    `lost_at`-th forward pass the device is gone: what nature does, at the outer edge."""
    from reinception.train.run import start as module

    wire, calls = module.wire, 0

    def changed(run: OpenRun) -> Training:
        training = dataclasses.replace(wire(run), window=window)
        # The step that a batch belongs to, whenever it is computed, is known by the seed that dropout was given.
        seed = RandomStream("dropout", run.plan.config.seed, spoilt or 0, 0).integer(2**32)

        def spoil(module: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
            nonlocal calls
            if not module.training:
                return None
            calls += 1
            if calls == lost_at:
                raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported late")
            return inputs[0] * float("nan") if spoilt is not None and torch.initial_seed() == seed else None

        training.state.network.get_submodule("stem.0").register_forward_pre_hook(spoil)
        return training

    module.wire = changed


SMALL = (
    *("--epochs", 2, "--batch-size", 4, "--width", 0.1, "--input-size", 75, "--precision", "fp32"),
    *("--checkpoint-steps", 5, "--test-fraction", 0.3, "--val-fraction", 0.2),
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=24)


@pytest.mark.parametrize("spoilt", [None, 4])
def test_a_run_in_windows_has_the_bits_and_the_log_of_a_run_step_by_step(
    cells: Path, tmp_path: Path, spoilt: int | None
) -> None:
    found = []
    for before in (partial(wired, window=window, spoilt=spoilt) for window in (3, 1)):
        run = tmp_path / str(len(found))
        assert ends(start(["train", cells, "-o", run, *SMALL], tmp_path / "log", before=before)) == [0]
        last = max((run / "state").glob("step-*.safetensors"))
        found.append((last.name, last.read_bytes(), metrics(run)))
    assert found[0] == found[1]


def metrics(run: Path) -> list[dict[str, object]]:
    """The lines of the log without what a clock says."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key in ("step", "loss", "gradient_norm")} for line in lines]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_the_largest_batch_is_what_nine_tenths_of_the_free_memory_hold() -> None:
    memory = StepMemory(peak=3 << 30, per_image=float(10 << 20), free=1 << 30)
    assert memory.largest_batch(16) == 16 + 92
    assert memory.in_words(16).endswith("; 10.0 MiB an image, so that a batch of about 108 fits here")
    unknown = StepMemory(peak=3 << 30, per_image=None, free=1 << 30)
    assert unknown.largest_batch(16) is None
    assert unknown.in_words(16) == "3.00 GiB at its highest in these steps, this whole process"


def test_half_a_batch_has_half_of_everything() -> None:
    halves = halved([batch_of(0, CPU)])
    assert halves is not None
    (half,) = halves
    whole = batch_of(0, CPU)
    assert torch.equal(half.images, whole.images[:4]) and torch.equal(half.targets, whole.targets[:4])
    assert halved([dataclasses.replace(whole, images=whole.images[:3])]) is None


# -- devices -----------------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_lost_ends_the_run_in_one_line_that_says_how_it_goes_on(cells: Path, tmp_path: Path) -> None:
    run, before = tmp_path / "run", partial(wired, window=1, lost_at=6)
    assert ends(start(["train", cells, "-o", run, *SMALL], tmp_path / "log", before=before)) == [1]
    assert (tmp_path / "log").read_text().splitlines()[-1] == (
        "reinception: cpu is lost (CUDA error: unspecified launch failure); the last checkpoint is whole; "
        f"to go on: reinception train --resume {run}"
    )
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [0]


@pytest.mark.parametrize(
    ("said", "is_lost"),
    [
        ("CUDA error: unspecified launch failure", True),
        ("CUDA error: an illegal memory access was encountered", True),
        ("CUDA error: invalid argument", False),
        ("shapes cannot be multiplied", False),
    ],
)
def test_a_lost_device_is_told_from_a_wrong_call(said: str, is_lost: bool) -> None:
    assert is_device_lost(RuntimeError(said)) == is_lost


def test_a_gpu_that_torch_has_no_code_for_is_refused_in_one_line() -> None:
    for capability, built_for in (((8, 6), ["sm_80"]), ((12, 0), ["sm_80", "compute_90"]), ((7, 0), [])):
        refuse_too_old("a GPU", capability, built_for)
    with pytest.raises(UsageError, match=r"K80 \(compute capability 3.7\): this torch has code for sm_50, sm_80 only"):
        refuse_too_old("K80", (3, 7), ["sm_50", "sm_80"])
    with pytest.raises(UsageError, match=r"compute capability 9\.0"):
        refuse_too_old("H100", (9, 0), ["sm_80"])
