"""A Predictor answers for whatever form an image has, once each, and one bad image is an answer too."""

from __future__ import annotations

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import reinception as ri
from reinception.errors import ReinceptionError, UsageError
from reinception.inference.predict import Prediction


@pytest.fixture(scope="module")
def predictor(place: Path) -> ri.Predictor:
    return ri.Predictor(place / "model.safetensors", precision="fp32", backend="torch")


@pytest.fixture(scope="module")
def paths(place: Path) -> list[Path]:
    return sorted((place / "images").rglob("*.png"))


def test_the_form_of_an_image_changes_no_bit(predictor: ri.Predictor, paths: list[Path]) -> None:
    path = paths[0]
    with Image.open(path) as image:
        colour = np.array(image.convert("RGB"))
        forms = [
            path,
            str(path),
            path.read_bytes(),
            bytearray(path.read_bytes()),
            image.copy(),
            image.convert("RGBA"),
            colour,
            colour[:, :, 0],
            colour[:, :, :1],
            torch.from_numpy(colour).permute(2, 0, 1),
            torch.from_numpy(colour),
        ]
    answers = predictor(forms)
    assert {one.error for one in answers} == {None}
    assert len({one.probabilities.tobytes() for one in answers if one.probabilities is not None}) == 1
    for form in forms:
        one = predictor(form)
        assert isinstance(one, Prediction)
        assert one.label == answers[0].label and one.probability == answers[0].probability


def test_answers_are_those_of_predict(predictor: ri.Predictor, paths: list[Path], place: Path) -> None:
    wanted = ri.predict(place / "model.safetensors", paths, compute=ri.Compute(precision="fp32"))
    got = predictor(paths)
    assert [one.to_json() for one in got] == [one.to_json() for one in wanted]
    many = predictor(paths * 5)  # as many as are computed together
    assert [one.label for one in many] == [one.label for one in wanted] * 5
    assert got[0].labels[0].label == got[0].label and len(got[0].labels) == 2
    assert got[0].probabilities is not None and got[0].probabilities.sum() == pytest.approx(1)


