"""Export: writes a model for another runtime into a new folder, which appears only when the parity gate has passed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from reinception import __version__
from reinception.errors import ReinceptionError, UsageError
from reinception.files import refuse_existing, temporary_name, write_json
from reinception.preprocess import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto

    from reinception.data.images.decode import Pixels
    from reinception.export.gate import Parity
    from reinception.model.artifact import Manifest
    from reinception.rewrite.program import Program

Target = Literal["onnx", "openvino", "torch", "triton", "web"]
ExportPrecision = Literal["fp32", "fp16", "bf16", "int8"]

_RUNTIMES = {"onnx": "onnx", "openvino": "openvino", "torch": "torch", "triton": "onnx", "web": "onnx"}
_FILES = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2", "triton": "{name}/1/model.onnx"} | {
    "web": "model.onnx"
}
_IMPOSSIBLE = {
    ("onnx", "bf16"): "ONNX Runtime has no bf16 convolution on processors: use fp16, or openvino",
    ("triton", "bf16"): "ONNX Runtime has no bf16 convolution on processors: use fp16",
    ("web", "bf16"): "browsers have no bf16: use fp16",
    ("torch", "int8"): "torch's own int8 is not exported: use onnx or openvino",
}


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported, and how.

    Raises:
        UsageError: an unknown format or precision, or a pair of them that no runtime computes.
    """

    to: Target = "onnx"
    """the runtime that the file is for"""

    precision: ExportPrecision = "fp32"
    """number format of the network; the preprocessing and the softmax stay in fp32"""

    calibrate: str | None = None
    """images that int8's ranges are measured on: a folder of images, a manifest, tar shards, or the word elpv"""

    check: str | None = None
    """images of the parity gate, as for --calibrate (default: those that the run held out, else a bundled handful)"""

    features: bool = False
    """the pooled features in place of the probabilities"""

    web_runtime: str | None = None
    """for web: the npm package onnxruntime-web, as a folder or .tgz, or the word npm, which fetches it (default: what
    npm fetched before)"""

    def __post_init__(self) -> None:
        if self.to not in get_args(Target) or self.precision not in get_args(ExportPrecision):
            raise UsageError(f"export: {self.to} in {self.precision} is unknown; see reinception export --help")
        if reason := _IMPOSSIBLE.get((self.to, self.precision)):
            raise UsageError(f"export: {reason}")
        if (self.precision == "int8") != (self.calibrate is not None):
            raise UsageError("export: int8 needs --calibrate, images like those it will see, and only int8 does")
        if self.to == "web" and self.features:
            raise UsageError("export: the page of --to web shows labels: leave --features out")
        if self.to != "web" and self.web_runtime is not None:
            raise UsageError("export: only --to web takes --web-runtime")


