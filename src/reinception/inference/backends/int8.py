"""int8: the network quantized with NNCF on the user's own images, judged on others, and kept with its report."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from reinception.documents import Documents
from reinception.errors import ReinceptionError, UsageError
from reinception.inference.backends import kept
from reinception.inference.backends.network_backend import ClassifierHead, NetworkBackend, Task
from reinception.inference.backends.openvino_backend import (
    OpenVinoBackend,
    compiled,
    key_of,
    own_graph,
    require_openvino,
)

if TYPE_CHECKING:
    import openvino

LEAST_AGREEMENT = 0.97
"""Of images whose most probable class is float32's."""

JUDGED = 2
"""One image of so many is not calibrated on, and judges. A hundred judges do not tell 98 % from 94 %, 300 do."""

MOST_REVERTED = 20
"""Layers that accuracy control puts back into float before it gives up."""

RANKED_ON = 100
"""Images on which accuracy control measures what each layer does: the whole network runs over them once a layer."""

_QUANTIZED = {"kind": "quantized", "ranges": "minmax"}
"""Of the key: what was quantized in another way is made anew."""

Arrays = list[npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """What was quantized, on what, and how well it agrees with float32 on images that it was not calibrated on."""

    calibrated_on: str
    """the data, as the user named them"""

    fingerprint: str
    """SHA-256 of the pixels"""

    num_calibrated: int
    num_judged: int

    top1_agreement: float
    """fraction of the judged images whose most probable class is float32's"""

    largest_difference: float
    """of a probability, on the judged images"""

    num_layers: int
    """convolutions"""

    num_quantized: int
    """those of them that compute in int8"""

    @property
    def words(self) -> str:
        return (
            f"calibrated on {self.num_calibrated} images of {self.calibrated_on}; same label as float32 on "
            f"{self.top1_agreement:.1%} of {self.num_judged} others; {self.num_quantized} of {self.num_layers} "
            "convolutions in int8"
        )


def int8_backend(
    task: Task,
    data: str | None,
    images: Callable[[], Tensor],
    *,
    least_agreement: float = LEAST_AGREEMENT,
    streams: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> NetworkBackend:
    """The quantized network, run by OpenVINO: the one that is kept for this model, or one made now.

    Args:
        task: the network, in precision int8.
        data: what the user calls the images; None for the quantized network that is kept.
        images: reads them, (n, 3, s, s) uint8; called only with `data`.
        least_agreement: the least fraction of images whose label is float32's.
        streams: batches computed at once; None for `default_streams`.
        tell: called with one line that says what was done.

    Raises:
        UsageError: there is none kept and no `data`; openvino or nncf is not installed.
        ReinceptionError: the labels agree on fewer images than asked; nothing is kept.
    """
    require_openvino()
    key = key_of(task, _QUANTIZED)
    found = _kept(key)
    when = "quantized before"
    if data is not None:
        pixels = images()
        fingerprint = hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()
        is_same = found is not None and found[0].fingerprint == fingerprint
        if found is None or not is_same or found[0].top1_agreement < least_agreement:
            found, when = _quantized(task, data, fingerprint, pixels, least_agreement), "quantized now"
            _keep(key, *found)
    if found is None:
        raise UsageError("int8 needs --calibrate DATA, once for each model: a folder of images like those it will see")
    report, content = found
    if report.top1_agreement < least_agreement:
        raise ReinceptionError(f"int8 is refused: it has the {_shortfall(report, least_agreement)}")
    if tell is not None:
        tell(f"int8: {report.words} ({when})")
    return OpenVinoBackend(task, streams=streams, model=lambda: _graph(content), fingerprint=report.fingerprint)


def kept_report(task: Task) -> QuantizationReport | None:
    """The report of the quantized network that is kept for this model; None where there is none."""
    found = _kept(key_of(task, _QUANTIZED))
    return None if found is None else found[0]


def _quantized(
    task: Task, data: str, fingerprint: str, pixels: Tensor, least: float
) -> tuple[QuantizationReport, tuple[bytes, bytes]]:
    """The report, and the graph as OpenVINO stores it: text and weights."""
    arrays = list(task.values(pixels).permute(0, 2, 3, 1).contiguous().numpy()[:, None])
    judged = arrays[::JUDGED]
    calibrated = [one for number, one in enumerate(arrays) if number % JUDGED]
    judge = _Judge(task, judged)
    with _nncf() as nncf:
        # NNCF's default cuts off what is larger than the images' mean maximum: probabilities were off by up to 0.9.
        ranges = nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
        )
        num = len(calibrated)
        model = nncf.quantize(own_graph(task), nncf.Dataset(calibrated), subset_size=num, advanced_parameters=ranges)
        if judge.agreement(model) < least:
            model = nncf.quantize_with_accuracy_control(
                own_graph(task),
                nncf.Dataset(calibrated),
                nncf.Dataset(list(enumerate(judged)), itemgetter(1)),
                judge.validated,
                max_drop=1 - least,
                subset_size=num,
                advanced_quantization_parameters=ranges,
                advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                    max_num_iterations=MOST_REVERTED, ranking_subset_size=min(RANKED_ON, len(judged))
                ),
            )
    num_layers, num_quantized = _layers(model)
    report = QuantizationReport(
        calibrated_on=data,
        fingerprint=fingerprint,
        num_calibrated=num,
        num_judged=len(judged),
        top1_agreement=judge.agreement(model),
        largest_difference=judge.difference(model),
        num_layers=num_layers,
        num_quantized=num_quantized,
    )
    if report.top1_agreement < least:
        raise ReinceptionError(f"int8 is refused and not kept: it has the {_shortfall(report, least)}")
    return report, _stored(model)