def test_an_open_file_and_its_path_are_the_same_image(predictor: ri.Predictor, tmp_path: Path) -> None:
    """Also where the file says which way is up, is grey, deep or partly transparent."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[:, :, :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(noise).save(tmp_path / "clear.png")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(noise[:, :, 0]).save(tmp_path / "grey.png")
    Image.fromarray(noise[:, :, :3]).quantize(16).save(tmp_path / "palette.gif")
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as image:
            by_image, by_path = predictor([image, path])
        assert by_image.error is None is by_path.error
        assert by_image.probabilities is not None and by_path.probabilities is not None
        assert by_image.probabilities.tobytes() == by_path.probabilities.tobytes(), path.name


def test_one_bad_image_is_an_answer_with_an_error(predictor: ri.Predictor, paths: list[Path], tmp_path: Path) -> None:
    bad = [
        tmp_path / "gone.png",
        b"",
        b"<!doctype html>",
        paths[0].read_bytes()[:500],
        Image.open(io.BytesIO(paths[0].read_bytes()[:500])),
        np.zeros((8, 8, 3), dtype=np.float32),
        np.zeros((8, 8, 2), dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        torch.zeros(3, 8, 8),
        torch.zeros(8, dtype=torch.uint8),
        None,
        7,
    ]
    answers = predictor([paths[0], *bad, paths[1]])
    assert [one.error is None for one in answers] == [True, *[False] * len(bad), True]
    for one in answers[1:-1]:
        assert one.error and "\n" not in one.error
        assert (one.label, one.probability, one.labels, one.probabilities) == (None, None, (), None)
    assert answers[1].path == str(bad[0]) and answers[2].path == "image 2"
    assert "uint8" in (answers[6].error or "")
    (alone,) = predictor([b"no"])
    assert alone.error
    single = predictor(b"no")
    assert isinstance(single, Prediction) and single.error
    found = predictor.features([b"no", paths[0]])
    assert isinstance(found, list)
    assert found[0].values is None and found[0].error and found[1].values is not None
    assert predictor([]) == []
    (line,) = predictor([np.zeros((1, 60_000, 3), dtype=np.uint8)])  # as wide as nobody would resize whole
    assert line.error is None


def test_a_dict_of_arrays_gives_a_dict_of_arrays(predictor: ri.Predictor, paths: list[Path]) -> None:
    images = np.stack([np.array(Image.open(path).convert("RGB")) for path in paths])
    found = predictor({"image": images})
    assert set(found) == {"label", "probability", "probabilities", "error"}
    answers = predictor(paths)
    assert found["label"].tolist() == [one.label for one in answers]
    assert found["probability"].tolist() == pytest.approx([one.probability for one in answers])
    assert found["probabilities"].shape == (4, 2) and found["probabilities"].dtype == np.float32
    assert found["error"].tolist() == [None] * 4
    mixed = np.empty(2, dtype=object)
    mixed[:] = [paths[0].read_bytes(), b"no"]
    half = predictor({"image": mixed})
    assert half["label"][1] is None and np.isnan(half["probability"][1]) and np.isnan(half["probabilities"][1]).all()
    assert half["error"][0] is None and half["error"][1]
    pooled = predictor.features({"image": images})
    assert isinstance(pooled, dict)
    assert pooled["features"].shape == (4, 203) and pooled["error"].tolist() == [None] * 4
    assert predictor({"image": []})["probabilities"].shape == (0, 2)
    kept = np.array(["a", "b", "c", "d"])
    assert predictor({"image": images, "path": kept})["path"] is kept
    assert predictor.features({"image": images, "path": kept})["path"] is kept  # pyrefly: ignore
    with pytest.raises(UsageError, match="belong under 'image'; there is 'images'"):
        predictor({"images": images})


def test_a_batch_of_arrays_or_tensors_is_a_list_of_images(predictor: ri.Predictor, paths: list[Path]) -> None:
    images = np.stack([np.array(Image.open(path).convert("RGB")) for path in paths])
    wanted = [one.to_json()["labels"] for one in predictor(paths)]
    for batch in (images, torch.from_numpy(images).permute(0, 3, 1, 2), tuple(images)):
        answers = predictor(batch)
        assert isinstance(answers, list)
        assert [one.to_json()["labels"] for one in answers] == wanted


def test_features_are_those_of_the_verb(predictor: ri.Predictor, paths: list[Path], place: Path) -> None:
    wanted = ri.features(place / "model.safetensors", paths, compute=ri.Compute(precision="fp32"))
    got = predictor.features(paths)
    assert isinstance(got, list)
    values = [one.values for one in got if one.values is not None]
    assert np.array_equal(np.stack(values), wanted.values)


def test_it_travels_as_its_path_or_with_its_model(predictor: ri.Predictor, paths: list[Path], place: Path) -> None:
    wanted = [one.to_json() for one in predictor(paths)]
    packed = pickle.dumps(predictor)
    assert len(packed) < 1000
    assert [one.to_json() for one in pickle.loads(packed)(paths)] == wanted
    with_model = ri.Predictor(ri.load(place / "model.safetensors"), precision="fp32", top=1)
    packed = pickle.dumps(with_model)
    assert len(packed) > 100_000
    again = pickle.loads(packed)
    assert [len(one.labels) for one in again(paths)] == [1] * 4
    assert [one.label for one in again(paths)] == [one["labels"][0]["label"] for one in wanted]


def test_several_threads_may_ask_at_once(predictor: ri.Predictor, paths: list[Path]) -> None:
    wanted = [one.to_json() for one in predictor(paths)]
    with ThreadPoolExecutor(4) as pool:
        for asked in [pool.submit(predictor, paths) for _ in range(8)]:
            answers: Any = asked.result()
            assert [one.to_json() for one in answers] == wanted


def test_a_subclass_whose_calls_all_run_in_one_thread_gets_its_answers(paths: list[Path], place: Path) -> None:
    """As Ray Data's does: a call that called itself would wait for the thread that it runs in."""
    one_thread = ThreadPoolExecutor(1)

    class OneThread(ri.Predictor):
        def __call__(self, images: Any) -> Any:
            return one_thread.submit(super().__call__, images).result(timeout=60)

    held = OneThread(place / "model.safetensors", precision="fp32", backend="torch")
    content = np.array([path.read_bytes() for path in paths], dtype=object)
    assert list(held({"image": content})["label"]) == [one.label for one in held(paths)]
    assert held(paths[0]).label == held(paths)[0].label


def test_what_does_not_exist_is_refused_in_one_line(place: Path) -> None:
    model = place / "model.safetensors"
    with pytest.raises(UsageError, match=r"^backend 'tpu' is unknown; it is auto or torch or inductor or openvino$"):
        ri.Predictor(model, backend="tpu")  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(UsageError, match=r"^device cuda:99: no such device here"):
        ri.Predictor(model, device="cuda:99")
    with pytest.raises(UsageError, match="precision 'fp8' is unknown"):
        ri.Predictor(model, precision="fp8")  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(ReinceptionError, match="no such model file"):
        ri.Predictor(place / "gone.safetensors")
