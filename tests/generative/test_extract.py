"""From images to features: each image once, in an order of content, kept by content, and named where it is bad."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foreign_weights import random_network
from reinception import family
from reinception.data.sources.records import Record
from reinception.errors import ReinceptionError, UsageError
from reinception.generative import load_extractor
from reinception.generative.extract import SetFeatures, features_of_batch, features_of_records, records_of
from reinception.generative.extractor import FID_FILE, Extractor
from reinception.inference import feature_cache as cache_room
from reinception.inference.compute import Compute
from reinception.model.artifact import Manifest, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing
from reinception.rewrite.check import random_network as network_of
from reinception.weights.library_files import export

ONE = Compute(workers=0)


@pytest.fixture(scope="module")
def extractor(narrow_model: Path) -> Extractor:
    return load_extractor(narrow_model)


def _extract(extractor: Extractor, records: Sequence[Record], **options: object) -> SetFeatures:
    return features_of_records(extractor, records, Compute(**({"workers": 0} | options)))  # type: ignore[arg-type]


def test_every_image_is_used_whatever_the_batches(extractor: Extractor, real_folder: Path) -> None:
    records = records_of(real_folder)
    for num in (1, 31, 32, 33, 64):
        whole = _extract(extractor, records[:num])
        assert whole.features.shape == (num, extractor.num_features)
        for batch_size in (1, 7, 64):
            assert _extract(extractor, records[:num], batch_size=batch_size).features.tobytes() == (
                whole.features.tobytes()
            )


def test_order_workers_and_neighbours_change_no_bit(extractor: Extractor, real_folder: Path) -> None:
    records = list(records_of(real_folder))
    expected = _extract(extractor, records).features
    assert _extract(extractor, records[::-1]).features.tobytes() == expected.tobytes()
    assert _extract(extractor, records, workers=2, batch_size=9).features.tobytes() == expected.tobytes()
    alone = _extract(extractor, records[5:6]).features[0]
    assert any((row == alone).all() for row in expected)


def test_copies_are_computed_once_and_counted_each(extractor: Extractor, real_folder: Path) -> None:
    records = list(records_of(real_folder))[:20]
    found = _extract(extractor, records * 3)
    assert len(found.features) == 60 and found.num_distinct == 20 and found.num_found == 60
    assert (found.features.reshape(20, 3, -1) == found.features[::3][:, None]).all()


def test_a_batch_of_tensors_gives_the_features_of_the_files(extractor: Extractor, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 3, 60, 50), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{index}.png")
    from_files = {row.tobytes() for row in _extract(extractor, records_of(tmp_path)).features}
    assert {row.tobytes() for row in features_of_batch(extractor, pixels, ONE)} == from_files


def test_images_of_every_kind_are_converted_or_named(extractor: Extractor, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 256, size=(40, 40, *more), dtype=np.uint8) for more in ((), (3,)))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey, grey])).save(tmp_path / "grey_alpha.png")
    Image.fromarray(np.dstack([colour, grey])).save(tmp_path / "rgba.png")
    Image.fromarray(colour).convert("P").save(tmp_path / "palette.png", transparency=3)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.jpg")
    (tmp_path / "torn.png").write_bytes((tmp_path / "rgba.png").read_bytes()[:200])
    (tmp_path / "empty.png").touch()
    for workers in (0, 2):
        found = _extract(extractor, records_of(tmp_path), workers=workers)
        assert found.num_found == 8 and len(found.features) == 6
        assert [(error.name, error.kind) for error in found.errors] == [
            ("empty.png", "empty"),
            ("torn.png", "truncated"),
        ]


def test_a_folder_lists_each_image_once_whatever_its_ending(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    (tmp_path / "nested").mkdir()
    for name, kind in (
        ("a.jpg", "JPEG"),
        ("b.JPG", "JPEG"),
        ("c.JPEG", "JPEG"),
        ("d.Png", "PNG"),
        ("nested/e.webp", "WEBP"),
    ):
        Image.fromarray(pixels).save(tmp_path / name, format=kind)
    Image.fromarray(pixels).save(tmp_path / ".hidden.jpg")
    (tmp_path / "f.txt").write_text("no image")
    assert [record.name for record in records_of(tmp_path)] == ["a.jpg", "b.JPG", "c.JPEG", "d.Png", "nested/e.webp"]


def test_paths_that_are_no_images_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.png").touch()
    for name, said in (
        ("empty", "there is no image in this folder"),
        ("missing", "there is no such file or folder"),
        ("one.png", "is a single file"),
    ):
        with pytest.raises(ReinceptionError, match=said):
            records_of(tmp_path / name)


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_features_are_kept_by_content(
    extractor: Extractor, real_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "IMAGES", 40)
    copy, cache = tmp_path / "copy", tmp_path / "cache"
    shutil.copytree(real_folder, copy)
    first = features_of_records(extractor, records_of(copy), ONE, cache)
    assert first.num_cached == 0 and first.cached_on is None
    (copy / "000.png").rename(copy / "zzz.png")
    again = features_of_records(extractor, records_of(copy), ONE, cache)
    assert again.features.tobytes() == first.features.tobytes()
    assert again.num_cached == 150 and again.cached_on is not None and again.cached_on.count("-") == 2
    with Image.open(copy / "zzz.png") as image:
        image.putpixel((0, 0), 255 - int(image.getpixel((0, 0))))  # type: ignore[arg-type]
        image.save(copy / "zzz.png")
    changed = features_of_records(extractor, records_of(copy), ONE, cache)
    assert changed.num_cached == 149
    assert changed.features.tobytes() == features_of_records(extractor, records_of(copy), ONE).features.tobytes()


def test_another_extractor_misses_the_cache(extractor: Extractor, real_folder: Path, tmp_path: Path) -> None:
    import dataclasses

    records = list(records_of(real_folder))[:5]
    features_of_records(extractor, records, ONE, tmp_path)
    other = dataclasses.replace(extractor, sha256="0" * 64)
    assert features_of_records(other, records, ONE, tmp_path).num_cached == 0
    pixels = dataclasses.replace(
        extractor, preprocessing=dataclasses.replace(extractor.preprocessing, interpolation="bicubic")
    )
    assert features_of_records(pixels, records, ONE, tmp_path).num_cached == 0


def test_work_that_was_killed_goes_on_where_it_was(
    extractor: Extractor, real_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "IMAGES", 40)
    records = records_of(real_folder)

    def stop(done: int, total: int | None) -> None:
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features_of_records(extractor, records, Compute(workers=0, progress=stop), tmp_path)
    found = features_of_records(extractor, records, ONE, tmp_path)
    assert found.num_cached == 80
    assert found.features.tobytes() == _extract(extractor, records).features.tobytes()


def test_a_damaged_file_of_the_cache_is_computed_again(extractor: Extractor, real_folder: Path, tmp_path: Path) -> None:
    records = list(records_of(real_folder))[:5]
    expected = features_of_records(extractor, records, ONE, tmp_path).features.tobytes()
    (file,) = tmp_path.glob("*/*.safetensors")
    whole = file.read_bytes()
    for content in (whole[:-100], b"", b"\0" * 500, whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]):
        file.write_bytes(content)
        found = features_of_records(extractor, records, ONE, tmp_path)
        assert found.features.tobytes() == expected and found.num_cached == 0


def test_a_cache_that_cannot_be_written_costs_only_time(
    extractor: Extractor, real_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    found = features_of_records(extractor, list(records_of(real_folder))[:3], ONE, tmp_path / "file" / "cache")
    assert len(found.features) == 3


def test_progress_counts_to_the_number_of_images(extractor: Extractor, real_folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    def note(done: int, total: int | None) -> None:
        seen.append((done, total))

    features_of_records(extractor, records_of(real_folder), Compute(workers=0, progress=note), None)
    assert seen[-1] == (150, 150) and [done for done, _ in seen] == sorted(done for done, _ in seen)


# -- the weights -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fid_graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 2015 graph with random weights, as pytorch-fid stores it."""
    network = random_network(seed=3, fid=True, num_classes=1008, aux=False)
    classes = tuple(f"output_{index}" for index in range(1008))
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    export(network, Manifest(arch=network.arch, classes=classes, preprocessing=Preprocessing()), "pytorch-fid", path)
    return path


