"""A cascade over HTTP: the first of two models answers where it is sure, the second for the rest."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_helpers import RunningServer, Start, multipart, write_model

import reinception as ri
from processes import ends
from reinception.inference.compute import Compute
from reinception.serve.served_model import ServedModels

CLASSES = ("cat", "dog", "<b>bird</b>")
OTHER_ORDER = ("dog", "<b>bird</b>", "cat")


@pytest.fixture(scope="module")
def large(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights than the shared server's model, and its classes in another order."""
    return write_model(tmp_path_factory.mktemp("large") / "large.safetensors", solar_cells, seed=1, classes=OTHER_ORDER)


@pytest.fixture(scope="module")
def middle(served_file: Path, solar_cells: Path) -> float:
    """A threshold that half of the small model's answers reach."""
    return float(np.median(alone(served_file, images=solar_cells).max(axis=1)))


def alone(*models: Path, images: Path, **more: Any) -> np.ndarray:
    """What a Predictor says of a folder's images: probabilities (n, 3), in the first model's order of classes."""
    predictor = ri.Predictor(models if more else models[0], precision="fp32", **more)
    return predictor({"image": sorted(images.rglob("*.png"))})["probabilities"]


def answers_of(server: RunningServer, images: list[bytes], query: str = "") -> list[dict[str, Any]]:
    body, headers = multipart(*images)
    answer = server.ask("POST", f"/v1/predict?top=3{query}", body, headers)
    assert answer.status == 200, answer.body
    return answer.json["predictions"]


def table(answers: list[dict[str, Any]]) -> np.ndarray:
    rows = [{label["label"]: label["probability"] for label in one["labels"]} for one in answers]
    return np.array([[row[name] for name in CLASSES] for row in rows])


@pytest.mark.parametrize("threshold", [1e-9, None, 1.5])
def test_a_served_cascade_answers_as_the_same_cascade_in_python(
    starting: Start, served_file: Path, large: Path, solar_cells: Path, middle: float, threshold: float | None
) -> None:
    threshold = middle if threshold is None else threshold
    paths = sorted(solar_cells.rglob("*.png"))
    server = starting(large, "--cascade", "--threshold", threshold)
    answers = answers_of(server, [path.read_bytes() for path in paths])
    expected = alone(served_file, large, images=solar_cells, threshold=threshold)
    np.testing.assert_allclose(table(answers), expected, atol=1e-6)
    passed = [one["answered_by"] == "large" for one in answers]
    assert passed == (alone(served_file, images=solar_cells).max(axis=1) < threshold).tolist()
    assert server.metric('cascade_answers_total{of="second"}') == sum(passed)
    assert server.metric('cascade_answers_total{of="first"}') == len(paths) - sum(passed)


def test_the_second_model_answers_alone_where_it_is_named_and_features_are_the_first_ones(
    starting: Start, large: Path, images: list[bytes]
) -> None:
    server = starting(large, "--cascade", "--threshold", 1.5)
    named, cascade = (answers_of(server, images[:4], query) for query in ("&model=large", ""))
    np.testing.assert_allclose(table(named), table(cascade), atol=1e-6)
    assert server.metric("cascade_answers_total") == 4
    assert server.post("/v1/features", images[0]).json["model"]["name"] == "cells"
    mapped = answers_of(server, images[:1], "&map=1")
    assert len(mapped[0]["map"]["values"]) > 1
    np.testing.assert_allclose(table(mapped), table(cascade[:1]), atol=1e-6)


def test_pixels_of_the_small_input_are_refused_since_the_large_one_needs_the_image(
    starting: Start, large: Path
) -> None:
    server = starting(large, "--cascade", "--threshold", 0.9)
    pixels = np.zeros((1, 139, 139, 3), dtype=np.uint8)
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    answer = server.post("/v2/models/cells/infer", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.json["code"]) == (400, "pixels")
    assert server.post("/v2/models/large/infer", body, {"Content-Type": "application/json"}).status == 200


def test_a_reload_to_other_classes_fails_and_the_cascade_goes_on(
    starting: Start, served_file: Path, solar_cells: Path, images: list[bytes], tmp_path: Path
) -> None:
    second = write_model(tmp_path / "second.safetensors", solar_cells, seed=1, classes=OTHER_ORDER)
    server = starting(second, "--cascade", "--threshold", 1.5)
    before = answers_of(server, images[:2])
    other = write_model(tmp_path / "other.safetensors", solar_cells, seed=2, classes=("cat", "dog", "cow"))
    os.replace(other, second)
    server.signal(signal.SIGHUP)
    until = time.monotonic() + 60
    while "reload: second" not in server.said and time.monotonic() < until:
        time.sleep(0.1)
    assert "failed a cascade needs two models of the same classes" in server.said
    np.testing.assert_allclose(table(answers_of(server, images[:2])), table(before), atol=1e-6)


def test_a_request_that_holds_the_model_from_before_a_reload_gets_its_classes_in_their_order(
    solar_cells: Path, large: Path, tmp_path: Path
) -> None:
    first = write_model(tmp_path / "first.safetensors", solar_cells, classes=CLASSES)
    models = ServedModels({"first": first, "large": large}, Compute(backend="torch"), 1, threshold=0.9)
    before = models[None]
    os.replace(write_model(tmp_path / "other.safetensors", solar_cells, classes=OTHER_ORDER), first)
    assert [one["status"] for one in asyncio.run(models.reload())] == ["loaded", "unchanged"]
    for held in (before, models[None]):
        found = models.beyond(held)
        assert found is not None
        cascade, second = found
        assert tuple(second.classes[column] for column in cascade.columns) == held.classes
    assert before.classes != models[None].classes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("MODEL", "--cascade"), "needs two models"),
        (("MODEL", "--threshold", "0.9"), "is for --cascade"),
        (("MODEL", "large=MODEL", "--cascade"), "no threshold is known for it; give --threshold"),
        (("MODEL", "OTHER", "--cascade", "--threshold", "0.9"), "two models of the same classes"),
    ],
)
def test_what_is_no_cascade_is_refused_in_one_line(
    served_file: Path, solar_cells: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    other = write_model(tmp_path / "other.safetensors", solar_cells, classes=("x", "y"))
    given = [word.replace("MODEL", str(served_file)).replace("OTHER", str(other)) for word in words]
    server = RunningServer(tuple(given), tmp_path / "log")
    assert ends(server.process, timeout=60)[0] not in (0, None)
    assert said in server.said
    assert len(server.said.strip().splitlines()) == 1, server.said
