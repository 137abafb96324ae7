"""The interface of a backend, what it is made of, and the classifier that the compiled ones share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from reinception.data.loading.loader import normalise
from reinception.model.build import Network
from reinception.preprocess import Preprocessing
from reinception.rewrite.program import Program
from reinception.rewrite.rules import rewritten

Rows = npt.NDArray[np.float32]
"""One row of each image: (n, classes) probabilities or (n, num_features) pooled features."""

Output = Literal["probabilities", "features"]
BackendName = Literal["torch", "inductor", "openvino"]
NetworkPrecision = Literal["fp32", "bf16", "int8"]


class Pending(Protocol):
    """Rows that are being computed."""

    def result(self) -> Rows:
        """The rows, as soon as they are there; what went wrong is raised here."""
        ...


class NetworkBackend(Protocol):
    """A network that takes bytes, compiled for one precision. The rows of an image do not depend on its neighbours.

    Work is handed over by `submit` and collected later, in the order of submission, so that images are decoded and
    several batches computed meanwhile. Whoever submits keeps at most `in_flight` of them open.
    """

    @property
    def name(self) -> BackendName: ...

    @property
    def precision(self) -> NetworkPrecision: ...

    @property
    def block_size(self) -> int:
        """How many images are best computed together; `submit` takes any number."""
        ...

    @property
    def in_flight(self) -> int:
        """How many submissions are worth having open; 0 where `submit` computes at once."""
        ...

    def submit(self, images: Tensor, output: Output) -> Pending:
        """Starts on images (n, 3, s, s) uint8, which must not change until the result is there."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a backend is made of: a network, its preprocessing and a number format. The network is not changed."""

    network: Network
    preprocessing: Preprocessing
    precision: NetworkPrecision
    device: torch.device
    is_given_values: bool = False
    """Whether images come as the float32 values that the network reads, instead of as bytes."""

    @property
    def takes_bytes(self) -> bool:
        """Whether the normalisation is part of the compiled network; images standardised one by one come as floats."""
        return self.preprocessing.scaling == "fixed" and not self.is_given_values

    @property
    def side(self) -> int:
        return self.preprocessing.input_size

    def program(self) -> Program:
        """The rewritten network as values. Of bytes 0 to 255, which bf16 holds exactly, not of their normalised values.

        Raises:
            ReinceptionError: never here, but where it is lowered and a layer has no counterpart.
        """
        program = Program.of(self.network, None if self.is_given_values else self.preprocessing)
        if program.mean is not None and program.std is not None:
            mean, std = ((255 * a, 255 * b, 255 * c) for a, b, c in (program.mean, program.std))
            program = dataclasses.replace(program, mean=mean, std=std)
        return rewritten(program)

    def inputs(self, images: Tensor) -> Tensor:
        """What the network reads of images (n, 3, s, s): the values that they are, or those of their bytes."""
        return images if self.is_given_values else normalise(images, self.preprocessing)

    def values(self, images: Tensor) -> Tensor:
        """What the program is given of images (n, 3, s, s): their bytes, or what the network reads."""
        return images if self.takes_bytes else self.inputs(images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tensors, the architecture and the preprocessing, in hexadecimal."""
        found = hashlib.sha256()
        documents = [self.network.arch.to_json(), "values" if self.is_given_values else self.preprocessing.to_json()]
        found.update(json.dumps(documents, sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()


class ClassifierHead:
    """The classifier in float32, whatever the network's format: it costs nothing, and rounding there would show most.

    Args:
        network: whose classifier is copied.
    """

    def __init__(self, network: Network) -> None:
        weight = network.classifier.weight.detach().to("cpu", torch.float32)
        self.missing = (0, -weight.shape[1] % 16)
        self.weight = F.pad(weight, self.missing)
        self.bias = network.classifier.bias.detach().to("cpu", torch.float32, copy=True)

    def probabilities(self, features: Rows) -> Rows:
        """The softmax (n, classes) of the logits of pooled features (n, num_features)."""
        with torch.inference_mode():
            padded = F.pad(torch.from_numpy(features), self.missing)
            return F.linear(padded, self.weight, self.bias).softmax(dim=1).numpy()


class Classified:
    """Probabilities of pooled features that are being computed."""

    def __init__(self, features: Pending, head: ClassifierHead) -> None:
        self._features, self._head = features, head

    def result(self) -> Rows:
        return self._head.probabilities(self._features.result())
