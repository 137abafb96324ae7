"""What evaluation and prediction promise: each image once, bad ones named, the same numbers in every arrangement."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from reinception import family, machine, metrics
from reinception.data.images.crops import crop_boxes, crop_pixels, evaluation_pixels
from reinception.data.images.decode import Pixels, decode
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record, Source
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.inference.compute import Compute
from reinception.inference.evaluate import (
    MOST_CLASSES_IN_A_MATRIX,
    OWN_CROP,
    CropProtocol,
    Evaluation,
    _confusion,
    average,
    evaluate_records,
)
from reinception.inference.predict import csv_writer, json_writer, predict
from reinception.inference.stream import expand
from reinception.metrics import PredictionTable, calibration
from reinception.model.artifact import Manifest, Model
from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing, ResizeRule, many_crops, single_crop

CLASSES = ("defective", "functional")


def evaluate(
    models: Sequence[Model],
    records: Sequence[Record],
    classes: Sequence[str],
    *,
    protocol: CropProtocol = OWN_CROP,
    **compute: Any,
) -> Evaluation:
    """`evaluate_records` in this process, `compute` being fields of `Compute`."""
    fields: dict[str, Any] = {"workers": 0, "backend": "torch", **compute}
    return evaluate_records(models, records, classes, protocol=protocol, compute=Compute(**fields))


def narrow_model(
    seed: int, *, classes: tuple[str, ...] = CLASSES, resize: ResizeRule = "whole", width: float = 0.05
) -> Model:
    """A very narrow Inception-v3 with random weights."""
    arch = family.network("inception_v3", num_classes=len(classes), width=width, input_size=75, aux="none")
    preprocessing = Preprocessing(input_size=75, resize=resize)
    manifest = Manifest(arch=arch, classes=classes, preprocessing=preprocessing)
    return Model(build(arch, seed=seed).eval(), manifest)


def lively_model(seed: int, *, resize: ResizeRule = "whole", width: float = 0.05) -> Model:
    """The same with batch-norm statistics of real pixels: its predictions differ clearly from image to image."""
    network, manifest = narrow_model(seed, resize=resize, width=width)
    network.set_batch_norm_decay(0)
    pixels = [evaluation_pixels(decode(record.path), Preprocessing(input_size=75)) for record in cells(8)]
    with torch.no_grad():
        network.train()(torch.from_numpy(np.stack(pixels).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2))
        network.classifier.weight *= 20
    return Model(network.eval(), manifest)


@cache
def cells(count: int) -> tuple[Record, ...]:
    """Solar cells of both classes, by turns."""
    elpv = open_source("elpv")
    by_class = [[record for record in elpv.records if record.target == target] for target in (0, 1)]
    return tuple(record for pair in zip(*by_class, strict=False) for record in pair)[:count]


@pytest.fixture(scope="module")
def model() -> Model:
    return lively_model(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two class folders with six solar cells each."""
    root = tmp_path_factory.mktemp("cells")
    for record in cells(12):
        target = root / ("functional", "defective")[record.target]
        target.mkdir(exist_ok=True)
        shutil.copy(record.path, target)
    return root


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return open_source(folder)


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path) -> Source:
    """The same folder with one file cut short and one that is a web page."""
    copy = shutil.copytree(folder, tmp_path / "spoilt")
    cut, page = sorted(copy.rglob("*.png"))[3:5]
    cut.write_bytes(cut.read_bytes()[:2000])
    page.write_text("<!doctype html><title>404</title>")
    return open_source(copy)


pytestmark = pytest.mark.usefixtures("one_thread")


def same(one: PredictionTable, other: PredictionTable) -> bool:
    """The same images and the same bits."""
    return one.names == other.names and one.probabilities.tobytes() == other.probabilities.tobytes()


