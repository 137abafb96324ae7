"""An exported file answers as the model does, to the bit of a pixel, or it is not written."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from reinception import family
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels
from reinception.errors import ReinceptionError, UsageError
from reinception.export import resize_graph
from reinception.export.check_images import bundled
from reinception.export.deliver import Export, export
from reinception.export.onnx_graph import METADATA_KEY, onnx_model
from reinception.export.resize_graph import preprocessing_nodes
from reinception.export.torch_program import FromPixels
from reinception.inference.predictor import Predictor
from reinception.model.artifact import Manifest, Model, save
from reinception.preprocess import Preprocessing
from reinception.rewrite import rules
from reinception.rewrite.check import random_network
from reinception.rewrite.program import Program
from reinception.rewrite.rules import rewritten
from reinception.spec import Arch, count_border, minimum_input_size, trace

CLASSES = ("10", "2", "Ä", "a", "A")
BUNDLED = bundled().pixels


def model_of(name: str, preprocessing: Preprocessing | None = None, *, input_size: int | None = None) -> Model:
    arch = family.network(name, width=0.1, num_classes=len(CLASSES), aux="none")
    size = input_size or minimum_input_size(arch, with_aux=False) + 6
    network = random_network(dataclasses.replace(arch, input_size=size))
    preprocessing = dataclasses.replace(preprocessing or Preprocessing(), input_size=size)
    origin = {"licence": "Apache-2.0"}
    return Model(network, Manifest(arch=network.arch, classes=CLASSES, preprocessing=preprocessing, origin=origin))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(model_of("inception_v3"), path)
    return path


def session_of(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def answer(session: onnxruntime.InferenceSession, images: Pixels) -> np.ndarray:
    return np.asarray(session.run(None, {"images": images})[0])


def predicted(model: Model, image: Pixels) -> np.ndarray:
    (one,) = Predictor(model, precision="fp32", backend="torch")([image])
    assert one.probabilities is not None
    return one.probabilities


# -- pixels -----------------------------------------------------------------------------------------------------------


def preprocessed(how: Preprocessing) -> Callable[[Pixels], Pixels]:
    """The exported preprocessing alone; where its scaling is fixed, without it."""
    size = how.input_size
    program = Program(arch=family.network("inception_v3"), tensors={}, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    graph = helper.make_graph(
        list(preprocessing_nodes(how, program)),
        "preprocess",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", 3, size, size])],
    )
    session = session_of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    return lambda image: answer(session, image[None])[0].transpose(1, 2, 0)


@pytest.mark.parametrize("size", [128, 299])
def test_an_image_is_standardised_by_its_own_mean_and_deviation_to_the_last_digits(size: int) -> None:
    for dark in (0, 3, 60):  # sums of tens of thousands of numbers, which float32 does not add up one by one
        image = np.where(noise(size, size) < 100, dark, 255).astype(np.uint8)
        pixels = image.astype(np.float64)
        exact = (pixels - pixels.mean()) / pixels.std()
        found = preprocessed(Preprocessing(input_size=size, scaling="per_image", resize="whole"))(image)
        assert np.abs(found - exact).max() < 2e-6


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


SIZES = [
    (75, 75),
    (76, 75),
    (90, 80),
    (40, 33),
    (33, 40),
    (1, 200),
    (200, 1),
    (211, 300),
    (300, 211),
    (701, 90),
    (90, 701),
]
RULES = [
    Preprocessing(input_size=75, resize="whole"),
    Preprocessing(input_size=75, resize="central_crop"),
    Preprocessing(input_size=75, resize="central_crop", crop_fraction=0.9, interpolation="bicubic"),
    Preprocessing(input_size=75, resize="shorter_side"),
    Preprocessing(input_size=75, resize="shorter_side", interpolation="bicubic", crop_fraction=75 / 85),
]


@pytest.mark.parametrize("how", RULES, ids=lambda how: f"{how.resize} {how.interpolation}")
def test_the_resize_is_pillows_to_the_bit_at_any_size(how: Preprocessing) -> None:
    inside = preprocessed(how)
    in_torch = FromPixels(rewritten(Program.of(random_network(small_arch()))), how, torch.float32, features=False)
    for image in [*BUNDLED[:9], *(noise(*size) for size in SIZES)]:
        wanted = evaluation_pixels(image, how)
        assert np.array_equal(inside(image), wanted), image.shape
        planes = torch.from_numpy(image)[None].permute(0, 3, 1, 2).double()
        assert np.array_equal(in_torch._resized(planes)[0].permute(1, 2, 0).numpy(), wanted), image.shape


def small_arch() -> Arch:
    return family.network("inception_v3", width=0.1, num_classes=2, input_size=75, aux="none")


def test_the_border_is_not_taken_for_black() -> None:
    """Case of another exporter: `exclude_outside` was 0, and every border pixel wrong."""
    row = np.repeat(np.array([[70, 0, 0, 0]] * 4, dtype=np.uint8)[:, :, None], 3, axis=2)
    assert preprocessed(Preprocessing(input_size=2, resize="whole"))(row)[0, :, 0].tolist() == [30, 0]


def test_values_are_rounded_not_cut_off() -> None:
    """Case of another exporter: a resize of integers cut the fraction off, which darkened every pixel."""
    row = np.repeat(np.array([[10, 11, 11, 11]] * 4, dtype=np.uint8)[:, :, None], 3, axis=2)
    assert preprocessed(Preprocessing(input_size=1, resize="whole"))(row).tolist() == [[[11, 11, 11]]]


def test_an_interpolation_that_no_file_knows_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(model_of("inception_v3", Preprocessing(interpolation="lanczos")), path)
    with pytest.raises(ReinceptionError, match="bilinear and bicubic"):
        export(path, tmp_path / "out", Export())
    assert [one.name for one in tmp_path.iterdir()] == ["model.safetensors"]


# -- networks ---------------------------------------------------------------------------------------------------------


def graph_of(model: Model, **how: Any) -> onnx.ModelProto:
    program = rewritten(Program.of(model.network, model.preprocessing))
    settings: dict[str, Any] = {"metadata": {}, "precision": "fp32", "features": False, **how}
    return onnx_model(program, model.preprocessing, **settings)


@pytest.mark.parametrize("name", tuple(family.NETWORKS))
def test_every_network_of_the_family_answers_alike(name: str) -> None:
    model = model_of(name)
    graph = graph_of(model)
    session = session_of(graph)
    images = BUNDLED[1:16:3]
    rows = np.concatenate([answer(session, image[None]) for image in images])
    wanted = np.stack([predicted(model, image) for image in images])
    assert np.abs(rows - wanted).max() < 1e-5
    assert wanted.std(axis=0).max() > 1e-3  # the network tells the images apart


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
@pytest.mark.parametrize("name", tuple(family.NETWORKS))
def test_every_network_at_full_width_passes_the_gate_of_each_runtime(name: str, to: str, tmp_path: Path) -> None:
    arch = dataclasses.replace(family.NETWORKS[name].arch, num_classes=len(CLASSES), aux=())
    network = random_network(arch)
    preprocessing = Preprocessing(input_size=arch.input_size)
    save(network, tmp_path / "model.safetensors", Manifest(arch=arch, classes=CLASSES, preprocessing=preprocessing))
    parity = export(tmp_path / "model.safetensors", tmp_path / "out", Export(to=to))  # pyrefly: ignore[bad-argument-type]
    assert parity.largest_difference <= 1e-5


@pytest.mark.parametrize("border", [True, False])
def test_both_border_rules_and_each_scaling_survive(border: bool) -> None:
    for scaling in ("fixed", "per_image"):
        model = model_of("inception_v3", Preprocessing(scaling=scaling))
        arch = count_border(model.network.arch, border)
        network = random_network(arch)
        model = Model(network, dataclasses.replace(model.manifest, arch=arch))
        row = answer(session_of(graph_of(model)), BUNDLED[0][None])[0]
        assert np.abs(row - predicted(model, BUNDLED[0])).max() < 1e-5


def test_windows_that_hang_over_the_end_are_padding_and_not_ceil_mode() -> None:
    """Runtimes disagree about `ceil_mode`; GoogLeNet's pools hang over at most sizes."""
    for size in range(66, 75):
        model = model_of("googlenet", input_size=size)
        graph = graph_of(model)
        assert not any(one.name == "ceil_mode" for node in graph.graph.node for one in node.attribute)
        shapes = {value.name: value for value in onnx.shape_inference.infer_shapes(graph).graph.value_info}
        for step in trace(model.network.arch):
            if step.path in shapes:
                found = [one.dim_value for one in shapes[step.path].type.tensor_type.shape.dim][1:]
                assert found == [step.output.channels, step.output.height, step.output.width]


