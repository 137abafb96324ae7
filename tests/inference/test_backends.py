"""Each backend gives torch's rows within the tolerance of its precision, and what is kept is never trusted blindly."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from reinception import family, machine
from reinception.data.sources.open_source import open_source
from reinception.errors import UsageError
from reinception.inference.backends import kept
from reinception.inference.backends.choice import (
    FEW_IMAGES,
    LARGEST_DIFFERENCE,
    automatic,
    backend_of,
    computed,
    named,
    sample,
)
from reinception.inference.backends.network_backend import NetworkPrecision, Task
from reinception.inference.backends.openvino_backend import OpenVinoBackend
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine
from reinception.preprocess import Preprocessing
from reinception.rewrite.check import random_network
from reinception.spec import AdaptivePool, Chain

pytest.importorskip("openvino")

SIDE = 96
CPU = torch.device("cpu")
IMAGES = sample(SIDE, 20)
FIXED, OWN = Preprocessing(input_size=SIDE), Preprocessing(input_size=SIDE, scaling="per_image")
PRECISIONS: list[NetworkPrecision] = ["fp32", "bf16"] if machine.has_bf16(CPU) else ["fp32"]


def task_of(
    name: str = "inception_v3",
    *,
    preprocessing: Preprocessing = FIXED,
    precision: NetworkPrecision = "fp32",
    seed: int = 0,
) -> Task:
    arch = family.network(name, width=0.1, num_classes=5, input_size=SIDE, aux="none")
    network = random_network(arch, seed)
    return Task(network=network, preprocessing=preprocessing, precision=precision, device=CPU)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield kept.folder()


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# googlenet's first convolution is padded, and it has local response norm; lucid's and fid's pools count the border.
@pytest.mark.parametrize(
    "name", ["inception_v3", "inception_v3_lucid", "inception_v3_fid", "googlenet", "bn_inception"]
)
@pytest.mark.parametrize("preprocessing", [FIXED, OWN], ids=["fixed", "per_image"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_agrees_with_torch_within_the_precision(
    name: str, preprocessing: Preprocessing, precision: NetworkPrecision
) -> None:
    task = task_of(name, preprocessing=preprocessing, precision=precision)
    reference = dataclasses.replace(task, precision="fp32")
    exact, found = named("torch", reference), named("openvino", task)
    assert (found.name, found.precision) == ("openvino", precision)
    largest = LARGEST_DIFFERENCE[precision]
    assert relative(computed(found, IMAGES, "features"), computed(exact, IMAGES, "features")) < largest
    rows, expected = (computed(one, IMAGES, "probabilities") for one in (found, exact))
    assert rows.shape == (20, 5) and rows.dtype == np.float32
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-6)
    if precision == "fp32":
        assert np.abs(rows - expected).max() < largest
        assert (rows.argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_depends_on_no_neighbour_and_not_on_how_many_there_are(precision: NetworkPrecision) -> None:
    backend = OpenVinoBackend(task_of(precision=precision), block_size=8, streams=2)
    whole = computed(backend, IMAGES, "features")
    backwards = computed(backend, IMAGES.flip(0), "features")[::-1]
    assert (whole == backwards).all()
    for num in (1, 3, 8, 20):
        assert (backend.submit(IMAGES[:num], "features").result() == whole[:num]).all()


def test_several_submissions_are_open_at_once_and_each_has_its_own_rows() -> None:
    backend = OpenVinoBackend(task_of(), block_size=4, streams=2)
    assert backend.in_flight == 3
    waiting = [backend.submit(IMAGES[start : start + 4], "features") for start in range(0, 20, 4)]
    rows = [one.result() for one in waiting]
    assert (np.concatenate(rows) == backend.submit(IMAGES, "features").result()).all()
    assert (waiting[0].result() == rows[0]).all()  # a later batch has not overwritten it


def test_an_engine_gives_the_same_rows_in_order_with_either_backend(solar_cells: Path) -> None:
    records = open_source(solar_cells).records
    rows = {}
    task = task_of()
    for name in ("torch", "openvino"):
        engine = Engine(task.network, task.preprocessing, Compute(backend=name, batch_size=7, workers=0))
        rows[name] = np.array(list(engine.features(engine.batches(records))))
    assert rows["torch"].shape == (len(records), task.network.num_features)
    assert relative(rows["openvino"], rows["torch"]) < LARGEST_DIFFERENCE["fp32"]


def test_the_network_given_may_be_trained_on_without_changing_the_backend() -> None:
    task = task_of()
    backend = named("openvino", task)
    before = backend.submit(IMAGES[:2], "probabilities").result()
    with torch.no_grad():
        for parameter in task.network.parameters():
            parameter.zero_()
    assert (backend.submit(IMAGES[:2], "probabilities").result() == before).all()


# -- auto -------------------------------------------------------------------------------------------------------------


def test_auto_says_what_it_chose_and_why_and_measures_once() -> None:
    said: list[str] = []
    first = automatic(task_of(), tell=said.append)
    second = automatic(task_of(), tell=said.append)
    assert (first.name, first.block_size) == (second.name, second.block_size)
    assert said[0].startswith(f"backend {first.name}") and "in fp32: torch " in said[0]
    assert "images/s, openvino (" in said[0] and said[0].endswith("(measured now)")
    assert said[1].endswith("(measured before)")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_auto_stays_within_the_tolerance_of_the_precision(precision: NetworkPrecision) -> None:
    task = task_of("inception_v3_lucid", precision=precision)
    found = computed(automatic(task), IMAGES, "features")
    assert relative(found, computed(named("torch", task), IMAGES, "features")) <= LARGEST_DIFFERENCE[precision]


def test_another_network_precision_or_preprocessing_is_measured_for_itself(cache: Path) -> None:
    tasks = [task_of(), task_of(seed=1), task_of(preprocessing=OWN)]
    for number, task in enumerate(tasks, start=1):
        automatic(task)
        assert len(list(cache.glob("*.choice"))) == number


def test_few_images_are_computed_by_torch_without_measuring(cache: Path) -> None:
    said: list[str] = []
    assert automatic(task_of(), num_images=FEW_IMAGES - 1, tell=said.append).name == "torch"
    assert not cache.exists() and not said


def test_a_network_that_openvino_cannot_compute_is_computed_by_torch() -> None:
    task = task_of()
    *stages, (name, last) = task.network.arch.stages
    stages.append((name, Chain((last, AdaptivePool(output=(2, 2))))))
    arch = dataclasses.replace(task.network.arch, stages=tuple(stages))
    task = dataclasses.replace(task, network=random_network(arch))
    said: list[str] = []
    assert automatic(task, tell=said.append).name == "torch"
    assert "cannot compute it" in said[0] and "fixed grid" in said[0]


def test_a_backend_that_is_out_of_tolerance_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LARGEST_DIFFERENCE, "fp32", 0.0)
    said: list[str] = []
    assert automatic(task_of(), tell=said.append).name == "torch"
    assert "differs from torch by" in said[0]


def test_openvino_computes_on_the_processor_only() -> None:
    with pytest.raises(UsageError, match="on the processor, not on cuda"):
        named("openvino", dataclasses.replace(task_of(), device=torch.device("cuda")))
    with pytest.raises(UsageError, match="unknown"):
        backend_of(task_of(), "tensorrt")


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "of another network", "text"])
def test_what_is_damaged_or_foreign_is_made_again(damage: str, cache: Path) -> None:
    expected = computed(automatic(task_of()), IMAGES, "features")
    own = sorted(cache.iterdir())
    assert {path.suffix for path in own} == {".choice", ".compiled"}
    automatic(task_of(seed=1))
    foreign = {one.suffix: one.read_bytes() for one in cache.iterdir() if one not in own}
    for path in own:
        good = path.read_bytes()
        bad = {
            "flipped": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
            "truncated": good[: len(good) // 2],
            "empty": b"",
            "of another network": foreign[path.suffix],
            "text": b"{}",
        }[damage]
        path.write_bytes(bad)
    said: list[str] = []
    found = computed(automatic(task_of(), tell=said.append), IMAGES, "features")
    # Which backend is faster may come out otherwise when it is measured again.
    assert relative(found, expected) < LARGEST_DIFFERENCE["fp32"]
    assert said[0].endswith("(measured now)")
    assert all(kept.read(path.name) is not None for path in own)


def test_a_choice_that_makes_no_sense_is_made_again(cache: Path) -> None:
    automatic(task_of())
    (path,) = cache.glob("*.choice")
    for value in ({"chosen": 99, "rates": {}}, {"rates": {}}, [], {"chosen": "x", "rates": {}}):
        kept.write(path.name, json.dumps(value).encode())
        said: list[str] = []
        automatic(task_of(), tell=said.append)
        assert said[0].endswith("(measured now)")


def test_a_compiled_network_that_openvino_refuses_is_compiled_again(cache: Path) -> None:
    expected = computed(named("openvino", task_of()), IMAGES, "features")
    (path,) = cache.glob("*.compiled")
    kept.write(path.name, b"whole, and of the right name, but no network")
    assert (computed(named("openvino", task_of()), IMAGES, "features") == expected).all()
    assert len(path.read_bytes()) > 10_000


def test_without_a_place_to_keep_anything_all_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file where the cache folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert computed(automatic(task_of()), IMAGES, "features").shape[0] == 20


def test_the_oldest_goes_when_too_much_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 5000)
    for number in range(5):
        assert kept.write(f"{number}.compiled", bytes(2000))
    assert {path.name for path in cache.iterdir()} == {"3.compiled", "4.compiled"}


_FILL = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from test_backends import IMAGES, task_of
from reinception.inference.backends.choice import automatic, computed
print(computed(automatic(task_of()), IMAGES, "features").shape)
"""


