"""The parity gate: the exported file, run by its own runtime without this package, agrees with us on real images."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reinception.data.images.decode import Pixels
from reinception.errors import ReinceptionError
from reinception.export.node_gate import node_rows
from reinception.inference.predictor import Predictor
from reinception.machine import CPU_FEATURES, cpu_flags
from reinception.model.artifact import Model

Table = npt.NDArray[np.float32]

LARGEST_DIFFERENCE = {"fp32": 1e-5}
"""Of a probability, or of a feature relative to the largest one. Other precisions are judged by `TOP1_AGREEMENT`."""

TOP1_AGREEMENT = {"fp32": 1.0, "fp16": 0.99, "bf16": 0.99, "int8": 0.97}
FEATURE_DIFFERENCE = {"fp32": 1e-5, "fp16": 0.02, "bf16": 0.1, "int8": 0.5}

# Runs in a process in which our package cannot be imported: reads the images, runs the sample on each and on a batch.
_RUNNER = """
import json, runpy, sys
import numpy as np
sys.modules["reinception"] = None
sample = runpy.run_path(sys.argv[1])
stored = np.load(sys.argv[2])
images = [stored[f"image_{i}"] for i in range(len(stored.files))]
rows = np.concatenate([sample["run"](image[None]) for image in images])
first = images[0]
batch = np.stack([first, first[::-1], first[:, ::-1], first, first[::-1, ::-1]])
single = np.concatenate([sample["run"](np.ascontiguousarray(one)[None]) for one in batch])
np.savez(sys.argv[3], rows=rows, batch=sample["run"](batch), single=single)
print(json.dumps({"runtime": sample["RUNTIME"], "python": sys.version.split()[0], "numpy": np.__version__}))
"""
_BATCH_TOLERANCE = {"fp32": 1e-5}
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What `parity.json` says."""

    format: str
    """onnx, openvino, torch, triton or web"""

    precision: str
    """number format of the network inside"""

    num_images: int
    """images that were compared"""

    images: str
    """where they came from"""

    largest_difference: float
    """the largest over all images, of a probability or of a feature relative to the largest"""

    mean_difference: float
    """the mean over all images"""

    top1_agreement: float | None
    """fraction of the images with the same label, from 0 to 1; null for features"""

    worst_image: str
    """the image with the largest difference"""

    largest_batch_difference: float
    """the largest between an image in a batch and alone"""

    runtime: str
    """what ran the file, with version and provider; on another runtime the file is not checked"""

    node: str | None
    """what ran the JavaScript sample; null where it was not run"""

    processor: tuple[str, ...]
    """the processor's features"""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "processor": list(self.processor)}

    @property
    def refusal(self) -> str | None:
        """Why the file is refused."""
        agrees, precision = self.top1_agreement, self.precision
        if not np.isfinite(self.largest_difference):
            return "its output is not finite"
        limit = (FEATURE_DIFFERENCE if agrees is None else LARGEST_DIFFERENCE).get(precision, np.inf)
        if self.largest_difference > limit:
            return f"its output differs by {self.largest_difference:.2g}, allowed are {limit:g}"
        if agrees is not None and agrees < TOP1_AGREEMENT[precision]:
            return f"its label agrees on {agrees:.1%} of the images, needed are {TOP1_AGREEMENT[precision]:.0%}"
        if self.largest_batch_difference > _BATCH_TOLERANCE.get(precision, 0.1):
            return f"an image in a batch gets another answer than alone (by {self.largest_batch_difference:.2g})"
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckImages:
    """Decoded images, (h, w, 3) uint8 each, their names, and in words which they are."""

    pixels: Sequence[Pixels]
    names: Sequence[str]
    what: str


def check(sample: Path, model: Model, images: CheckImages, *, form: str, precision: str, features: bool) -> Parity:
    """Compares what `sample` gives for `images` with what `model` gives, in float32.

    Raises:
        ReinceptionError: the sample cannot run, or the answers differ by more than the precision's tolerance.
    """
    predictor = Predictor(model, device="cpu", precision="fp32", backend="torch")
    if features:
        answers: Any = predictor.features(list(images.pixels))
        wanted = np.stack([one.values for one in answers])
    else:
        wanted = np.array([one.probabilities for one in predictor(list(images.pixels))], dtype=np.float32)
    found, batch, single, facts = _run(sample, images.pixels)
    in_node = node_rows(sample.with_suffix(".cjs"), images.pixels)
    if found.shape != wanted.shape:
        raise ReinceptionError(
            f"export: the {form} file gives {found.shape}, the model {wanted.shape}; nothing was written"
        )
    scale = float(np.abs(wanted).max()) if features else 1.0
    differences = np.abs(found - wanted).max(axis=1) / scale
    if in_node is not None:
        again = np.abs(in_node[0] - wanted[: len(in_node[0])]).max(axis=1) / scale
        differences[: len(again)] = np.maximum(differences[: len(again)], again)
    worst = int(np.argmax(np.where(np.isfinite(differences), differences, np.inf)))
    chosen = wanted[np.arange(len(wanted)), found.argmax(axis=1)]
    parity = Parity(
        format=form,
        precision=precision,
        num_images=len(wanted),
        images=images.what,
        largest_difference=float(differences[worst]),
        mean_difference=float(differences.mean()),
        # Two classes with the same probability are both the first.
        top1_agreement=None if features else float((chosen >= wanted.max(axis=1) - 1e-6).mean()),
        worst_image=images.names[worst],
        largest_batch_difference=float(np.abs(batch - single).max() / scale),
        runtime=str(facts["runtime"]),
        node=None if in_node is None else in_node[1],
        processor=tuple(name for name in CPU_FEATURES if name in cpu_flags()),
    )
    if parity.refusal is not None:
        raise ReinceptionError(
            f"export: the {form} file is refused, nothing was written: {parity.refusal}; "
            f"worst image: {parity.worst_image}"
        )
    return parity


def _run(sample: Path, images: Sequence[Pixels]) -> tuple[Table, Table, Table, dict[str, Any]]:
    """Its rows for the images, for a batch, for the same images alone, and which runtime it was."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "images.npz", Path(folder) / "rows.npz"
        arrays: Any = {f"image_{index}": image for index, image in enumerate(images)}
        np.savez(inputs, **arrays)
        command = [sys.executable, "-I", "-c", _RUNNER, str(sample.resolve()), str(inputs), str(outputs)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise ReinceptionError(
                f"export: {sample.name} did not end in {TIMEOUT_SECONDS} s; nothing was written"
            ) from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
            raise ReinceptionError(f"export: the exported file cannot be run, nothing was written: {reason}")
        with np.load(outputs) as stored:
            return stored["rows"], stored["batch"], stored["single"], json.loads(done.stdout.splitlines()[-1])
