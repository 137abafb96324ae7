"""Distillation: what the teacher says of an image's views, how it is kept, and the loss that it is learned by."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from command import SMALLEST, Command
from reinception.data.loading.loader import Batch, TrainingStream, normalise
from reinception.data.sources.open_source import open_source
from reinception.distributed import Ranks
from reinception.errors import ReinceptionError, UsageError
from reinception.files import cache_folder
from reinception.inference.compute import Compute
from reinception.inference.evaluate import evaluate_records
from reinception.model.artifact import load, save
from reinception.train.distill import Teacher, TeacherTargets, distillation_loss
from reinception.train.loss import Losses

VIEWS = 2


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory: pytest.TempPathFactory, place: Path) -> Path:
    """A model of the classes of `place` whose answers differ from image to image."""
    model = load(place / "model.safetensors")
    with torch.no_grad():
        model.network.classifier.weight.mul_(4e5)  # features of random weights hardly differ
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save(model.network, path, model.manifest)
    return path


def stream(place: Path, **changes: Any) -> TrainingStream:
    source = open_source(place / "images")
    one = TrainingStream(
        source.records, input_size=75, augmentation="gentle", batch_size=3, seed=5, workers=0, views=VIEWS
    )
    return replace(one, **changes)


def answers(
    path: Path, one: TrainingStream, classes: tuple[str, ...] = ("defective", "functional")
) -> npt.NDArray[np.float32]:
    teacher = Teacher(path=path, classes=classes, stream=one, compute=Compute(batch_size=2))
    said = teacher.targets(Ranks(torch.device("cpu")), say=lambda _: None, check=lambda: None)
    return said.numpy()


# -- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "loss", "gradient"),
    [(1, 0.657555, -0.533480), (2, 1.064867, -0.663815), (4, 1.254735, -0.692588), (8, 1.312809, -0.687165)],
)
def test_the_gradient_keeps_its_size_at_any_temperature(temperature: float, loss: float, gradient: float) -> None:
    student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    found = distillation_loss(student, torch.tensor([[2.0, 0.0, -2.0]], dtype=torch.float64), temperature)
    found.backward()
    assert float(found.detach()) == pytest.approx(loss, abs=1e-6)
    assert student.grad is not None
    assert float(student.grad[0, 0]) == pytest.approx(gradient, abs=1e-6)


def test_the_loss_is_summed_over_classes_and_averaged_over_images() -> None:
    teacher, student = torch.tensor([[2.0, 0.0, -2.0]]), torch.tensor([[0.5, 0.0, 1.0]])
    one = float(distillation_loss(student, teacher, 2.0))
    assert float(distillation_loss(student.repeat(2, 1), teacher.repeat(2, 1), 2.0)) == pytest.approx(one)
    impossible = torch.full((1, 4), -1e4)
    wide_student, wide_teacher = torch.cat([student, impossible], 1), torch.cat([teacher, impossible], 1)
    assert float(distillation_loss(wide_student, wide_teacher, 2.0)) == pytest.approx(one, rel=1e-6)


def test_a_student_that_agrees_has_no_loss_and_the_teacher_comes_first() -> None:
    teacher, student = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert float(distillation_loss(teacher, teacher, 2.0)) == pytest.approx(0, abs=1e-7)
    p = torch.softmax(teacher.double(), 1)
    expected = float((p * (p.log() - np.log(0.5))).sum())
    assert float(distillation_loss(student, teacher, 1.0)) == pytest.approx(expected, rel=1e-6)
    assert float(distillation_loss(teacher, student, 1.0)) != pytest.approx(expected, rel=1e-2)


def test_the_labels_keep_their_part_of_the_loss() -> None:
    logits = torch.tensor([[1.0, -1.0]])
    targets = TeacherTargets(log_probabilities=torch.zeros(1, 1, 2), weight=0.25, temperature=1.0)
    batch = Batch(
        images=torch.empty(1, 3, 1, 1, dtype=torch.uint8), targets=torch.tensor([0]), indices=torch.tensor([0]),
        epochs=torch.tensor([7]), epoch=7, step=0,
    )  # fmt: skip
    label = Losses(main=torch.tensor(8.0), auxiliary=None, total=torch.tensor(8.0))
    both = targets.added(label, logits, batch)
    assert float(both.main) == 8.0
    assert float(both.total) == pytest.approx(0.75 * 8 + 0.25 * float(distillation_loss(logits, torch.zeros(1, 2), 1)))


# -- what the teacher says ---------------------------------------------------------------------------------------------


def test_every_image_of_a_batch_meets_its_own_answer_of_its_own_view(place: Path, teacher_path: Path) -> None:
    one = stream(place)
    said = torch.from_numpy(answers(teacher_path, one))
    targets = TeacherTargets(log_probabilities=said, weight=0.5, temperature=1.0)
    model = load(teacher_path, with_aux=False)
    engine = Teacher(path=teacher_path, classes=model.classes, stream=one, compute=Compute())._engine
    for batch in one.numbered(range(5)):  # 15 images: every view of the four images, and beyond
        with torch.inference_mode():
            fresh = engine.network(normalise(batch.images, model.preprocessing)).float().log_softmax(1)
        torch.testing.assert_close(targets.of(batch), fresh, atol=1e-5, rtol=0)
    assert float((said[:, 0] - said[:, 1]).abs().max()) > 1e-3  # views are told apart


def test_the_student_of_another_size_seed_and_order_has_the_same_answers(place: Path, teacher_path: Path) -> None:
    first = answers(teacher_path, stream(place))
    before = set(cache_folder().rglob("*.teacher"))
    np.testing.assert_array_equal(first, answers(teacher_path, stream(place, seed=9, batch_size=4, input_size=96)))
    assert set(cache_folder().rglob("*.teacher")) == before  # they were read, not computed


def test_a_student_with_balanced_classes_has_the_same_answers(place: Path, teacher_path: Path) -> None:
    records = open_source(place / "images").records[:3]  # two of one class, one of the other
    plain, balanced = (stream(place, records=records, is_balanced=one) for one in (False, True))
    said = answers(teacher_path, plain)
    shutil.rmtree(cache_folder())
    np.testing.assert_array_equal(answers(teacher_path, balanced), said)


def test_the_teacher_sees_pixels_as_its_own_preprocessing_has_them(teacher_path: Path, tmp_path: Path) -> None:
    model, pixels = load(teacher_path), np.zeros((80, 80, 4), np.uint8)
    pixels[:40, :, 3] = 255  # black above, nothing below
    for name in ("defective", "functional"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(pixels).save(folder / f"{number}.png")
    manifest = replace(model.manifest, preprocessing=replace(model.preprocessing, background=(0, 0, 0)))
    save(model.network, tmp_path / "black.safetensors", manifest)
    one = stream(tmp_path, augmentation="none", views=1)
    on_white, on_black = answers(teacher_path, one), answers(tmp_path / "black.safetensors", one)
    assert np.abs(on_white - on_black).max() > 1e-3


def test_the_teacher_without_distortion_is_as_right_as_evaluate_says(place: Path, teacher_path: Path) -> None:
    source = open_source(place / "images")
    model = load(teacher_path, with_aux=False)
    records = list(source.records)
    table = evaluate_records([model], records, source.classes).table
    said = answers(teacher_path, stream(place, augmentation="none", views=1))[:, 0]
    assert (said.argmax(1) == table.probabilities.argmax(1)).all()
    np.testing.assert_allclose(np.exp(said), table.probabilities, atol=0.02)  # another resize filter


def test_classes_are_matched_by_name(place: Path, teacher_path: Path) -> None:
    one = stream(place)
    turned = answers(teacher_path, one, classes=("functional", "defective"))
    np.testing.assert_array_equal(turned[..., ::-1], answers(teacher_path, one))


def test_a_class_that_the_teacher_does_not_know_is_named(place: Path, teacher_path: Path) -> None:
    with pytest.raises(ReinceptionError, match="does not know"):
        answers(teacher_path, stream(place), classes=("cracked", "functional"))


def test_a_stream_without_views_has_no_answers_to_keep(place: Path, teacher_path: Path) -> None:
    with pytest.raises(UsageError, match="number of views"):
        answers(teacher_path, stream(place, views=None))


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_a_damaged_part_is_computed_again(place: Path, teacher_path: Path) -> None:
    first = answers(teacher_path, stream(place))
    (kept,) = cache_folder().rglob("*.teacher")
    content = bytearray(kept.read_bytes())
    content[len(content) // 3] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(first, answers(teacher_path, stream(place)))
    kept.write_bytes(content[: len(content) // 2])
    np.testing.assert_array_equal(first, answers(teacher_path, stream(place)))


def test_another_teacher_image_or_distortion_is_another_entry(place: Path, teacher_path: Path, tmp_path: Path) -> None:
    def keys() -> int:
        return len({path.name.partition("-")[0] for path in cache_folder().rglob("*.teacher")})

    answers(teacher_path, stream(place))
    model = load(teacher_path)
    with torch.no_grad():
        weight = model.network.classifier.weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(10.0))
    save(model.network, tmp_path / "other.safetensors", model.manifest)
    answers(tmp_path / "other.safetensors", stream(place))
    assert keys() == 2
    answers(teacher_path, stream(place, augmentation="crop"))
    assert keys() == 3
    copied = tmp_path / "copied"
    shutil.copytree(place / "images", copied / "images")
    answers(teacher_path, stream(copied))
    assert keys() == 3  # the same bytes elsewhere
    image = next((copied / "images").rglob("*.png"))
    content = bytearray(image.read_bytes())
    content += b"\0"
    image.write_bytes(content)
    answers(teacher_path, stream(copied))
    assert keys() == 4


# -- a run -------------------------------------------------------------------------------------------------------------


def test_train_learns_from_a_teacher_whose_answers_are_kept(
    command: Command, solar_cells: Path, small_run: Path, tmp_path: Path
) -> None:
    flags = ("--teacher", small_run, "--teacher-views", 2, "--temperature", 3, *SMALLEST, "--epochs", 1)
    first = command("train", solar_cells, "-o", tmp_path / "first", *flags)
    assert first.returncode == 0, first.stderr
    assert "answers for 2 views" in first.stderr
    again = command("train", solar_cells, "-o", tmp_path / "again", *flags)
    assert "answers for" not in again.stderr
    one, other = (load(tmp_path / name).network.state_dict() for name in ("first", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    alone = load(small_run).network.state_dict()  # the same run without a teacher
    assert not all(torch.equal(one[name], alone[name]) for name in one)


def test_a_teacher_that_cannot_be_read_is_named_before_anything_is_written(
    command: Command, solar_cells: Path, tmp_path: Path
) -> None:
    result = command("train", solar_cells, "-o", tmp_path / "run", "--teacher", tmp_path / "nothing", "--epochs", 1)
    assert result.returncode == 1
    assert "nothing" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
