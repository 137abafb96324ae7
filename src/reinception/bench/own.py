"""Ours as a contestant, one setting for each backend; and the limit: the convolutions of the network alone."""

from __future__ import annotations

import time
from collections import Counter
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reinception import family, machine
from reinception.bench.contestant import Contestant, Images, LeftOutError, Run, Subject
from reinception.data.loading.evaluation_stream import EvaluationBatch
from reinception.inference.compute import Backend, Compute
from reinception.inference.engine import Engine, evaluating
from reinception.model.artifact import Manifest, Model, load
from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing

NAME = "reinception"
LIMIT_BATCHES = (1, 4, 16)
_REPETITIONS, _SECONDS = 5, 0.3

Convolution = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Input (c, h, w), weight, stride, padding and groups."""


def subject_of(model: str) -> Subject:
    """What the name of a network or the path of a model means. ReinceptionError where it is neither."""
    found = model_of(model)
    arch = found.network.arch
    released = family.network("inception_v3", num_classes=arch.num_classes, input_size=arch.input_size, aux="none")
    is_released = released.stages == arch.stages
    return Subject(model=model, input_size=arch.input_size, num_classes=arch.num_classes, is_released=is_released)


def model_of(model: str) -> Model:
    """A model file, or a network by its name with random weights: they do not change the speed."""
    if model not in family.NETWORKS:
        return load(model, with_aux=False)
    arch = family.network(model, aux="none")
    classes = tuple(f"class {index}" for index in range(arch.num_classes))
    manifest = Manifest(arch=arch, classes=classes, preprocessing=Preprocessing(input_size=arch.input_size))
    return Model(build(arch, seed=0).eval(), manifest)


def settings() -> list[str]:
    """The backends that there are, each a setting."""
    return [name for name in get_args(Backend) if name != "auto"]


def make(contestant: Contestant, subject: Subject) -> Run:
    """Ours, as `predict` computes. LeftOutError where the backend or the precision is not there."""
    network, manifest = model_of(subject.model)
    try:
        how = Compute(precision=contestant.precision, backend=contestant.setting)  # pyrefly: ignore[bad-argument-type]
        engine = Engine(network, manifest.preprocessing, how)
    except Exception as error:
        raise LeftOutError(str(error)) from None

    def run(images: Images, batch_size: int) -> int:
        def batches() -> list[EvaluationBatch]:
            parts = np.split(images, range(batch_size, len(images), batch_size))
            return [
                EvaluationBatch(
                    images=torch.from_numpy(part).permute(0, 3, 1, 2),
                    indices=np.arange(index * batch_size, index * batch_size + len(part)),
                    weights=np.ones(len(part)),
                )
                for index, part in enumerate(parts)
            ]

        return len(list(engine.probabilities(batches(), block=1 if batch_size == 1 else None)))

    return run


def limit(subject: Subject, precision: str) -> tuple[float, int]:
    """Images a second if only the convolutions took time, each at its best batch, and how many there are."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    found = convolutions(model_of(subject.model).network, subject.input_size)
    device = torch.device("cpu")
    seconds = 0.0
    with torch.inference_mode(), machine.autocast(torch.float32, device):
        for one, times in found.items():
            seconds += times * min(_seconds(one, batch, dtype) / batch for batch in LIMIT_BATCHES)
    return 1 / seconds, sum(found.values())


def convolutions(network: Network, side: int) -> Counter[Convolution]:
    """Every convolution of one image and how often it occurs."""
    found: Counter[Convolution] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
        shape = tuple(inputs[0].shape[1:])
        found[shape, tuple(module.weight.shape), module.stride, module.padding, module.groups] += 1

    hooks = [one.register_forward_hook(note) for one in network.modules() if isinstance(one, nn.Conv2d)]
    try:
        with evaluating(network):
            network.features(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _seconds(one: Convolution, batch: int, dtype: torch.dtype) -> float:
    """The shortest of some repetitions."""
    shape, kernel, stride, padding, groups = one
    inputs = torch.rand(batch, *shape).to(dtype).to(memory_format=torch.channels_last)
    weight = torch.rand(kernel).to(dtype).to(memory_format=torch.channels_last)
    best, began = float("inf"), time.perf_counter()
    for number in range(_REPETITIONS):
        start = time.perf_counter()
        F.conv2d(inputs, weight, None, list(stride), list(padding), 1, groups)
        best = min(best, time.perf_counter() - start)
        if number and time.perf_counter() - began > _SECONDS:
            break
    return best
