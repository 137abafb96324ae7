"""The torch backend: the network's own modules, copied, weights channels last, as they were trained; the reference."""

from __future__ import annotations

import copy
from concurrent.futures import Future

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reinception import machine
from reinception.inference.backends.network_backend import BackendName, Output, Rows, Task
from reinception.model.build import Network

_CPU_BLOCK, _CUDA_BLOCK = 16, 32


class TorchBackend:
    """A copy of a network in evaluation mode on one device; `network` is that copy.

    Args:
        task: the network, in any mode, on any device, which is not changed; its precision is fp32 or bf16, of
            convolutions and products.
    """

    name: BackendName = "torch"
    in_flight = 0

    def __init__(self, task: Task) -> None:
        self._task, self.precision = task, task.precision
        self._dtype = torch.float32 if task.precision == "fp32" else torch.bfloat16
        self.network = _copy(task.network, task.device, self._dtype)

    @property
    def block_size(self) -> int:
        """Fixed, so that an image's numbers do not depend on how many there are.

        With fewer than 16 on one thread torch takes its own convolution for kernels of 1 x 1 and oneDNN's otherwise,
        and oneDNN has several; they add in other orders. What else is in the block changes no bit. On a processor 16
        were as cheap as 32 to within 3 % for Inception-v3 at 299 pixels, and waste less where there are few images.
        """
        return block_size(self._task.device)

    def submit(self, images: Tensor, output: Output) -> Future[Rows]:
        with torch.inference_mode(), machine.autocast(self._dtype, self._task.device):
            inputs = self._task.inputs(images.to(self._task.device))
            if output == "features":
                values = self.network.features(inputs).float()
            else:
                values = _logits(self.network.classifier, self.network.features(inputs)).float().softmax(dim=1)
            done: Future[Rows] = Future()
            done.set_result(values.cpu().numpy())
        return done


def _copy(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """The same modules on `device`, channels last, in evaluation mode, without gradients.

    Weights of convolutions and linear layers are of `dtype`, to which autocast would convert them for each batch.
    """
    known: dict[int, object] = {id(network.arch): network.arch}
    for module in network.modules():
        kind = dtype if isinstance(module, (nn.Conv2d, nn.Linear)) else None
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
            own = tensor.detach().to(device=device, dtype=kind, memory_format=layout, copy=True)
            known[id(tensor)] = nn.Parameter(own, requires_grad=False) if isinstance(tensor, nn.Parameter) else own
    return copy.deepcopy(network, known).eval()


def block_size(device: torch.device) -> int:
    """Images that are computed together on that device."""
    return _CUDA_BLOCK if device.type == "cuda" else _CPU_BLOCK


def probabilities_of_features(classifier: nn.Linear, features: Tensor) -> Rows:
    """The softmax (n, classes) of features (n, num_features) float32: bit for bit what this backend gives in float32
    for the images they were computed of."""
    block = block_size(classifier.weight.device)
    rows = [np.empty((0, classifier.out_features), dtype=np.float32)]
    with torch.inference_mode():
        for part in features.split(block):
            whole = torch.cat([part, part[-1:].expand(block - len(part), -1)]).to(classifier.weight.device)
            rows.append(_logits(classifier, whole).softmax(dim=1)[: len(part)].cpu().numpy())
    return np.concatenate(rows)


def _logits(classifier: nn.Linear, features: Tensor) -> Tensor:
    """Logits (n, classes) of features (n, num_features), of which no row depends on its place in the block.

    MKL adds up a row of features in another order when it begins at another place within 64 bytes. Those of the
    published widths all begin at the first; for the others each row is filled up with zeros.
    """
    missing = (0, -classifier.in_features % 16)
    return F.linear(F.pad(features, missing), F.pad(classifier.weight, missing), classifier.bias)