class _Judge:
    """What float32 says of images (1, s, s, 3), and how a quantized model compares."""

    def __init__(self, task: Task, images: Arrays) -> None:
        self._images = images
        self._head = ClassifierHead(task.network)
        exact = replace(task, precision="fp32")
        self.expected = self._rows(compiled(exact, 1, lambda: own_graph(exact)))

    def agreement(self, model: openvino.Model) -> float:
        return float((self._of(model).argmax(1) == self.expected.argmax(1)).mean())

    def difference(self, model: openvino.Model) -> float:
        return float(np.abs(self._of(model) - self.expected).max())

    def validated(self, network: Any, items: Iterable[tuple[int, npt.NDArray[Any]]]) -> tuple[float, list[float]]:
        """For NNCF: the agreement on numbered images, and whether each agrees."""
        listed = list(items)
        rows = self._rows(network, [image for _, image in listed])
        wanted = self.expected[[number for number, _ in listed]]
        agrees = (rows.argmax(1) == wanted.argmax(1)).astype(float)
        return float(agrees.mean()), agrees.tolist()

    def _of(self, model: openvino.Model) -> npt.NDArray[np.float32]:
        import openvino

        return self._rows(openvino.Core().compile_model(model, "CPU", {"CACHE_DIR": ""}))

    def _rows(self, network: Any, images: Arrays | None = None) -> npt.NDArray[np.float32]:
        rows = [np.array(network(image)[0], dtype=np.float32) for image in (images or self._images)]
        return self._head.probabilities(np.concatenate(rows))


@contextlib.contextmanager
def _nncf() -> Iterator[Any]:
    """NNCF without its progress bars, log and telemetry. UsageError where it is not installed."""
    os.environ.setdefault("NNCF_CI", "1")  # it reports its use to its makers otherwise
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import nncf
    except ModuleNotFoundError as error:
        raise UsageError(f"int8 needs the package {error.name}: pip install 'reinception[int8]'") from None
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield nncf


def _layers(model: openvino.Model) -> tuple[int, int]:
    """How many convolutions there are, and how many have weights of 8 bits.

    Told by the weights, since there may be slices between values and their quantization.
    """
    layers = [one for one in model.get_ops() if one.get_type_name() in ("Convolution", "GroupConvolution")]
    stored = []
    for layer in layers:
        node = layer.input(1).get_source_output().get_node()
        while node.get_input_size():  # from the scaled values back to what is stored
            node = node.input(0).get_source_output().get_node()
        stored.append(node.get_element_type().get_type_name())
    return len(layers), sum(name in ("i8", "u8") for name in stored)


def _shortfall(report: QuantizationReport, least: float) -> str:
    return (
        f"label of float32 on {report.top1_agreement:.1%} of {report.num_judged} images, asked are {least:.1%}; "
        "calibrate on more images like those it will see, lower --least-agreement, or use bf16"
    )


def _stored(model: openvino.Model) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _graph(content: tuple[bytes, bytes]) -> openvino.Model:
    import openvino

    return openvino.Core().read_model(*content)


def _keep(key: str, report: QuantizationReport, content: tuple[bytes, bytes]) -> None:
    text, weights = content
    kept.write(f"{key}.int8.xml", text)
    kept.write(f"{key}.int8.bin", weights)
    # Last, and with the sums of both: two processes that write at once leave a pair that fits, or none.
    document = {"report": asdict(report), "parts": [hashlib.sha256(one).hexdigest() for one in content]}
    kept.write(f"{key}.int8.json", json.dumps(document).encode())


def _kept(key: str) -> tuple[QuantizationReport, tuple[bytes, bytes]] | None:
    document, text, weights = (kept.read(f"{key}.int8.{part}") for part in ("json", "xml", "bin"))
    if document is None or text is None or weights is None:
        return None
    try:
        read = json.loads(document)
        report = Documents().decode(read["report"], QuantizationReport, "report")
    except (ValueError, KeyError, TypeError, ReinceptionError):
        return None
    if read.get("parts") != [hashlib.sha256(one).hexdigest() for one in (text, weights)]:
        return None
    return report, (text, weights)
