"""What a GPU has to prove, as functions of a device: each raises AssertionError where it does not hold.

`benchmarks/gpu.py` runs them with torch and this package alone; the tests marked `gpu` are the same functions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from reinception import family
from reinception.data.loading.loader import Batch
from reinception.distributed import Ranks
from reinception.machine import has_bf16
from reinception.model.build import Network, Outputs, build
from reinception.model.layers import module_of
from reinception.model.pooling import AveragePool
from reinception.preprocess import Preprocessing
from reinception.recipe import Recipe, named
from reinception.spec import Pool, trace
from reinception.train.ahead import Snapshot, Taken, records_of
from reinception.train.compiled import through_compiler
from reinception.train.config import StepKind
from reinception.train.fused.walk import fused_outputs
from reinception.train.loss import training_loss
from reinception.train.run.checkpoint import capture, restore
from reinception.train.run.signals import StopRequest
from reinception.train.step import StepRecord, TrainState, accumulate, blind_step, train_step

Check = Callable[[torch.device], None]
SIZE, CLASSES, BATCH = 96, 4, 8
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 inside, which cuDNN uses for convolutions unless it is told not to; afterwards as before."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def close(one: Tensor, other: Tensor, tolerance: float, what: str) -> None:
    """Within `tolerance` of the norm of `other`."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    assert (one - other).norm() <= tolerance * other.norm() + 1e-12, f"{what}: off by {(one - other).norm():.3g}"


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"other bits in {len(different)} of {len(one)} tensors, {different[0]} first"


# -- pools -------------------------------------------------------------------------------------------------------------


def pools() -> list[Pool]:
    """Every different pool of every network of the family."""
    steps = [step for name in family.NETWORKS for step in trace(family.network(name))]
    return list(dict.fromkeys(step.layer for step in steps if isinstance(step.layer, Pool)))