def by_hand(network: Network, pixels: Sequence[Pixels]) -> npt.NDArray[np.float64]:
    """Float64 probabilities of pictures (h, w, 3): another computation, of which float32's rounding is no part."""
    images = torch.from_numpy(np.stack(pixels).astype(np.float64) / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        return copy.deepcopy(network).double()(images).softmax(dim=1).numpy()


ROUNDING = 5e-4
"""Between float32 and float64, in networks that magnify every difference (`lively_model`)."""


def test_the_table_holds_the_softmax_of_the_network_on_each_image(model: Model, source: Source) -> None:
    network, manifest = model
    evaluation = evaluate([model], source.records, source.classes)
    assert evaluation.table.names == tuple(record.name for record in source.records)
    assert evaluation.table.targets.tolist() == [record.target for record in source.records]
    assert evaluation.table.probabilities.std(axis=0).min() > 0.01  # else this test would prove nothing
    for row in (0, 5, 11):
        (wanted,) = by_hand(network, [evaluation_pixels(decode(source.records[row].path), manifest.preprocessing)])
        assert evaluation.table.probabilities[row] == pytest.approx(wanted, abs=ROUNDING)


def test_batch_size_and_workers_change_nothing(model: Model, source: Source) -> None:
    tables = [
        evaluate([model], source.records, source.classes, batch_size=size, workers=workers).table
        for size, workers in [(12, 0), (1, 0), (5, 0), (7, 2)]
    ]
    assert all(same(tables[0], table) for table in tables[1:])


@pytest.mark.parametrize("first", [1, 3, 10])
def test_the_place_of_an_image_among_the_others_changes_no_bit(first: int) -> None:
    """Rows of 203 features begin at other places within 64 bytes, which MKL's sums depend on (seen with AVX2)."""
    model = lively_model(3, width=0.1)
    assert model[0].num_features == 203
    records = cells(24)
    table = evaluate([model], records, CLASSES).table
    turned = evaluate([model], [*records[first:], *records[:first]], CLASSES).table
    assert np.array_equal(np.roll(turned.probabilities, first, axis=0), table.probabilities)


def test_an_image_that_cannot_be_read_is_named_and_counted_and_the_rest_go_on(model: Model, spoilt: Source) -> None:
    evaluation = evaluate([model], spoilt.records, spoilt.classes, batch_size=4)
    assert (evaluation.num_listed, evaluation.num_images, len(evaluation.bad)) == (12, 10, 2)
    cut, page = evaluation.bad
    bad = [spoilt.records[3].name, spoilt.records[4].name]
    assert [cut.name, page.name] == bad
    assert (cut.kind, page.kind) == ("truncated", "not_an_image")
    assert "web page" in page.reason
    good = [record for record in spoilt.records if record.name not in bad]
    assert same(evaluation.table, evaluate([model], good, spoilt.classes).table)


def test_images_of_which_none_can_be_read_are_an_error(model: Model, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no")
    records = [Record(path=tmp_path / "x.png", name="x.png", target=0)]
    with pytest.raises(ReinceptionError, match=r"none of the 1 images could be scored: .*x\.png"):
        evaluate([model], records, CLASSES)
    with pytest.raises(ReinceptionError, match="none of the 0 images"):
        evaluate([model], [], CLASSES)
    with pytest.raises(ReinceptionError, match="at least one model"):
        evaluate([], records, CLASSES)


def test_an_ensemble_averages_probabilities_whatever_the_order(source: Source) -> None:
    models = [lively_model(1), lively_model(2, resize="central_crop"), lively_model(3, resize="shorter_side")]
    alone = [evaluate([model], source.records, source.classes).table for model in models]
    together = evaluate(models, source.records, source.classes)
    turned = evaluate(models[::-1], source.records, source.classes)
    mean = np.mean([table.probabilities.astype(np.float64) for table in alone], axis=0)
    assert np.abs(together.table.probabilities - mean).max() < 1e-6
    assert together.table.probabilities.tobytes() == turned.table.probabilities.tobytes()
    assert together.summary()["num_models"] == 3


def test_an_ensemble_of_one_is_the_model(model: Model) -> None:
    rows = np.random.default_rng(0).dirichlet([1, 1], 5).astype(np.float32)
    assert average([rows]).tobytes() == rows.tobytes()
    assert average([rows, rows]) == pytest.approx(rows, abs=1e-7)


def test_labels_are_matched_by_name_not_by_number(model: Model, source: Source) -> None:
    wanted = evaluate([model], source.records, source.classes).summary()
    turned = [
        Record(path=record.path, name=record.name, target=1 - record.target)  # the same labels in the other order
        for record in source.records
    ]
    got = evaluate([model], turned, source.classes[::-1]).summary()
    assert got == wanted
    one_class = [record for record in source.records if source.classes[record.target] == "functional"]
    alone = evaluate([model], [Record(path=r.path, name=r.name, target=0) for r in one_class], ["functional"])
    assert alone.table.classes == CLASSES
    assert set(alone.table.targets.tolist()) == {1}


def test_a_class_the_model_does_not_know_is_an_error(model: Model, source: Source) -> None:
    with pytest.raises(ReinceptionError, match="does not know 'broken'; its classes are 'defective', 'functional'"):
        evaluate([model], source.records, ["broken", "functional"])


def test_models_with_different_classes_are_no_ensemble(model: Model, source: Source) -> None:
    with pytest.raises(ReinceptionError, match="the same classes in the same order"):
        evaluate([model, narrow_model(1, classes=("functional", "defective"))], source.records, source.classes)


def test_a_network_that_gives_no_numbers_is_an_error(source: Source) -> None:
    network, manifest = narrow_model(4)
    with torch.no_grad():
        network.classifier.weight[0, 0] = torch.nan
    with pytest.raises(ReinceptionError, match="not finite"):
        evaluate([Model(network, manifest)], source.records, source.classes)


def test_a_network_in_training_is_evaluated_in_evaluation_mode_and_goes_on_training(source: Source) -> None:
    network, manifest = narrow_model(5)
    wanted = evaluate([Model(network, manifest)], source.records, source.classes).table
    before = {name: value.clone() for name, value in network.state_dict().items()}
    got = evaluate([Model(network.train(), manifest)], source.records, source.classes).table
    assert network.training
    assert got.probabilities.tobytes() == wanted.probabilities.tobytes()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_summary_is_strict_json_with_errors_in_percent_and_exact_counts(model: Model, spoilt: Source) -> None:
    evaluation = evaluate([model], spoilt.records, spoilt.classes)
    summary = json.loads(json.dumps(evaluation.summary(), allow_nan=False))
    wrong = int((evaluation.table.probabilities.argmax(axis=1) != evaluation.table.targets).sum())
    assert (summary["num_listed"], summary["num_images"], summary["protocol"]) == (12, 10, "single crop")
    assert (summary["top1_error"], summary["top1_error_count"]) == (100 * wrong / 10, wrong)
    low, high = metrics.wilson(wrong, 10)
    assert summary["top1_error_interval"] == [100 * low, 100 * high]
    assert (summary["top5_error"], summary["top5_error_count"]) == (0, 0)
    assert [one["label"] for one in summary["per_class"]] == list(CLASSES)
    assert sum(one["support"] for one in summary["per_class"]) == 10
    assert np.array(summary["confusion"]).sum() == 10
    assert summary["calibration_error"] == calibration.calibration_error(evaluation.table)
    assert sum(one["n"] for one in summary["reliability"]) == 10
    low, high = summary["bootstrap_intervals"]["balanced_accuracy"]
    assert low <= summary["balanced_accuracy"] <= high
    assert summary["per_class"][0]["auroc"] + summary["per_class"][1]["auroc"] == pytest.approx(
        2 * summary["per_class"][0]["auroc"]
    )
    assert summary["majority_class_error"] == pytest.approx(100 * 4 / 10)
    assert [one["path"] for one in summary["refused"]] == [one.name for one in evaluation.bad]
    assert (summary["precision"], summary["preprocessing"][0]["input_size"]) == ("fp32", 75)


def test_of_very_many_classes_only_the_cells_that_are_not_empty_are_in_the_json() -> None:
    num, rng = MOST_CLASSES_IN_A_MATRIX + 1, np.random.default_rng(0)
    probabilities = rng.random((40, num), dtype=np.float32)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    table = PredictionTable(
        names=tuple(map(str, range(40))),
        targets=rng.integers(0, 3, 40),
        probabilities=probabilities,
        classes=tuple(f"c{number:04}" for number in range(num)),
    )
    found = Evaluation(table=table, bad=(), num_listed=40, protocol={"protocol": "one crop"}).summary()
    assert "confusion" not in found
    rebuilt = np.zeros((num, num), dtype=np.int64)
    for true, predicted, images in found["confusion_cells"]:
        rebuilt[true, predicted] = images
    assert np.array_equal(rebuilt, metrics.confusion(table))
    assert len(found["confusion_cells"]) <= 40
    fewer = probabilities[:, :1000] / probabilities[:, :1000].sum(axis=1, keepdims=True)
    few = dataclasses.replace(table, probabilities=fewer, classes=table.classes[:1000])
    assert np.array_equal(_confusion(metrics.confusion(few))["confusion"], metrics.confusion(few))


def test_the_predictions_of_an_evaluation_can_be_written_and_read(model: Model, source: Source, tmp_path: Path) -> None:
    evaluation = evaluate([model], source.records, source.classes)
    read = PredictionTable.load_csv(evaluation.save_csv(tmp_path / "test.csv"))
    assert read.probabilities.tobytes() == evaluation.table.probabilities.tobytes()


def test_progress_counts_every_image_of_every_model(model: Model, spoilt: Source) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(
        [model, model],
        spoilt.records,
        spoilt.classes,
        batch_size=8,
        progress=lambda done, all_: seen.append((done, all_)),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (24, 24)


def test_auto_computes_in_bf16_where_the_processor_has_it_and_gives_float32_probabilities(source: Source) -> None:
    network, manifest = narrow_model(6)
    seen: set[torch.dtype] = set()
    network.get_submodule("stem.0.conv").register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    exact = evaluate([Model(network, manifest)], source.records, source.classes)
    assert seen == {torch.float32}
    seen.clear()
    quick = evaluate([Model(network, manifest)], source.records, source.classes, precision="auto")
    has_it = machine.has_bf16(machine.choose_device())
    assert seen == {torch.bfloat16 if has_it else torch.float32}
    assert quick.summary()["precision"] == ("bf16" if has_it else "fp32")
    assert np.abs(exact.table.probabilities - quick.table.probabilities).max() < 0.01


def test_bf16_is_refused_on_a_processor_that_would_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True})
    assert machine.precision("auto", cpu) == torch.float32
    with pytest.raises(UsageError, match="no bfloat16 arithmetic"):
        machine.precision("bf16", cpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_bf16": True})
    assert machine.precision("auto", cpu) == machine.precision("bf16", cpu) == torch.bfloat16
    assert machine.precision("fp32", cpu) == torch.float32
    with pytest.raises(UsageError, match="fp16"):
        machine.precision("fp16", cpu)  # type: ignore[arg-type]


# -- many crops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [10, 12, 144])
def test_many_crops_are_the_average_of_tables_made_crop_by_crop(model: Model, num: int, tmp_path: Path) -> None:
    _, manifest = model
    records = [Record(path=tmp_path / f"{i}.png", name=f"{i}.png", target=i) for i in range(2)]
    for record, (width, height) in zip(records, ((150, 110), (110, 150)), strict=True):  # all crops are distinct
        with Image.open(cells(1)[0].path) as cell:
            cell.resize((width, height)).save(record.path)
    crops = many_crops(num, 75)
    together = evaluate([model], records, CLASSES, protocol=CropProtocol(crops=num), batch_size=31)
    cut = []
    for record in records:  # every crop as a picture of its own
        image = decode(record.path)
        for number, (_, crop) in enumerate(crop_boxes(image.shape[1], image.shape[0], crops)):
            path = tmp_path / f"{record.target}_{number}.png"
            Image.fromarray(crop_pixels(image, [crop], manifest.preprocessing)[0]).save(path)
            cut.append(Record(path=path, name=path.name, target=record.target))
    tables = evaluate([model], cut, CLASSES).table.probabilities.reshape(2, num, 2).swapaxes(0, 1)
    assert np.abs(together.table.probabilities - tables.mean(axis=0, dtype=np.float64)).max() < 1e-6
    assert np.std(tables, axis=0).min() > 0.001  # else this test would prove nothing
    again = evaluate([model], records[::-1], CLASSES, protocol=CropProtocol(crops=num), batch_size=5)
    assert again.table.probabilities[::-1].tobytes() == together.table.probabilities.tobytes()


def test_144_crops_are_four_scales_of_12_where_the_picture_is_square(model: Model, source: Source) -> None:
    network, manifest = model
    crops = many_crops(144, 75)
    records = source.records[::4]  # of both classes
    together = evaluate([model], records, source.classes, protocol=CropProtocol(crops=144), batch_size=31)
    image = decode(records[0].path)
    rows = by_hand(
        network, list(crop_pixels(image, [c for _, c in crop_boxes(300, 300, crops)], manifest.preprocessing))
    )
    assert len(rows) == 144
    assert np.abs(together.table.probabilities[0] - rows.mean(axis=0)).max() < ROUNDING
    assert together.summary()["protocol"] == "144 crops (scales 86, 96, 107, 118)"
    assert together.summary()["crops"] == [{"num_crops": 144, "scales": [86, 96, 107, 118], "num_squares": 3}]
    one_by_one = [crops_of(model, records, source.classes, scale).table.probabilities for scale in crops.scales]
    assert np.abs(together.table.probabilities - np.mean(one_by_one, axis=0, dtype=np.float64)).max() < 1e-6


def crops_of(model: Model, records: Sequence[Record], classes: Sequence[str], scale: int) -> Evaluation:
    return evaluate([model], records, classes, protocol=CropProtocol(crops=12, scales=(scale,)))


def test_an_ensemble_over_crops_is_the_average_of_its_members_tables(source: Source) -> None:
    models = [lively_model(1), lively_model(2)]
    alone = [
        evaluate([one], source.records, source.classes, protocol=CropProtocol(crops=12)).table.probabilities
        for one in models
    ]
    together = evaluate(models, source.records, source.classes, protocol=CropProtocol(crops=12))
    turned = evaluate(models[::-1], source.records, source.classes, protocol=CropProtocol(crops=12))
    assert np.abs(together.table.probabilities - np.mean(alone, axis=0, dtype=np.float64)).max() < 1e-6
    assert together.table.probabilities.tobytes() == turned.table.probabilities.tobytes()
    one = evaluate(models[:1], source.records, source.classes, protocol=CropProtocol(crops=12))
    assert one.table.probabilities.tobytes() == alone[0].tobytes()


@pytest.mark.parametrize("crops", [10, 144])
def test_batch_size_workers_and_bad_files_change_no_crop(model: Model, spoilt: Source, crops: int) -> None:
    wanted = evaluate([model], spoilt.records, spoilt.classes, protocol=CropProtocol(crops=crops), batch_size=64)
    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int | None) -> None:
        assert total is not None
        seen.append((done, total))

    for size, workers in ((7, 0), (50, 2)):
        seen.clear()
        got = evaluate(
            [model],
            spoilt.records,
            spoilt.classes,
            protocol=CropProtocol(crops=crops),
            batch_size=size,
            workers=workers,
            progress=watch,
        )
        assert same(got.table, wanted.table)
        assert [one.name for one in got.bad] == [one.name for one in wanted.bad]
        assert seen == sorted(seen)
        assert seen[-1] == (12, 12)


def test_a_named_rule_replaces_the_models_own_single_crop(model: Model, source: Source) -> None:
    network, manifest = model
    named = evaluate([model], source.records, source.classes, protocol=CropProtocol(resize="torchvision"))
    changed = dataclasses.replace(manifest, preprocessing=single_crop("torchvision", manifest.preprocessing))
    assert same(named.table, evaluate([Model(network, changed)], source.records, source.classes).table)
    assert named.summary()["protocol"] == "single crop (torchvision rule)"
    with pytest.raises(UsageError, match="is for a single crop"):
        evaluate([model], source.records, source.classes, protocol=CropProtocol(resize="tf", crops=12))
    with pytest.raises(UsageError, match="scales are for"):
        evaluate([model], source.records, source.classes, protocol=CropProtocol(scales=(80,)))


def test_excluded_images_are_left_out_and_unknown_ones_are_an_error(source: Source) -> None:
    first, second = source.records[:2]
    kept = source.without(frozenset({first.name, second.path.name})).records
    assert kept == source.records[2:]
    with pytest.raises(ReinceptionError, match=r"not there: 'gone\.png'"):
        source.without(frozenset({"gone.png"}))


# -- predict -----------------------------------------------------------------------------------------------------------


def meant(*paths: str | Path) -> list[Path]:
    return [item.path for item in expand(paths) if isinstance(item, Record)]


def test_files_folders_and_globs_become_files_in_the_order_given(folder: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted((folder / "functional").iterdir())
    star = tmp_path / "a*.png"
    shutil.copy(first, star)
    shutil.copy(second, tmp_path / "ab.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    defective = sorted((folder / "defective").iterdir())
    assert meant(second, folder / "defective", first) == [second, *defective, first]
    assert meant(star) == [star]  # a file of that very name is not a pattern
    assert meant(str(folder / "*" / f"{first.stem}.*")) == [first]
    assert meant(tmp_path) == [star, tmp_path / "ab.png"]
    for bad in (tmp_path / "empty", tmp_path / "none-*.png"):
        (nothing,) = expand([bad])
        assert isinstance(nothing, BadImage)
        assert nothing.name == str(bad)


def test_prediction_ranks_labels_and_names_bad_files_in_the_order_given(
    model: Model, spoilt: Source, tmp_path: Path
) -> None:
    good, cut, page = (spoilt.records[row].path for row in (0, 3, 4))
    paths = [cut, good, tmp_path / "gone.png", good, str(tmp_path / "*.gif"), page]
    predictions = predict(model, paths, compute=Compute(precision="fp32"))
    assert [one.path for one in predictions] == [str(path) for path in paths]
    assert [one.error is None for one in predictions] == [False, True, False, True, False, False]
    assert "no such file" in (predictions[2].error or "")
    row = evaluate([model], spoilt.records[:1], spoilt.classes).table.probabilities[0]
    for one in (predictions[1], predictions[3]):
        assert [label.label for label in one.labels] == [CLASSES[index] for index in np.argsort(-row)]
        assert [label.probability for label in one.labels] == pytest.approx(sorted(row, reverse=True), abs=ROUNDING)
    (best,) = predict(model, [good], top=1)
    assert [one.label for one in best.labels] == [predictions[1].labels[0].label]
    with pytest.raises(UsageError, match="top must be at least 1"):
        predict(model, [good], top=0)


def test_one_path_is_one_image_and_not_a_list_of_letters(model: Model, folder: Path) -> None:
    path = min(folder.rglob("*.png"))
    for one in (path, str(path)):
        (answer,) = predict(model, one)
        assert Path(answer.path) == path
        assert answer.error is None


def test_a_folder_names_its_bad_pictures_and_leaves_out_what_is_none(model: Model, spoilt: Source) -> None:
    (spoilt.root / "notes.txt").write_text("not a picture")
    predictions = predict(model, [spoilt.root])
    bad = [one.path for one in predictions if one.error]
    assert len(predictions) == 12
    assert bad == [str(spoilt.records[3].path), str(spoilt.records[4].path)]


def test_predictions_are_written_as_the_json_and_csv_that_others_read(
    model: Model, spoilt: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = spoilt.records[0].path, spoilt.records[3].path
    predictions = predict(model, [good, bad])
    with json_writer("-") as write:
        for one in predictions:
            write(one)
    first, second = json.loads(capsys.readouterr().out)
    assert first["path"] == str(good)
    assert first["error"] is None
    assert {one["label"] for one in first["labels"]} == set(CLASSES)
    assert sum(one["probability"] for one in first["labels"]) == pytest.approx(1, abs=1e-5)
    assert (second["path"], second["labels"]) == (str(bad), [])
    assert second["error"]
    with csv_writer(tmp_path / "p.csv", model.classes) as write:
        for one in predictions:
            write(one)
    with (tmp_path / "p.csv").open(newline="") as file:
        one, two = csv.DictReader(file)
    assert list(one) == ["path", "label", "predicted", "p_defective", "p_functional", "error"]
    assert (one["predicted"], one["error"]) == (predictions[0].labels[0].label, "")
    assert float(one[f"p_{one['predicted']}"]) == pytest.approx(predictions[0].labels[0].probability, abs=1e-7)
    assert (two["predicted"], two["p_defective"], two["error"]) == ("", "", predictions[1].error)
    with pytest.raises(ReinceptionError, match="exists already"), json_writer(tmp_path / "p.csv"):
        pass
