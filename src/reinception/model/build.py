"""Build the torch network of an architecture: one return type, parameters named by the spec, endpoints by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reinception.errors import UsageError
from reinception.model.init import initialise_conv, initialise_linear
from reinception.model.layers import ConvNorm, check_name, module_of
from reinception.spec import Arch, Aux, SpecError, endpoints, minimum_input_size, trace

Through = Callable[[nn.Module, Tensor], Tensor]
"""Computes the output of a module of a network for its input (n, c, h, w)."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The outputs for training: `logits` (n, classes), and each auxiliary classifier's (n, classes), earliest first."""

    logits: Tensor
    auxiliaries: tuple[Tensor, ...]

    @property
    def auxiliary(self) -> Tensor | None:
        """The logits of the last auxiliary classifier (Inception-v3 has just one), or None where there is none."""
        return self.auxiliaries[-1] if self.auxiliaries else None


class AuxiliaryClassifier(nn.Module):
    """The side head: body, global average, dropout, linear. (n, c, h, w) -> (n, classes)."""

    def __init__(self, spec: Aux, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.body, channels = module_of(spec.body, in_channels)
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.body(images))

    def classify(self, grid: Tensor) -> Tensor:
        """(n, classes) of the body's output (n, channels, h, w)."""
        return self.classifier(self.dropout(grid.mean((2, 3))))


def _call(module: nn.Module, images: Tensor) -> Tensor:
    return module(images)


class Network(nn.Module):
    """The network of `arch`. Calling it gives logits (n, classes) for images (n, 3, h, w), in every mode."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        channels = {step.path: step.output.channels for step in trace(arch, with_aux=False)}
        inputs = arch.input_channels
        for name, stage in arch.stages:
            check_name(name)
            module, inputs = module_of(stage, inputs)
            self.add_module(name, module)
        for head in arch.aux:
            self.add_module(head.name, AuxiliaryClassifier(head, channels[head.at], arch.num_classes))
        self.dropout = nn.Dropout(arch.dropout)
        self.classifier = nn.Linear(inputs, arch.num_classes)
        self._stages = [name for name, _ in arch.stages]

    @property
    def num_features(self) -> int:
        """Channels of the pooled features: 2048 for Inception-v3 at full width."""
        return self.classifier.in_features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of normalised images (n, 3, h, w). The same in training and in evaluation mode."""
        return self.classifier(self.dropout(self.features(images)))

    def features(self, images: Tensor) -> Tensor:
        """Globally averaged features (n, num_features), before dropout."""
        if not torch.jit.is_scripting():
            self._check(images, with_aux=False)
        for name, stage in self.named_children():  # what TorchScript and torch.fx can unroll
            if name in self._stages:
                images = stage(images)
        return images.mean((2, 3))

    def outputs(self, images: Tensor, *, through: Through = _call) -> Outputs:
        """Logits and the auxiliary logits, computed together; the only call that runs the auxiliary classifiers.

        `through` computes a module's output; training has other ways to compute the same.
        """
        self._check(images, with_aux=True)
        seen, final = self._run(images, {head.at for head in self.arch.aux}, through)
        auxiliaries: list[Tensor] = []
        for head in self.arch.aux:
            module = self.get_submodule(head.name)
            assert isinstance(module, AuxiliaryClassifier)
            auxiliaries.append(module.classify(through(module.body, seen[head.at])))
        logits = self.classifier(self.dropout(final.mean((2, 3))))
        return Outputs(logits=logits, auxiliaries=tuple(auxiliaries))

    def endpoints(self, images: Tensor, at: Iterable[str]) -> dict[str, Tensor]:
        """The tensors at the named places: a stage (`grid17`), a layer or module of one (`stem.2`, `grid17.3`),
        `features`, `logits`, or an auxiliary classifier's name. UsageError names what there is to choose from."""
        wanted = tuple(at)
        heads = {head.name: head for head in self.arch.aux}
        known = [name for name, _ in endpoints(self.arch)] + ["features", "logits", *heads]
        for name in wanted:
            if name not in known:
                raise UsageError(f"{self.arch.name} has no endpoint {name!r}; known: {', '.join(known)}")
        self._check(images, with_aux=any(name in heads for name in wanted))
        seen, final = self._run(images, {heads[name].at if name in heads else name for name in wanted})
        for name in wanted:
            if name in heads:
                seen[name] = self.get_submodule(name)(seen[heads[name].at])
            elif name == "features":
                seen[name] = final.mean((2, 3))
            elif name == "logits":
                seen[name] = self.classifier(self.dropout(final.mean((2, 3))))
        return {name: seen[name] for name in wanted}

    def reset_classifier(self, num_classes: int, *, seed: int | None = None) -> None:
        """Fresh classifiers, auxiliary ones too, for `num_classes` classes; everything below is kept."""
        self.arch = dataclasses.replace(self.arch, num_classes=num_classes)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        like = self.classifier.weight
        owners: list[tuple[Network | AuxiliaryClassifier, float]] = [(self, self.arch.classifier_init_stddev)]
        for head in self.arch.aux:
            module = self.get_submodule(head.name)
            assert isinstance(module, AuxiliaryClassifier)
            owners.append((module, head.classifier_init_stddev))
        for owner, stddev in owners:
            fresh = nn.Linear(owner.classifier.in_features, num_classes)
            initialise_linear(fresh, stddev, generator)
            owner.classifier = fresh.to(device=like.device, dtype=like.dtype)

    def drop_auxiliary(self) -> None:
        """Removes the auxiliary classifiers: the network for inference."""
        for head in self.arch.aux:
            delattr(self, head.name)
        self.arch = dataclasses.replace(self.arch, aux=())

    def set_batch_norm_decay(self, decay: float) -> None:
        """How much of the running statistics each step keeps: TensorFlow's decay, one less torch's momentum."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1 - decay

    def _run(self, images: Tensor, wanted: set[str], through: Through = _call) -> tuple[dict[str, Tensor], Tensor]:
        """The wanted endpoints, and the last stage's output."""
        seen: dict[str, Tensor] = {}
        for name, _ in self.arch.stages:
            stage = self.get_submodule(name)
            if isinstance(stage, nn.Sequential):
                for index, layer in enumerate(stage):
                    images = through(layer, images)
                    if f"{name}.{index}" in wanted:
                        seen[f"{name}.{index}"] = images
            else:
                images = through(stage, images)
            if name in wanted:
                seen[name] = images
        return seen, images

    def _check(self, images: Tensor, *, with_aux: bool) -> None:
        """One clear line instead of an error from deep inside a pooling layer."""
        arch = self.arch
        is_traced = torch.jit.is_tracing() or torch.compiler.is_dynamo_compiling() or not isinstance(images, Tensor)
        if is_traced:  # by torch.jit, torch.compile or torch.fx: no values yet
            return
        if images.dim() != 4 or images.shape[1] != arch.input_channels:
            shape = tuple(images.shape)
            raise SpecError(f"{arch.name} takes images of shape (n, {arch.input_channels}, height, width), got {shape}")
        side = min(images.shape[2:])
        least = minimum_input_size(arch, with_aux=with_aux)
        if side < least:
            head = " with its strict auxiliary classifier" if side >= minimum_input_size(arch, with_aux=False) else ""
            raise SpecError(f"{arch.name}{head} needs images of at least {least} pixels, got {tuple(images.shape[2:])}")