def pooled(module: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Output and input gradient, every place with another gradient from above."""
    images = images.detach().requires_grad_()
    outputs = module(images)
    above = torch.linspace(1, 2, outputs.numel(), device=images.device).reshape(outputs.shape).to(outputs.dtype)
    (gradient,) = torch.autograd.grad(outputs, images, above)
    return outputs.detach(), gradient


def pool_gradients_are_those_of_float64_on_the_processor(device: torch.device) -> None:
    """Every pool of the family, odd and even sizes, both layouts, 32 and 16 bits."""
    for pool in pools():
        module, _ = module_of(pool, 16)
        for size in ((8, 8), (9, 12)):
            images = torch.randn(2, 16, *size, generator=torch.Generator().manual_seed(0))
            right = pooled(module, images.double())
            for dtype in (torch.float32, *([torch.bfloat16, torch.float16] if device.type == "cuda" else [])):
                for layout in LAYOUTS:
                    given = images.to(device, dtype).contiguous(memory_format=layout)
                    exact = right if dtype == torch.float32 else pooled(module, given.cpu().double())
                    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
                    for one, other in zip(pooled(module, given), exact, strict=True):
                        close(one, other, tolerance, f"{pool} {dtype} {layout} {size}")


def a_padded_average_pool_has_the_gradient_worked_out_by_hand(device: torch.device) -> None:
    """Of ones over 4 x 4 pixels: the number of windows a pixel is in, over nine or over those that exist."""
    by_hand = {True: (0.44444, 0.66667, 1.0), False: (0.69444, 0.97222, 1.36111)}
    for counts_border, (corner, edge, inside) in by_hand.items():
        right = torch.tensor([[corner, edge, edge, corner], [edge, inside, inside, edge]])
        right = torch.cat([right, right.flip(0)])
        for layout in LAYOUTS:
            images = torch.zeros(1, 8, 4, 4, device=device).contiguous(memory_format=layout).requires_grad_()
            AveragePool(3, 1, 1, count_include_pad=counts_border)(images).sum().backward()
            assert images.grad is not None
            assert torch.allclose(images.grad[0, 0].cpu(), right, atol=1e-4), f"{layout}: {images.grad[0, 0]}"


def compiled_pool_gradients_are_those_of_float64(device: torch.device) -> None:
    """The same for a compiled step, with a window that hangs over the border in ceil mode beside the family's."""
    if device.type == "cpu" and not shutil.which("g++"):
        return
    overhanging = nn.AvgPool2d(2, 2, 0, ceil_mode=True, count_include_pad=True)
    modules = [*(module_of(pool, 16)[0] for pool in pools()), overhanging]

    def all_pools(images: Tensor) -> Tensor:
        return torch.cat([through_compiler(module, images).flatten() for module in modules])

    for size in ((9, 11), (8, 8)):
        torch.compiler.reset()
        images = torch.randn(2, 16, *size, generator=torch.Generator().manual_seed(0))
        given = images.to(device).contiguous(memory_format=torch.channels_last)
        found = pooled(torch.compile(all_pools, fullgraph=True, dynamic=False), given)
        for one, other in zip(found, pooled(all_pools, images.double()), strict=True):
            close(one, other, 1e-5, f"compiled pools at {size}")


# -- passes ------------------------------------------------------------------------------------------------------------


def network(device: torch.device, *, width: float = 0.25, dtype: torch.dtype = torch.float32) -> Network:
    arch = family.network(
        "inception_v3", width=width, input_size=SIZE, num_classes=CLASSES, aux="adaptive", dropout=0.0
    )
    return build(arch, seed=0).to(device, dtype).to(memory_format=torch.channels_last).train()


def examples(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(BATCH, device=device) % CLASSES


def passes(net: Network, forward: Callable[[Network, Tensor], Outputs]) -> dict[str, Tensor]:
    """Outputs, loss, statistics and gradients of one pass."""
    parameter = next(net.parameters())
    images, labels = examples(parameter.device, parameter.dtype)
    outputs = forward(net, images)
    loss = training_loss(outputs, labels, named("from_scratch")).total
    loss.backward()
    found = {"loss": loss.detach(), "logits": outputs.logits.detach()}
    found |= {name: buffer.clone() for name, buffer in net.named_buffers() if buffer.is_floating_point()}
    return found | {f"gradient {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}


def an_identity_convolution_is_exact(device: torch.device) -> None:
    with exact_float32():
        images = torch.randn(2, 16, 9, 9, device=device)
        weight = torch.eye(16, device=device)[:, :, None, None]
        assert torch.equal(torch.conv2d(images, weight), images)


def forward_loss_and_gradients_are_the_processors(device: torch.device) -> None:
    """In float64, where no rectifier changes sides by rounding."""
    here = passes(network(device, dtype=torch.float64), Network.outputs)
    for name, tensor in passes(network(torch.device("cpu"), dtype=torch.float64), Network.outputs).items():
        close(here[name], tensor, 1e-8, name)


def the_fused_step_is_the_plain_one(device: torch.device) -> None:
    plain = passes(network(device, dtype=torch.float64), Network.outputs)
    fused = passes(network(device, dtype=torch.float64), fused_outputs)
    for name, tensor in plain.items():
        close(fused[name], tensor, 1e-8, name)


def in_16_bits_the_fused_step_is_as_near_to_float32_as_the_plain_one(device: torch.device) -> None:
    if not has_bf16(device):
        return
    exact = passes(network(device), Network.outputs)

    def short(forward: Callable[[Network, Tensor], Outputs]) -> float:
        def run(net: Network, images: Tensor) -> Outputs:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                return forward(net, images)

        found = passes(network(device), run)
        return sum(float((found[name] - exact[name]).square().sum()) for name in exact if "gradient" in name) ** 0.5

    assert short(fused_outputs) <= 1.1 * short(Network.outputs)


def a_pass_without_gradients_in_the_same_autocast_block_takes_none_away(device: torch.device) -> None:
    """Weights cast for a pass without gradients must not be used again for one with them."""
    for forward in (Network.outputs, fused_outputs):

        def run(net: Network, images: Tensor, forward: Callable[[Network, Tensor], Outputs] = forward) -> Outputs:
            net.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                with torch.no_grad():
                    net.eval()
                    net(images)
                    net.train()
                return forward(net, images)

        net = network(device)
        missing = {name for name, _ in net.named_parameters()} - {
            name.removeprefix("gradient ") for name in passes(net, run) if name.startswith("gradient")
        }
        assert not missing, sorted(missing)[0]


# -- steps -------------------------------------------------------------------------------------------------------------


def recipe(replicas: int = 1) -> Recipe:
    changed = named("from_scratch").changed("batch_size", BATCH, source="check")
    return changed.changed("replicas", replicas, source="check")


def state_of(
    device: torch.device, *, step: StepKind = "plain", dtype: torch.dtype = torch.float32, replicas: int = 1
) -> TrainState:
    return TrainState(
        network=network(device, width=0.1),
        recipe=recipe(replicas),
        ranks=Ranks(device),
        preprocessing=Preprocessing(input_size=SIZE),
        dtype=dtype,
        step=step,
    )


def batch_of(number: int, device: torch.device) -> Batch:
    size = (BATCH, SIZE, SIZE, 3)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
    order = torch.arange(BATCH)
    images, targets = pixels.permute(0, 3, 1, 2).to(device), (order % CLASSES).to(device)
    return Batch(images=images, targets=targets, indices=order, epochs=order * 0, epoch=0, step=number)


def taken(state: TrainState, steps: range) -> list[StepRecord]:
    share = state.recipe.replicas
    return [
        train_step(
            state,
            [batch_of(step * share + replica, state.ranks.device) for replica in state.shard],
            learning_rate=1e-3,
            step=step,
            stop=StopRequest(),
        )
        for step in steps
    ]


def tensors(state: TrainState) -> dict[str, Tensor]:
    live = capture(state.network, state.average, state.optimizer)
    return {name: tensor.detach().cpu().clone() for name, tensor in live.items()}


def twenty_steps_go_as_on_the_processor(device: torch.device) -> None:
    with exact_float32():
        here, there = (taken(state_of(one), range(20)) for one in (device, torch.device("cpu")))
    assert abs(here[0].loss - there[0].loss) <= 1e-4 * there[0].loss
    gaps = [abs(one.loss - other.loss) / other.loss for one, other in zip(here, there, strict=True)]
    assert max(gaps) <= 0.05, f"losses part by {100 * max(gaps):.1f} %"


def two_runs_have_the_same_bits(device: torch.device) -> None:
    kinds: tuple[StepKind, ...] = ("plain", "fused")
    for kind in kinds:
        dtype = torch.bfloat16 if has_bf16(device) else torch.float32
        states = [state_of(device, step=kind, dtype=dtype) for _ in range(2)]
        for state in states:
            taken(state, range(5))
        same(tensors(states[0]), tensors(states[1]))


def a_resumed_run_has_the_bits_of_one_that_never_stopped(device: torch.device) -> None:
    whole, first, second = state_of(device), state_of(device), state_of(device)
    taken(whole, range(6))
    taken(first, range(3))
    restore(tensors(first), second.network, second.average, second.optimizer)
    second.average.num_updates = first.average.num_updates
    taken(second, range(3, 6))
    same(tensors(whole), tensors(second))


def replicas_together_are_replicas_one_at_a_time(device: torch.device) -> None:
    """The exact sum has the same bits in any order."""
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        state = state_of(device, replicas=3)
        state.reducer.begin()
        for replica in order:
            images, labels = examples(device, torch.float32)
            with state.reducer.replica(is_last=replica == order[-1]):
                loss = training_loss(state.reducer.forward(images + replica), labels, state.recipe).total
                state.reducer.backward(loss)
        state.reducer.finish()
        grads = {name: p.grad.cpu() for name, p in state.network.named_parameters() if p.grad is not None}
        found.append(grads)
    same(found[0], found[1])


def steps_taken_ahead_are_steps_taken_one_by_one(device: torch.device) -> None:
    """Numbers read late are those of their own steps; a window that is taken back leaves no trace."""
    one, ahead = state_of(device), state_of(device)
    taken(ahead, range(1))
    records = taken(one, range(6))
    snapshot = Snapshot(ahead)
    for is_kept in (False, True):
        snapshot.take()
        window = []
        for step in range(1, 6):
            batches = [batch_of(step, device)]
            numbers = blind_step(ahead, batches, learning_rate=1e-3, step=step, stop=StopRequest())
            window.append(Taken(progress=0.0, learning_rate=1e-3, batches=batches, numbers=numbers))
        late = records_of(ahead, window)
        if not is_kept:
            snapshot.restore()
    assert late == records[1:]
    same(tensors(one), tensors(ahead))


def a_step_taken_ahead_never_waits_for_the_device(device: torch.device) -> None:
    """torch itself raises where one does."""
    if device.type != "cuda":
        return
    kinds: tuple[StepKind, ...] = ("plain", "fused")
    for kind in kinds:
        state = state_of(device, step=kind, dtype=torch.bfloat16)
        batches = [batch_of(number, device) for number in range(3)]
        for number, batch in enumerate(batches):
            with _no_waiting() if number == 2 else nullcontext():
                blind_step(state, [batch], learning_rate=1e-3, step=number, stop=StopRequest())


@contextmanager
def _no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def a_compiled_step_is_the_plain_one(device: torch.device) -> None:
    """In float32, to what other sums make of it; compiled once for one shape."""
    if device.type == "cpu":
        return  # minutes there; tests/train/test_compiled.py has a smaller network
    torch.compiler.reset()
    with exact_float32():
        plain, compiled = state_of(device), state_of(device, step="compiled")
        rows = [accumulate(state, [batch_of(0, device)], step=0, stop=StopRequest()) for state in (plain, compiled)]
    close(rows[1], rows[0], 1e-3, "losses and statistics")


CHECKS: tuple[Check, ...] = (
    a_padded_average_pool_has_the_gradient_worked_out_by_hand,
    pool_gradients_are_those_of_float64_on_the_processor,
    compiled_pool_gradients_are_those_of_float64,
    an_identity_convolution_is_exact,
    forward_loss_and_gradients_are_the_processors,
    the_fused_step_is_the_plain_one,
    in_16_bits_the_fused_step_is_as_near_to_float32_as_the_plain_one,
    a_pass_without_gradients_in_the_same_autocast_block_takes_none_away,
    twenty_steps_go_as_on_the_processor,
    two_runs_have_the_same_bits,
    a_resumed_run_has_the_bits_of_one_that_never_stopped,
    replicas_together_are_replicas_one_at_a_time,
    steps_taken_ahead_are_steps_taken_one_by_one,
    a_step_taken_ahead_never_waits_for_the_device,
    a_compiled_step_is_the_plain_one,
)