def test_the_graph_is_deterministic_small_and_open_in_its_sizes() -> None:
    model = model_of("inception_v3")
    graph, again = graph_of(model), graph_of(model)
    assert graph.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    (value,), (result,) = graph.graph.input, graph.graph.output
    assert [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim] == [
        "batch",
        "height",
        "width",
        3,
    ]
    assert [one.dim_param or one.dim_value for one in result.type.tensor_type.shape.dim] == ["batch", len(CLASSES)]
    weights = {one.name: one for one in graph.graph.initializer}
    assert not any(one.HasField("data_location") and one.data_location for one in weights.values())
    for node in graph.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            assert weights[node.input[2]].dims[0] == weights[node.input[1]].dims[0]


def test_a_batch_of_any_number_answers_row_by_row() -> None:
    session = session_of(graph_of(model_of("inception_v3")))
    image = BUNDLED[0]
    images = np.stack([np.roll(image, shift, axis=1) for shift in range(33)])
    single = np.concatenate([answer(session, one[None]) for one in images])
    for num in (1, 2, 3, 7, 33):
        assert np.abs(answer(session, images[:num]) - single[:num]).max() < 1e-6


# -- folders ----------------------------------------------------------------------------------------------------------


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_command_writes_a_folder_that_works_elsewhere(
    command: Callable[..., Any], file: Path, tmp_path: Path, solar_cells: Path
) -> None:
    out = tmp_path / "out dir"
    done = command("export", file, "-o", out, "--check", solar_cells, "--json", tmp_path / "parity.json")
    assert done.returncode == 0, done.stderr
    samples = {"sample.py", "requirements.txt", "sample.cjs", "package.json"}
    assert files_in(out) == {"model.onnx", "labels.txt", "parity.json"} | samples
    parity = json.loads((out / "parity.json").read_text(encoding="utf-8"))
    assert parity == json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    assert (parity["format"], parity["precision"], parity["num_images"]) == ("onnx", "fp32", 32)
    assert parity["largest_difference"] <= 1e-5 and parity["top1_agreement"] == 1
    assert parity["worst_image"] and parity["runtime"].startswith("onnxruntime ")

    elsewhere = tmp_path / "elsewhere"
    out.rename(elsewhere)
    Image.fromarray(BUNDLED[0]).save(tmp_path / "one.png")
    said = sampled(elsewhere, tmp_path / "one.png")
    best = Predictor(file, precision="fp32", backend="torch")(tmp_path / "one.png")
    assert said.returncode == 0 and f"one.png: {best.label} " in said.stdout, said.stderr
    again = command("export", file, "-o", elsewhere)
    assert again.returncode == 1 and "exists already" in again.stderr


