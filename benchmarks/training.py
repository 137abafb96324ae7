"""One training step of the full network beside torchvision's and timm's, its peak memory, its limit and its profile.

A step is forward, loss with auxiliary classifier, backward and TensorFlow's RMSProp. Every round times each contestant
once, in turn. The limit is the convolutions of the step, forward and backward, each timed by itself. Memory is taken in
a process of its own for each contestant: the most that torch's allocator held, parameters and optimizer included, and
the most the process held.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reinception.cli.table import aligned
from reinception.data.loading.loader import Batch
from reinception.distributed import Ranks
from reinception.family import network
from reinception.machine import autocast, choose_device, examine, has_bf16, keep_freed_memory, num_processors
from reinception.model.build import build
from reinception.preprocess import Preprocessing
from reinception.recipe import named
from reinception.train.config import StepKind
from reinception.train.optim import make_optimizer
from reinception.train.run.signals import StopRequest
from reinception.train.step import TrainState, train_step

SIZE, CLASSES = 299, 1000
UNTIMED = 2
AUXILIARY_WEIGHT = 0.4
Step = Callable[[], object]

KINDS = {
    "convolution": ("convolution", "mkldnn_conv", "cudnn_conv", "addmm"),
    "batch norm": ("batch_norm",),
    "ReLU": ("relu", "threshold"),
    "pools": ("pool",),
    "concatenation and copies": ("cat", "copy_", "_to_copy", "clone", "contiguous"),
    "sums of gradients": ("aten::add",),
    "optimizer and average": ("_foreach", "addcdiv", "addcmul", "lerp", "sqrt"),
}


# -- contestants -------------------------------------------------------------------------------------------------------


def ours(kind: StepKind, dtype: torch.dtype, batch_size: int, device: torch.device) -> Step:
    """A step of this package, with its clipping and its parameter average, which the others do not have."""
    recipe = named("paper_2015").changed("batch_size", batch_size, source="benchmark")
    recipe = recipe.changed("replicas", 1, source="benchmark")
    state = TrainState(
        network=build(network("inception_v3"), seed=0).to(device).to(memory_format=torch.channels_last),
        recipe=recipe,
        ranks=Ranks(device),
        preprocessing=Preprocessing(),
        dtype=dtype,
        step=kind,
    )
    images = torch.randint(0, 256, (batch_size, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    order = torch.arange(batch_size)
    batch, stop = Batch(images=images, targets=order, indices=order, epochs=order * 0, epoch=0, step=0), StopRequest()
    return lambda: train_step(state, [batch], learning_rate=1e-4, step=0, stop=stop)


def peer(  # noqa: PLR0917
    library: str,
    dtype: torch.dtype,
    batch_size: int,
    device: torch.device,
    layout: torch.memory_format,
    mode: str | None = None,
) -> Step:
    """The same with another library's network and the loop its users write, compiled where a `mode` is given."""
    if library == "timm":
        import timm

        module: nn.Module = timm.create_model("inception_v3", pretrained=False, aux_logits=True)
    else:
        import torchvision

        module = torchvision.models.inception_v3(weights=None, aux_logits=True, init_weights=False)
    module = module.to(device).to(memory_format=layout).train()  # pyrefly: ignore[no-matching-overload]
    optimizer = make_optimizer(module, named("paper_2015").optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    call = module if mode is None else torch.compile(module, mode=mode)
    images = torch.rand(batch_size, 3, SIZE, SIZE, device=device).contiguous(memory_format=layout)
    labels = torch.arange(batch_size, device=device) % CLASSES
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(dtype, device):
            logits, auxiliary = call(images)
        loss = loss_of(logits.float(), labels) + AUXILIARY_WEIGHT * loss_of(auxiliary.float(), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def contestants(device: torch.device, batch_size: int, *, compiled: bool) -> dict[str, Callable[[], Step]]:
    """Every contestant by name, not yet made."""
    best = torch.bfloat16 if has_bf16(device) else torch.float32
    short = "bf16" if best == torch.bfloat16 else "fp32"
    last, first = torch.channels_last, torch.contiguous_format
    found: dict[str, Callable[[], Step]] = {
        "torchvision fp32, default": lambda: peer("torchvision", torch.float32, batch_size, device, first),
        f"torchvision {short}, channels last": lambda: peer("torchvision", best, batch_size, device, last),
        f"timm {short}, channels last": lambda: peer("timm", best, batch_size, device, last),
        f"plain {short}": lambda: ours("plain", best, batch_size, device),
        f"fused {short}": lambda: ours("fused", best, batch_size, device),
        "plain fp32": lambda: ours("plain", torch.float32, batch_size, device),
        "fused fp32": lambda: ours("fused", torch.float32, batch_size, device),
    }
    if compiled:
        found[f"compiled {short}"] = lambda: ours("compiled", best, batch_size, device)
    return found


# -- what is measured --------------------------------------------------------------------------------------------------


def interleaved(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round, after UNTIMED rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(UNTIMED + rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if number >= UNTIMED:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def allocated(run: Callable[[], object]) -> int:
    """The most bytes that torch's allocator held during `run`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    held = highest = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()  # pyrefly: ignore[missing-attribute]
            highest = max(highest, held)
    return highest


def memory(name: str, batch_size: int) -> dict[str, float]:
    """GiB of a contestant, in this process, which has had no other: its network, its optimizer and two steps.

    What the allocator held at its highest, and what the process held.
    """
    make = contestants(choose_device("cpu"), batch_size, compiled=False)[name]

    def two_steps() -> None:  # the optimizer makes its own tensors in the first
        step = make()
        step()
        step()

    most = allocated(two_steps)
    resident = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return {"step": most / 2**30, "process": resident / 2**30}


def in_processes(batch_size: int, names: list[str]) -> dict[str, dict[str, float]]:
    found = {}
    for name in names:
        words = [sys.executable, str(Path(__file__)), "--batch-sizes", str(batch_size), "--memory-of", name]
        found[name] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


def convolutions(dtype: torch.dtype, batch_size: int) -> Iterator[tuple[nn.Conv2d, torch.Size]]:
    """Every convolution of the network with the shape it reads."""
    arch = network("inception_v3")
    net = build(arch, seed=0).to(memory_format=torch.channels_last).train()
    seen: list[tuple[nn.Conv2d, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, _: seen.append((module, inputs[0].shape)))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        net.outputs(torch.zeros(2, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last))
    for hook in hooks:  # or timing a convolution would add to the list that is gone through
        hook.remove()
    for module, shape in seen:
        yield module.to(dtype), torch.Size((batch_size, *shape[1:]))


def limit(dtype: torch.dtype, batch_size: int, rounds: int) -> float:
    """Seconds of all convolutions of a step alone, forward and backward: the sum of each one's median."""
    total = 0.0
    for number, (conv, shape) in enumerate(convolutions(dtype, batch_size)):
        images = torch.rand(shape).to(dtype).contiguous(memory_format=torch.channels_last)
        images.requires_grad_(number > 0)  # nobody asks for the gradient of the pixels
        gradient = torch.rand_like(conv(images))

        def run(conv: nn.Conv2d = conv, images: Tensor = images, gradient: Tensor = gradient) -> None:
            conv(images).backward(gradient)
            conv.zero_grad()
            images.grad = None

        total += statistics.median(interleaved({"one": run}, rounds)["one"])
    return total


def profiled(step: Step) -> dict[str, float]:
    """Seconds of a step by what they went to; only the time of operators themselves, not of what they call."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    seconds: defaultdict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        name = event.key
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "the rest")
        seconds[kind] += event.self_cpu_time_total / 1e6
    return dict(seconds)


# -- the tables --------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32], help="(default: 16 and 32)")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too: three minutes more")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.memory_of:
        print(json.dumps(memory(arguments.memory_of, arguments.batch_sizes[0])))
        return
    device = choose_device("cpu")
    facts = examine()
    print(f"{facts['processor']['model']}, {num_processors()} processors; torch {facts['versions']['torch']}")
    print(f"inception_v3 at {SIZE} with auxiliary classifier; n = {arguments.rounds} interleaved rounds")
    result = {}
    for batch_size in arguments.batch_sizes:
        made = contestants(device, batch_size, compiled=arguments.compiled)
        held = in_processes(batch_size, [name for name in made if "compiled" not in name])
        steps = {name: make() for name, make in made.items()}
        seconds = interleaved(steps, arguments.rounds)
        best = torch.bfloat16 if has_bf16(device) else torch.float32
        alone = limit(best, batch_size, arguments.rounds)
        profiles = {name: profiled(step) for name, step in steps.items() if name.startswith(("plain", "fused"))}
        show(batch_size, seconds, held, alone, profiles)
        result[batch_size] = {"seconds": seconds, "memory_gib": held, "convolutions": alone, "profile": profiles}
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, "batches": result}, indent=1), encoding="utf-8")


def show(
    batch_size: int,
    seconds: dict[str, list[float]],
    held: dict[str, dict[str, float]],
    alone: float,
    profiles: dict[str, dict[str, float]],
) -> None:
    rows: list[tuple[Any, ...]] = []
    for name, each in seconds.items():
        rates = [batch_size / one for one in each]
        bytes_ = held.get(name)
        rows.append((
            name, f"{statistics.median(rates):.2f}", f"{min(rates):.2f} to {max(rates):.2f}",
            *(("", "") if bytes_ is None else (f"{bytes_['step']:.2f}", f"{bytes_['process']:.2f}")),
        ))  # fmt: skip
    print(f"\nbatch {batch_size}; the convolutions alone: {alone:.2f} s, {batch_size / alone:.2f} images/s\n")
    columns = ("STEP", "IMAGES/S", "RANGE", "GiB, TENSORS", "GiB, PROCESS")
    print(aligned(columns, rows, right=(1, 3, 4)))
    kinds = [*KINDS, "the rest"]
    table = [(kind, *(f"{1000 * profile.get(kind, 0):.0f}" for profile in profiles.values())) for kind in kinds]
    print("\nmilliseconds of one step by operator")
    print(aligned(("OPERATORS", *(name.upper() for name in profiles)), table, right=range(1, len(profiles) + 1)))


if __name__ == "__main__":
    main()