def test_random_weights_of_the_fid_graph_are_not_fid(fid_graph_file: Path) -> None:
    found = load_extractor(fid_graph_file, "clean")
    assert not found.is_fid and found.mode is not None and found.mode.name == "clean"
    assert found.num_features == 2048
    assert load_extractor(fid_graph_file).provenance()["mode"] == "tf"


@pytest.mark.parametrize("kind", ["FID's graph, of values", "another network, of bytes"])
def test_openvinos_features_are_torchs_to_five_digits_and_kept_apart(
    kind: str, fid_graph_file: Path, real_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    file = fid_graph_file
    if not kind.startswith("FID"):
        arch = family.network("inception_v3", num_classes=7, width=0.1, input_size=75, aux="none")
        file, classes = tmp_path / "other.safetensors", tuple(f"c{index}" for index in range(7))
        save(network_of(arch), file, Manifest(arch=arch, classes=classes, preprocessing=Preprocessing(input_size=75)))
    chosen, records = load_extractor(file), records_of(real_folder)[:19]
    by_torch, by_openvino = (
        features_of_records(chosen, records, Compute(workers=0, backend=name), tmp_path)
        for name in ("torch", "openvino")
    )
    assert (by_torch.backend, by_openvino.backend) == ("torch", "openvino")
    assert by_openvino.num_cached == 0
    difference = np.abs(by_openvino.features - by_torch.features).max() / np.abs(by_torch.features).max()
    assert 0 < difference < 1e-5
    again = features_of_records(chosen, records[::-1], Compute(workers=0, backend="openvino", batch_size=5))
    assert again.features.tobytes() == by_openvino.features.tobytes()


def test_inductor_is_refused_for_scores(extractor: Extractor, real_folder: Path) -> None:
    with pytest.raises(UsageError, match="computed by torch, as those of others are, or by openvino"):
        features_of_records(extractor, records_of(real_folder)[:1], Compute(backend="inductor"))


def test_a_file_that_is_not_what_its_name_says_is_refused(fid_graph_file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / FID_FILE
    shutil.copy(fid_graph_file, wrong)
    with pytest.raises(ReinceptionError, match=r"its SHA-256 begins with .* and not with 6726825d as its name says"):
        load_extractor(wrong)


def test_the_published_file_is_known_by_its_digest(fid_graph_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import reinception.generative.extractor as module

    sha256 = load_extractor(fid_graph_file).sha256
    monkeypatch.setattr(module, "FID_SHA256", sha256[:8])
    assert load_extractor(fid_graph_file).is_fid


def test_without_weights_one_line_says_what_to_get_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ReinceptionError) as refused:
        load_extractor()
    said = str(refused.value)
    assert "\n" not in said and FID_FILE in said and str(tmp_path) in said and "--weights torchhub:fid" in said


def test_nothing_is_downloaded_unasked_and_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[str] = []

    def refuse(url: str, **options: object) -> None:
        asked.append(url)
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(ReinceptionError, match=r"torchhub:fid: could not be downloaded .no route to host.; fetch"):
        load_extractor("torchhub:fid")
    assert len(asked) == 1
    with pytest.raises(ReinceptionError):
        load_extractor("missing.pth")
    assert len(asked) == 1


def test_a_mode_is_for_the_fid_graph(narrow_model: Path) -> None:
    with pytest.raises(UsageError, match="has its own preprocessing"):
        load_extractor(narrow_model, "tf")


def test_weights_that_give_nothing_finite_are_named(extractor: Extractor, real_folder: Path) -> None:
    import dataclasses

    import torch

    broken = build(extractor.network.arch, seed=1)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    bad = dataclasses.replace(extractor, network=broken)
    with pytest.raises(ReinceptionError, match="not finite: its weights are damaged"):
        _extract(bad, list(records_of(real_folder))[:2])