def sampled(folder: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUTF8": "1"}
    words = [sys.executable, "-I", str(folder / "sample.py"), *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


def test_the_file_says_what_it_is(file: Path, tmp_path: Path) -> None:
    export(file, tmp_path / "out", Export())
    stored = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").get_modelmeta().custom_metadata_map
    document = json.loads(stored[METADATA_KEY])
    assert document["classes"] == list(CLASSES) and document["licence"] == "Apache-2.0"
    assert document["preprocessing"]["resize"] == "central_crop" and len(document["weights_sha256"]) == 64
    assert (tmp_path / "out" / "labels.txt").read_text(encoding="utf-8").split("\n") == list(CLASSES)


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 9, 9, 3)), np.zeros((9, 9, 3), np.uint8), np.zeros((1, 9, 9, 4), np.uint8)]
)
def test_a_sample_says_what_input_it_needs(pixels: np.ndarray, file: Path, exported_sample: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match=r"the input is uint8 \(images, height, width, 3\), not"):
        exported_sample["run"](pixels)


@pytest.fixture(scope="module")
def exported_sample(file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import runpy

    out = tmp_path_factory.mktemp("sample") / "out"
    export(file, out, Export())
    return runpy.run_path(str(out / "sample.py"))


def test_a_sample_reads_files_as_we_do(exported_sample: dict[str, Any], tmp_path: Path) -> None:
    from reinception.data.images.decode import decode

    image = Image.fromarray(BUNDLED[0])
    alpha = Image.fromarray(np.dstack([BUNDLED[0], BUNDLED[0][:, :, 0]]))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.convert("L").save(tmp_path / "grey.png")
    alpha.save(tmp_path / "alpha.png")
    image.quantize().save(tmp_path / "palette.png")
    for path in sorted(tmp_path.iterdir()):
        ours, its = decode(path).astype(int), exported_sample["read"](path)[0].astype(int)
        assert ours.shape == its.shape and np.abs(ours - its).max() <= 1, path.name


@pytest.mark.parametrize("to", ["openvino", pytest.param("torch", marks=pytest.mark.slow), "triton"])
def test_other_runtimes_pass_the_gate(to: str, file: Path, tmp_path: Path) -> None:
    parity = export(file, tmp_path / "out", Export(to=to))  # pyrefly: ignore[bad-argument-type]
    assert parity.largest_difference <= 1e-5 and parity.num_images == 18
    names = {
        "openvino": {"model.xml", "model.bin", "labels.txt"},
        "torch": {"model.pt2", "labels.txt"},
        "triton": {f"inception-v3/{name}" for name in ("1/model.onnx", "config.pbtxt", "labels.txt")} | {"kserve.yaml"},
    }[to]
    assert files_in(tmp_path / "out") == names | {"sample.py", "requirements.txt", "parity.json"}


def test_the_torch_module_answers_as_the_model_does(file: Path) -> None:
    """Tracing it takes half a minute, which only the soak has; what is traced is this."""
    model = model_of("inception_v3")
    program = rewritten(Program.of(model.network, model.preprocessing))
    module = FromPixels(program, model.preprocessing, torch.float32, features=False).eval()
    with torch.inference_mode():
        row = module(torch.from_numpy(BUNDLED[0])[None])[0].numpy()
    assert np.abs(row - predicted(model, BUNDLED[0])).max() < 1e-5


def test_features_leave_too(file: Path, tmp_path: Path) -> None:
    parity = export(file, tmp_path / "out", Export(features=True))
    assert parity.top1_agreement is None and parity.largest_difference <= 1e-5
    assert "labels.txt" not in files_in(tmp_path / "out")


@pytest.mark.parametrize(("to", "precision"), [("onnx", "fp16"), ("openvino", "fp16")])
def test_half_precision_agrees_on_the_label(to: str, precision: str, file: Path, tmp_path: Path) -> None:
    parity = export(file, tmp_path / "out", Export(to=to, precision=precision))  # pyrefly: ignore[bad-argument-type]
    assert parity.top1_agreement is not None and parity.top1_agreement >= 0.99


def test_int8_is_small_and_keeps_its_metadata(file: Path, tmp_path: Path, solar_cells: Path) -> None:
    export(file, tmp_path / "int8", Export(precision="int8", calibrate=str(solar_cells)))
    graph = onnx.load(tmp_path / "int8" / "model.onnx")
    assert any(node.op_type == "DequantizeLinear" for node in graph.graph.node)
    assert json.loads(graph.metadata_props[0].value)["precision"] == "int8"


def test_what_no_runtime_computes_is_wrong_usage() -> None:
    for to, precision in (("onnx", "bf16"), ("torch", "int8")):
        with pytest.raises(UsageError):
            Export(to=to, precision=precision, calibrate=None)  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(UsageError, match="--calibrate"):
        Export(precision="int8")


def test_a_missing_package_is_one_line(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ReinceptionError, match=r"needs the package openvino: pip install 'reinception\[fast\]'"):
        export(file, tmp_path / "out", Export(to="openvino"))
    assert not list(tmp_path.iterdir())


# -- the gate ---------------------------------------------------------------------------------------------------------


def with_tensors(program: Program, **changes: torch.Tensor) -> Program:
    return dataclasses.replace(program, tensors={**program.tensors, **changes})


def mean_off_by_one(program: Program) -> Program:
    assert program.mean is not None
    return dataclasses.replace(program, mean=tuple(one + 1 / 255 for one in program.mean))  # pyrefly: ignore[bad-argument-type]


def channels_swapped(program: Program) -> Program:
    name = "stem.0.conv.weight"
    return with_tensors(program, **{name: program.tensors[name].flip(1)})


def border_counted(program: Program) -> Program:
    return dataclasses.replace(program, arch=count_border(program.arch, True))


def classes_reordered(program: Program) -> Program:
    names = ("classifier.weight", "classifier.bias")
    return with_tensors(program, **{name: program.tensors[name].roll(1, 0) for name in names})


@pytest.mark.parametrize("sabotage", [mean_off_by_one, channels_swapped, border_counted, classes_reordered, None])
def test_a_sabotaged_file_is_refused_and_nothing_is_left(
    sabotage: Callable[[Program], Program] | None, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sabotage is None:  # no antialiasing
        text = resize_graph._AXIS.replace("{a}_wider = Max({a}_length, {a}_side)", "{a}_wider = Identity({a}_side)")
        assert text != resize_graph._AXIS
        monkeypatch.setattr(resize_graph, "_AXIS", text)
    else:
        monkeypatch.setattr(rules, "rewritten", lambda program: rewritten(sabotage(program)))
    with pytest.raises(ReinceptionError, match=r"is refused, nothing was written: .*; worst image: bundled"):
        export(file, tmp_path / "out", Export())
    assert not list(tmp_path.iterdir())


def test_a_killed_export_leaves_no_folder_of_that_name(file: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "reinception", "export", str(file), "-o", str(tmp_path / "out")]
    for seconds in (1.5, 2.5):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out").exists() or (tmp_path / "out" / "parity.json").exists()


# -- Triton -----------------------------------------------------------------------------------------------------------


def test_tritons_own_parser_reads_the_configuration_and_it_fits_the_file(file: Path, tmp_path: Path) -> None:
    protocol = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    export(file, tmp_path / "out", Export(to="triton"))
    folder = tmp_path / "out" / "inception-v3"
    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), protocol.ModelConfig())
    assert config.name == folder.name and config.max_batch_size > 1
    assert config.dynamic_batching.default_queue_policy.max_queue_size > 0
    graph = onnx.load(folder / "1" / "model.onnx").graph
    for ours, its in ((config.input[0], graph.input[0]), (config.output[0], graph.output[0])):
        first, *rest = its.type.tensor_type.shape.dim
        assert ours.name == its.name and first.dim_param
        assert list(ours.dims) == [one.dim_value or -1 for one in rest]
    assert list(config.output[0].dims) == [len(CLASSES)]
