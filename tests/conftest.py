"""What every test may lean on: the command line as a real process, and a small folder of real images."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import reinception
from command import SMALLEST, Command

if TYPE_CHECKING:
    import torchvision

    from reinception.weights.convert import Conversion

# Set before torch loads, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside each other; more threads would fight for cores
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "REINCEPTION_TEST_CACHE" not in os.environ:  # else this is a process of pytest-xdist, which inherits it
    # What is kept of one suite must not speed up the next, nor fill the cache folder of whoever runs it.
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(folder / "ms-playwright"))
    os.environ["REINCEPTION_TEST_CACHE"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="reinception-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# The same examples on every machine; a failure elsewhere is then a failure here.
hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("reproducible")

# `make floor` sets this: these libraries, which some tests compare with, need a newer torch than the oldest supported.
IS_FLOOR = bool(os.environ.get("REINCEPTION_FLOOR"))
NOT_ON_THE_FLOOR = ("torchvision", "timm", "pytorch_fid", "importlinter", "onnx", "onnxruntime")
SOAK_SECONDS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of the soak may take an hour."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SOAK_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """On the floor a file of tests that imports what cannot be there is skipped as a whole."""
    report = yield
    missing = [name for name in NOT_ON_THE_FLOOR if f"No module named '{name}" in str(report.longrepr)]
    if IS_FLOOR and report.failed and missing:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {missing[0]} needs a newer torch")
    return report


def _skip_what_cannot_be_there() -> Generator[None, object, object]:
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if IS_FLOOR and (error.name or "").split(".")[0] in NOT_ON_THE_FLOOR:
            pytest.skip(f"{error.name} needs a newer torch")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """The same for a test that uses a fixture that imports it."""
    return (yield from _skip_what_cannot_be_there())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """The same for a test that imports it."""
    return (yield from _skip_what_cannot_be_there())


@pytest.fixture(scope="session")
def command() -> Command:
    """`command("show", "inception_v3")` runs `reinception show inception_v3` in a process of its own."""
    source = str(Path(reinception.__file__).parent.parent)

    def run(*words: object, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"COLUMNS": "100", "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run(
            [sys.executable, "-m", "reinception", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env=environment,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def solar_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two class folders with 16 real solar cells each, from the package elpv-dataset."""
    package = resources.files("elpv_dataset") / "data"
    folder = tmp_path_factory.mktemp("solar")
    wanted = {"0.0": folder / "functional", "1.0": folder / "defective"}
    for target in wanted.values():
        target.mkdir()
    for line in (package / "labels.csv").read_text(encoding="utf-8").splitlines():
        name, probability, _ = line.split()
        target = wanted.get(probability)
        if target is not None and len(list(target.iterdir())) < 16:
            with resources.as_file(package / name) as image:
                shutil.copy(image, target)
    return folder


@pytest.fixture(scope="session")
def small_run(command: Command, solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a real training on `solar_cells`: the smallest network, at the smallest size, for one epoch."""
    run = tmp_path_factory.mktemp("runs") / "small"
    result = command("train", solar_cells, "-o", run, "--epochs", 1, *SMALLEST)
    assert result.returncode == 0, result.stderr
    return run


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the examples of docstrings have it: `model.safetensors` and `images/`, two of each class."""
    from reinception import family
    from reinception.data.sources.open_source import open_source
    from reinception.model.artifact import Manifest, save
    from reinception.model.build import build
    from reinception.preprocess import Preprocessing

    root, classes = tmp_path_factory.mktemp("place"), ("defective", "functional")
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
    manifest = Manifest(arch=arch, classes=classes, preprocessing=Preprocessing(input_size=75))
    save(build(arch, seed=0), root / "model.safetensors", manifest)
    for target, name in enumerate(classes):
        folder = root / "images" / name
        folder.mkdir(parents=True)
        records = [record for record in open_source("elpv").records if record.target == target][:2]
        for number, record in enumerate(records, start=1):
            shutil.copy(record.path, folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def torchvision_model() -> torchvision.models.Inception3:
    """torchvision's network with random weights; the imports wait, since few tests need it."""
    import torchvision

    from foreign_weights import randomise

    model = torchvision.models.Inception3(init_weights=False)
    randomise(model, 1)
    return model.eval()


@pytest.fixture(scope="module")
def torchvision_file(
    torchvision_model: torchvision.models.Inception3, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from foreign_weights import saved

    return saved(torchvision_model.state_dict(), tmp_path_factory.mktemp("torchvision") / "weights.pth")


@pytest.fixture(scope="module")
def from_torchvision(torchvision_file: Path) -> Conversion:
    from reinception.weights.convert import convert

    return convert(torchvision_file)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of the tests of a module: small networks gain nothing from a second thread, and lose much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
