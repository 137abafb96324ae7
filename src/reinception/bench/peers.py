"""Other libraries' Inception-v3 as contestants, where they are installed; the one file that may import them.

Each gets what ours gets, decoded images as bytes, and is set up as well as its users can: the settings are tried, and
the fastest is timed.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reinception import machine
from reinception.bench.contestant import Contestant, Images, LeftOutError, Run, Subject

PEERS: dict[str, tuple[str, ...]] = {
    "torchvision": ("torch", "torchvision"),
    "timm": ("torch", "timm"),
    "onnxruntime": ("torchvision", "onnx", "onnxruntime"),
    "openvino": ("torchvision", "openvino"),
}
"""Names, and what has to be installed for each."""

COMPILED = "compiled"
_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def missing(name: str) -> str | None:
    """Which package a peer lacks here; None where all are installed."""
    return next((package for package in PEERS[name] if find_spec(package) is None), None)


def settings(name: str, precision: str) -> Sequence[str]:
    """The settings of a peer to try in this number format; none where it has none for it."""
    if name in ("torchvision", "timm"):
        eager = ("eager", "channels last") if precision == "fp32" else ("channels last",)
        return (*eager, COMPILED)
    if name == "onnxruntime":
        return ("all cores",) if precision == "fp32" else ()
    return ("1 stream", "2 streams", "2 streams, half batches")


def make(contestant: Contestant, subject: Subject) -> Run:
    """The peer, ready to run. LeftOutError where it cannot."""
    if not subject.is_released:
        raise LeftOutError("has the released Inception-v3 only")
    makers: dict[str, Callable[[Contestant, Subject], Run]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
    try:
        with warnings.catch_warnings():  # what libraries say of their own future is not this machine's speed
            warnings.simplefilter("ignore")
            return makers.get(contestant.what, _torch)(contestant, subject)
    except LeftOutError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise LeftOutError(f"{type(error).__name__}: {lines[0][:160]}") from None


def _network(name: str, subject: Subject) -> nn.Module:
    if name == "timm":
        import timm

        return timm.create_model("inception_v3", pretrained=False, num_classes=subject.num_classes).eval()
    import torchvision

    network = torchvision.models.inception_v3(
        weights=None, aux_logits=False, init_weights=False, num_classes=subject.num_classes
    )
    return network.eval()


def _torch(contestant: Contestant, subject: Subject) -> Run:
    network = _network(contestant.what, subject)
    dtype = torch.float32 if contestant.precision == "fp32" else torch.bfloat16
    is_plain = contestant.setting == "eager"
    if not is_plain:
        network = network.to(memory_format=torch.channels_last)
    call: Any = network
    if contestant.setting == COMPILED:
        import torch._inductor.config as inductor

        inductor.freezing = True
        call = torch.compile(network)

    def run(images: Images, batch_size: int) -> None:
        with torch.inference_mode(), machine.autocast(dtype, torch.device("cpu")):
            for part in torch.from_numpy(images).split(batch_size):
                call(_normalised(part, is_plain=is_plain)).float().softmax(dim=1)

    return run


def _normalised(images: Tensor, *, is_plain: bool) -> Tensor:
    values = images.permute(0, 3, 1, 2)
    return (values.contiguous() if is_plain else values).float().div_(127.5).sub_(1)


def _onnxruntime(contestant: Contestant, subject: Subject) -> Run:
    import onnxruntime

    network = _network("torchvision", subject)
    example = torch.zeros(1, 3, subject.input_size, subject.input_size)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        file = Path(folder) / "network.onnx"
        names = {"images": {0: "n"}}
        torch.onnx.export(network, (example,), file, input_names=["images"], dynamic_axes=names, dynamo=False)
        content = file.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Images, batch_size: int) -> None:
        for part in np.split(images, range(batch_size, len(images), batch_size)):
            session.run(None, {"images": _normalised(torch.from_numpy(part), is_plain=True).numpy()})

    return run


def _openvino(contestant: Contestant, subject: Subject) -> Run:
    """torchvision's graph, with the normalisation inside and bytes as input, as its documentation advises."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    side = subject.input_size
    converted = openvino.convert_model(
        _network("torchvision", subject), example_input=torch.zeros(1, 3, side, side), input=[-1, 3, side, side]
    )
    steps = PrePostProcessor(converted)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    scaled = [255 * value for value in _MEAN], [255 * value for value in _STD]
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(scaled[0]).scale(scaled[1])
    streams = int(contestant.setting.split()[0])
    hints = {
        "INFERENCE_PRECISION_HINT": "f32" if contestant.precision == "fp32" else "bf16",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(steps.build(), "CPU", hints)
    queue = openvino.AsyncInferQueue(compiled, streams)
    divisor = 2 if contestant.setting.endswith("half batches") else 1

    def run(images: Images, batch_size: int) -> None:
        size = max(batch_size // divisor, 1)
        for part in np.split(images, range(size, len(images), size)):
            queue.start_async({0: part}, share_inputs=True)
        queue.wait_all()

    return run