def test_two_processes_may_fill_the_cache_at_once(cache: Path) -> None:
    program = _FILL.format(path=[one for one in sys.path if one])
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in both:
        out, err = one.communicate(timeout=200)
        assert one.returncode == 0, err
        assert out.startswith("(20, ")
    assert not list(cache.glob(".*"))
    assert all(kept.read(path.name) is not None for path in cache.iterdir())
    said: list[str] = []
    automatic(task_of(), tell=said.append)
    assert said[0].endswith("(measured before)")


# -- without openvino -------------------------------------------------------------------------------------------------

_WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "openvino":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from reinception.cli import main
sys.argv = ["reinception", *sys.argv[1:]]
sys.exit(main())
"""


def without_openvino(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT, *map(str, words)], capture_output=True, text=True, check=False, timeout=200
    )


def test_without_openvino_all_works_and_it_says_what_is_missing(place: Path, tmp_path: Path) -> None:
    images = [place / "images"] * (FEW_IMAGES // 4)
    done = without_openvino("predict", place / "model.safetensors", *images, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == FEW_IMAGES
    assert "backend torch in" in done.stderr and "pip install 'reinception[fast]'" in done.stderr
    told = json.loads(without_openvino("doctor", "--json", "-").stdout)["inference"]
    assert told["openvino"] is False and "reinception[fast]" in told["would_be_faster"][0]
    refused = without_openvino("predict", place / "model.safetensors", *images, "--backend", "openvino")
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "reinception: backend openvino needs the package openvino: pip install 'reinception[fast]'"
    ]


# -- inductor ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # it runs a C++ compiler
def test_inductor_agrees_with_torch_at_any_number_of_images() -> None:
    task = task_of()
    arch = task.network.arch
    task = dataclasses.replace(task, network=random_network(dataclasses.replace(arch, stages=arch.stages[:1])))
    backend = named("inductor", task)
    expected = computed(named("torch", task), IMAGES, "features")
    found = computed(backend, IMAGES, "features")
    assert backend.name == "inductor" and relative(found, expected) < LARGEST_DIFFERENCE["fp32"]
    assert (backend.submit(IMAGES[:3], "features").result() == found[:3]).all()
    rows = backend.submit(IMAGES, "probabilities").result()
    assert np.abs(rows - computed(named("torch", task), IMAGES, "probabilities")).max() < LARGEST_DIFFERENCE["fp32"]


def test_without_a_compiler_inductor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler"):
        named("inductor", task_of())
