"""Protocols as values, and their crops pixel for pixel against a reference that cuts with Pillow, one at a time."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from reinception.data.images.crops import crop_boxes, crop_pixels, distinct_crops, evaluation_pixels
from reinception.data.loading import evaluation_stream
from reinception.data.loading.evaluation_stream import evaluation_batches
from reinception.data.sources.exclusions import read_exclusions
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.errors import ReinceptionError
from reinception.preprocess import (
    Preprocessing,
    default_scales,
    many_crops,
    single_crop,
)


def photograph(width: int, height: int) -> NDArray[np.uint8]:
    """Real solar cells side by side, cut to any shape, each colour another one."""
    records = open_source("elpv").records[:6]
    cells = [np.asarray(Image.open(record.path).convert("L")) for record in records]
    colours = [np.concatenate([cells[i], cells[(i + 1) % 6]], axis=1) for i in (0, 2, 4)]
    whole = Image.fromarray(np.stack(colours, axis=2)).resize((max(width, height), max(width, height)))
    return np.asarray(whole)[:height, :width].copy()


def by_hand(image: NDArray[np.uint8], num: int, size: int, scales: list[int]) -> list[NDArray[np.uint8]]:
    """The crops as GoogLeNet's section 7 tells them, nothing shared and nothing skipped."""
    found = []
    for scale in scales:
        opened = Image.fromarray(image)
        w, h = opened.size
        wide = w >= h
        opened = opened.resize((scale * w // h, scale) if wide else (scale, scale * h // w), Image.Resampling.BILINEAR)
        length = max(opened.size)
        starts = [0, round((length - scale) / 2), length - scale] if num == 144 else [round((length - scale) / 2)]
        for start in starts:
            square = opened.crop((start, 0, start + scale, scale) if wide else (0, start, scale, start + scale))
            end, middle = scale - size, round((scale - size) / 2)
            five = [
                square.crop((x, y, x + size, y + size))
                for x, y in [(0, 0), (end, 0), (0, end), (end, end), (middle, middle)]
            ]
            if num != 10:
                five.append(square.resize((size, size), Image.Resampling.BILINEAR))
            for crop in five:
                found += [np.asarray(crop), np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    return found


@pytest.mark.parametrize("num", [10, 12, 144])
@pytest.mark.parametrize(("width", "height"), [(500, 333), (340, 517)])
def test_the_crops_of_a_landscape_and_a_portrait_are_those_cut_by_hand(num: int, width: int, height: int) -> None:
    image, size = photograph(width, height), 299
    crops = many_crops(num, size)
    boxes = [(names, crop) for names, crop in crop_boxes(width, height, crops)]
    assert len(boxes) == len({(names, crop) for names, crop in boxes}) == len({crop for _, crop in boxes}) == num
    wanted = by_hand(image, num, size, [342, 384, 427, 470] if num == 144 else [342])
    got = crop_pixels(image, [crop for _, crop in boxes], Preprocessing(input_size=size))
    assert len(got) == len(wanted) == num
    assert all(np.array_equal(one, other) for one, other in zip(got, wanted, strict=True))
    assert len({one.tobytes() for one in got}) == num


def test_the_scales_of_144_crops_keep_the_proportions_of_googlenet() -> None:
    assert default_scales(299) == (342, 384, 427, 470)
    assert default_scales(224) == (256, 288, 320, 352)
    assert many_crops(12, 299).scales == (342,)
    assert many_crops(144, 299).words == "144 crops (scales 342, 384, 427, 470)"
    assert many_crops(10, 299, (320,)).words == "10 crops (scale 320)"
    assert many_crops(144, 75, (80, 90, 100, 110)).scales == (80, 90, 100, 110)


@pytest.mark.parametrize(
    ("num", "scales", "said"),
    [
        (7, None, "7 is not defined"),
        (144, (342,), "take 4 scales, got 1"),
        (12, (300, 310), "take 1 scale, got 2"),
        (12, (200,), "at least the input size 299"),
        (144, (342, 342, 384, 400), "distinct"),
    ],
)
def test_crops_that_make_no_sense_are_refused(num: int, scales: tuple[int, ...] | None, said: str) -> None:
    with pytest.raises(ReinceptionError, match=said):
        many_crops(num, 299, scales)


def test_crops_that_coincide_are_computed_once_and_count_as_often_as_they_occur() -> None:
    crops = many_crops(144, 299)
    assert len(distinct_crops(500, 333, crops)) == 72
    square = distinct_crops(300, 300, crops)
    assert len(square) == 24
    assert set(square.values()) == {3}
    tight = distinct_crops(300, 300, many_crops(12, 299, (299,)))
    assert list(tight.values()) == [6]
    for width, height in [(500, 333), (333, 500), (300, 300), (301, 300)]:
        every = Counter(dataclasses.replace(crop, mirrored=False) for _, crop in crop_boxes(width, height, crops))
        assert {crop: count // 2 for crop, count in every.items()} == distinct_crops(width, height, crops)


def test_a_grey_image_gives_the_crops_of_the_same_image_in_colour() -> None:
    grey = photograph(200, 150)[:, :, 0].copy()
    chosen = list(distinct_crops(200, 150, many_crops(144, 75)))
    coloured = crop_pixels(np.repeat(grey[:, :, None], 3, axis=2), chosen, Preprocessing(input_size=75))
    assert np.array_equal(crop_pixels(grey, chosen, Preprocessing(input_size=75)), coloured)


def test_each_image_is_decoded_once_and_resized_once_a_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    records = open_source("elpv").records[:5]
    decoded: list[Record] = []
    true_decode = evaluation_stream.pixels_of

    def counting(record: Record, *more: Any, **named: Any) -> NDArray[np.uint8]:
        decoded.append(record)
        return true_decode(record, *more, **named)

    monkeypatch.setattr(evaluation_stream, "pixels_of", counting)
    batches = list(
        evaluation_batches(records, Preprocessing(input_size=75), many_crops(144, 75), batch_size=50, workers=0)
    )
    assert decoded == list(records)
    assert [len(batch) for batch in batches] == [24] * 5  # distinct crops of each square image
    indices = np.concatenate([batch.indices for batch in batches])
    shares = np.concatenate([batch.weights for batch in batches])
    assert np.bincount(indices, weights=shares) == pytest.approx([0.5] * 5)
    image = photograph(200, 150)
    sizes: list[tuple[int, int]] = []
    true_resize = Image.Image.resize

    def resize(self: Image.Image, size: tuple[int, int], *more: object) -> Image.Image:
        sizes.append(self.size)
        return true_resize(self, size, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", resize)
    chosen = list(distinct_crops(200, 150, many_crops(144, 75)))
    crop_pixels(image, chosen, Preprocessing(input_size=75))
    assert sizes.count((200, 150)) == 4


def test_an_unreadable_image_is_named_among_the_others(tmp_path: Path) -> None:
    good = open_source("elpv").records[0]
    bad = Record(path=tmp_path / "bad.png", name="some/bad.png", target=0)
    bad.path.write_bytes(b"no")
    twelve = many_crops(12, 75)
    first, second = evaluation_batches([bad, good], Preprocessing(input_size=75), twelve, batch_size=64, workers=0)
    assert set(second.indices.tolist()) == {1}
    assert [(index, "some/bad.png" in str(why)) for index, why in first.bad] == [(0, True)]
    (batch,) = evaluation_batches([bad], Preprocessing(input_size=75), twelve, batch_size=64, workers=0)
    assert (len(batch), len(batch.bad)) == (0, 1)


# -- single-crop rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(500, 333), (340, 517), (299, 299)])
def test_the_named_rules_are_those_of_the_libraries_they_are_named_after(width: int, height: int) -> None:
    image = photograph(width, height)
    own = Preprocessing(resize="whole")
    opened = Image.fromarray(image)
    import timm.data
    from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Resize

    there = Compose([Resize(342, InterpolationMode.BILINEAR), CenterCrop(299)])(opened)
    assert np.array_equal(evaluation_pixels(image, single_crop("torchvision", own)), np.asarray(there))
    transform = timm.data.create_transform(
        input_size=299, crop_pct=0.875, interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3
    )
    assert callable(transform)
    tensor = transform(opened)
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(
        evaluation_pixels(image, single_crop("timm", own)), (tensor * 255).round().byte().permute(1, 2, 0).numpy()
    )
    tf = single_crop("tf", dataclasses.replace(own, mean=(0.1, 0.2, 0.3)))
    assert (tf.resize, tf.crop_fraction, tf.interpolation, tf.mean) == (
        "central_crop",
        0.875,
        "bilinear",
        (0.1, 0.2, 0.3),
    )
    with pytest.raises(ReinceptionError, match="unknown rule 'keras'"):
        single_crop("keras", own)  # type: ignore[arg-type]


# -- excluded images --------------------------------------------------------------------------------------------------


def test_an_exclusion_list_holds_names_or_the_numbers_of_ilsvrc(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# doubtful\n36\na/b.png  # twice\n\n50000\n")
    assert read_exclusions(path) == {"ILSVRC2012_val_00000036.JPEG", "ILSVRC2012_val_00050000.JPEG", "a/b.png"}
    path.write_text("# nothing\n")
    with pytest.raises(ReinceptionError, match="names no image"):
        read_exclusions(path)
    with pytest.raises(ReinceptionError, match="cannot read the exclusion list"):
        read_exclusions(tmp_path / "gone.txt")