class WithAuxiliary(nn.Module):
    """A network whose call gives `outputs`: logits and auxiliary logits, for wrappers that only see `forward`.

    Args:
        network: the network; it is shared, not copied, as `.network`.

    Returns:
        A module: called with images (n, 3, h, w) it gives `Outputs` with `logits` (n, classes) and `auxiliary`, so
        DistributedDataParallel and torch.compile see every parameter that training uses.

    Raises:
        SpecError: on a call, for images that are too small for the auxiliary classifier; torch's own error if compiled.

    Source: the auxiliary classifier is Szegedy et al. 2015 (arXiv 1512.00567), section 4.

    Example:
        >>> import torch, reinception as ri
        >>> module = ri.WithAuxiliary(ri.create("inception_v3", num_classes=2, width=0.1))
        >>> outputs = module(torch.zeros(2, 3, 299, 299))
        >>> outputs.logits.shape, outputs.auxiliary.shape
        (torch.Size([2, 2]), torch.Size([2, 2]))
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Outputs:
        return self.network.outputs(images)


def build(arch: Arch, *, seed: int | None = None, device: torch.device | str = "cpu") -> Network:
    """The network of `arch` with freshly initialised parameters (seeded when `seed` is given), float32.

    Built without values first and filled once: the usual way initialises 27 million numbers twice.
    """
    network = skeleton(arch).to_empty(device=device)
    generator = None if seed is None else torch.Generator(device=device).manual_seed(seed)
    stddevs = {head.name: head.classifier_init_stddev for head in arch.aux}
    for name, module in network.named_modules():
        if isinstance(module, ConvNorm):
            initialise_conv(module, generator)
        elif isinstance(module, nn.Linear):
            initialise_linear(module, stddevs.get(name.split(".")[0], arch.classifier_init_stddev), generator)
    return network


def skeleton(arch: Arch) -> Network:
    """The network of `arch` without memory behind its parameters: names and shapes only."""
    with torch.device("meta"):
        return Network(arch)
