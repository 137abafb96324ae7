"""The OpenVINO backend: the rewritten network compiled for this processor, several batches computed at once."""

from __future__ import annotations

import importlib.metadata
import io
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reinception import __version__, machine
from reinception.errors import ReinceptionError, UsageError
from reinception.inference.backends import kept
from reinception.inference.backends.network_backend import (
    BackendName,
    Classified,
    ClassifierHead,
    NetworkPrecision,
    Output,
    Pending,
    Rows,
    Task,
)

if TYPE_CHECKING:
    import openvino

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}
"""In int8 what is not quantized is computed in bf16 where the processor has it."""

FORMAT = 1
"""Of the compiled network: raised when the graph that is compiled changes."""


def has_openvino() -> bool:
    """Whether the package openvino is there."""
    return machine.is_installed("openvino")


def require_openvino() -> None:
    """UsageError where the package openvino is not there."""
    if not has_openvino():
        raise UsageError("backend openvino needs the package openvino: pip install 'reinception[fast]'")


def default_streams() -> int:
    """As many batches at once as keep the cores busy: two on a few, one for each four threads of many."""
    threads = torch.get_num_threads()
    return 1 if threads < 2 else max(2, threads // 4)


class OpenVinoBackend:
    """A network compiled by OpenVINO for the processor, from the cache where it was compiled before.

    Args:
        task: the network and its precision.
        block_size: images computed together.
        streams: blocks computed at once; None for `default_streams`.
        model: the graph to compile; None for the task's own. int8 needs one that is quantized.
        fingerprint: of that graph.

    Raises:
        UsageError: the package openvino is not there, or the device is not the processor.
        ReinceptionError: the network has a layer that OpenVINO cannot compute.
    """

    name: BackendName = "openvino"

    def __init__(
        self,
        task: Task,
        *,
        block_size: int = 8,
        streams: int | None = None,
        model: Callable[[], openvino.Model] | None = None,
        fingerprint: str = "",
    ) -> None:
        if task.device.type != "cpu":
            raise UsageError(f"backend openvino computes on the processor, not on {task.device}: leave one of them out")
        require_openvino()
        self._task, self._fingerprint = task, fingerprint
        self._make = model or (lambda: own_graph(task))
        self.precision: NetworkPrecision = task.precision
        self.block_size, self._streams = block_size, streams or default_streams()
        self.in_flight = self._streams + 1  # so that none of the streams waits for the next batch
        self._head = ClassifierHead(task.network)
        self._compiled: dict[int, openvino.CompiledModel] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(self._streams, thread_name_prefix="openvino")
        self._network(self._streams)

    def submit(self, images: Tensor, output: Output) -> Pending:
        # Fewer than a block are wanted soon rather than cheaply: all cores then work on them.
        streams = self._streams if len(images) >= self.block_size else 1
        network = self._network(streams)
        values = np.ascontiguousarray(self._task.values(images).permute(0, 2, 3, 1).numpy())
        features: Future[Rows] = self._pool.submit(self._features, network, streams, values)
        return Classified(features, self._head) if output == "probabilities" else features

    def _features(self, network: openvino.CompiledModel, streams: int, values: np.ndarray) -> Rows:
        name = f"request_{streams}"
        request = getattr(self._local, name, None)
        if request is None:
            request = network.create_infer_request()
            setattr(self._local, name, request)
        request.start_async({0: values}, share_inputs=True)
        request.wait()
        return request.get_output_tensor(0).data.astype(np.float32)  # a copy: the next call overwrites it

    def _network(self, streams: int) -> openvino.CompiledModel:
        with self._lock:
            if streams not in self._compiled:
                self._compiled[streams] = compiled(self._task, streams, self._make, self._fingerprint)
            return self._compiled[streams]


def own_graph(task: Task) -> openvino.Model:
    """The task's rewritten network as OpenVINO's graph."""
    from reinception.inference.backends.openvino_graph import openvino_model

    return openvino_model(task.program(), task.side, takes_bytes=task.takes_bytes)


def compiled(
    task: Task, streams: int, make: Callable[[], openvino.Model], fingerprint: str = ""
) -> openvino.CompiledModel:
    """The network compiled, from the cache or by compiling what `make` gives, which is then kept."""
    import openvino

    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": _hint(task.precision),
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Pinned threads of two processes would share cores while others idle.
        "ENABLE_CPU_PINNING": False,
    }
    name = f"{key_of(task, {'kind': 'openvino', 'format': FORMAT, 'graph': fingerprint})}.compiled"
    content = kept.read(name)
    if content is not None:
        try:
            return core.import_model(io.BytesIO(content), "CPU", hints)
        except Exception:  # whatever OpenVINO finds wrong with it, it is compiled again
            content = None
    try:
        found = core.compile_model(make(), "CPU", hints)
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise ReinceptionError(f"openvino cannot compile this network: {first}; use --backend torch") from None
    kept.write(name, found.export_model().getvalue())
    return found


def key_of(task: Task, more: Mapping[str, Any]) -> str:
    """The fingerprint of what a kept thing depends on: network, precision, versions, processor, threads, `more`."""
    facts = {
        "network": task.digest,
        "precision": task.precision,
        "versions": {name: _version(name) for name in ("torch", "openvino", "nncf")} | {"reinception": __version__},
        "processor": machine.processor_name(),
        "flags": sorted(machine.cpu_flags()),
        "threads": torch.get_num_threads(),
        **more,
    }
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hint(precision: NetworkPrecision) -> str:
    wanted = _HINTS[precision]
    return wanted if machine.has_bf16(torch.device("cpu")) else "f32"