def export(model: str | Path, folder: str | Path, how: Export) -> Parity:
    """Writes `model` into the new `folder`: the file, its sample, `labels.txt` and `parity.json`.

    The folder appears, whole, when the exported file has agreed with the model on real images.

    Args:
        model: a model file or a run folder.
        folder: the folder to make; its parent has to be there.
        how: format, precision and images.

    Raises:
        ReinceptionError: a package is missing, the folder exists, or the answers differ; nothing is left behind.
    """
    folder = Path(folder)
    refuse_existing(folder)
    try:
        os.fspath(folder.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise ReinceptionError(
            f"export: {folder}: its path is not UTF-8, and runtimes open no such files: use another folder"
        ) from None
    with _packages(how.to):
        from reinception.export.check_images import check_images
        from reinception.export.gate import check
        from reinception.export.resize_graph import require_exportable
        from reinception.model.artifact import load
        from reinception.rewrite.program import Program
        from reinception.rewrite.rules import rewritten

        loaded = load(model, with_aux=False)
        manifest = loaded.manifest
        require_exportable(manifest.preprocessing)
        web = None if how.to != "web" else _web_runtime(how.web_runtime)
        images = check_images(how.check, model, manifest)
        calibration = [] if how.calibrate is None else check_images(how.calibrate, model, manifest).pixels
        program = rewritten(Program.of(loaded.network, manifest.preprocessing))
        with _new_folder(folder) as part:
            delivery = _Delivery(program, manifest, how, calibration)
            name = _name(manifest)
            file = _FILES[how.to].format(name=name)
            delivery.write(part, name, part / file)
            if web is not None:
                from reinception.export.web_page import write_page

                write_page(part, delivery.metadata, web)
            delivery.write_sample(part, name, file)
            parity = check(
                part / "sample.py", loaded, images, form=how.to, precision=how.precision, features=how.features
            )
            write_json(parity.to_json(), part / "parity.json")
    return parity


def _web_runtime(where: str | None) -> Mapping[str, bytes]:
    from reinception.export.web_page import web_runtime

    return web_runtime(where)


class _Delivery:
    """One export: the network as values, what the file says about itself, and how it is written."""

    def __init__(self, program: Program, manifest: Manifest, how: Export, calibration: Sequence[Pixels]) -> None:
        self.program, self.manifest, self.how, self.calibration = program, manifest, how, calibration
        weight = program.tensors["classifier.weight"]
        self.width = int(weight.shape[1]) if how.features else int(weight.shape[0])

    @property
    def metadata(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name in sorted(self.program.tensors):
            digest.update(name.encode() + self.program.tensors[name].contiguous().numpy().tobytes())
        manifest = self.manifest
        return {
            "network": manifest.arch.name,
            "classes": list(manifest.classes),
            "preprocessing": manifest.preprocessing.to_json(),
            "licence": manifest.origin.get("licence"),
            "weights_sha256": digest.hexdigest(),
            "precision": self.how.precision,
            "output": "features" if self.how.features else "probabilities",
            "made_by": f"reinception {__version__}",
        }

    def write(self, folder: Path, name: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if self.how.to == "torch":
            self._write_torch(file)
        elif self.how.to == "openvino":
            self._write_openvino(file)
        else:
            from onnx import save

            save(self._onnx(), file)
        if self.how.to == "triton":
            from reinception.export.triton import write_configuration

            size = self.manifest.preprocessing.input_size
            write_configuration(folder, name, width=self.width, size=size, features=self.how.features)

    def write_sample(self, folder: Path, name: str, file: str) -> None:
        """The labels, the script that runs `file`, and what the script needs."""
        from reinception.export.samples import node_package, node_sample, requirements, sample

        runtime = _RUNTIMES[self.how.to]
        labels = f"{name}/labels.txt" if self.how.to == "triton" else "labels.txt"
        if not self.how.features:
            text = "\n".join(" ".join(one.splitlines()) for one in self.manifest.classes)
            (folder / labels).write_text(text, encoding="utf-8", newline="")
        script = sample(runtime, file, precision=self.how.precision, features=self.how.features, labels=labels)
        (folder / "sample.py").write_text(script, encoding="utf-8")
        (folder / "requirements.txt").write_text(requirements(runtime), encoding="utf-8")
        if self.how.to == "onnx":
            script = node_sample(file, features=self.how.features)
            (folder / "sample.cjs").write_text(script, encoding="utf-8")
            (folder / "package.json").write_text(node_package(), encoding="utf-8")

    def _onnx(self) -> ModelProto:
        from reinception.export.onnx_graph import onnx_model, set_metadata

        precision = "fp16" if self.how.precision == "fp16" and self.how.to != "openvino" else "fp32"
        model = onnx_model(
            self.program,
            self._preprocessing,
            metadata=self.metadata,
            precision=precision,
            features=self.how.features,
            activation_map=self.how.to == "web",
        )
        if self.how.precision == "int8":
            from reinception.export.quantize import quantized

            model = quantized(model, self.calibration)
            set_metadata(model, self.metadata)
        return model

    @property
    def _preprocessing(self) -> Preprocessing:
        return self.manifest.preprocessing

    def _write_openvino(self, file: Path) -> None:
        import openvino
        from onnx import save

        source = file.with_suffix(".onnx")
        save(self._onnx(), source)
        model = openvino.Core().read_model(source)
        for key, value in self.metadata.items():
            model.set_rt_info(value if isinstance(value, str) else json.dumps(value), ["reinception", key])
        openvino.save_model(model, file, compress_to_fp16=self.how.precision in ("fp16", "bf16"))
        source.unlink()

    def _write_torch(self, file: Path) -> None:
        import warnings

        import torch

        from reinception.export.torch_program import exported

        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.how.precision]
        program = exported(self.program, self._preprocessing, dtype, features=self.how.features)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about its own archive
            torch.export.save(program, file, extra_files={"reinception.json": json.dumps(self.metadata)})


def _name(manifest: Manifest) -> str:
    from reinception.export.triton import service_name

    return service_name(manifest.arch.name)


@contextmanager
def _packages(target: str) -> Iterator[None]:
    """A missing package is one line that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("reinception"):
            raise
        extra = "fast" if error.name == "openvino" else "export"
        raise ReinceptionError(
            f"export to {target} needs the package {error.name}: pip install 'reinception[{extra}]'"
        ) from None


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which gets its name when the block ends; nothing is left when it fails."""
    part = temporary_name(folder)
    part.mkdir()
    try:
        yield part
        refuse_existing(folder)
        os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
