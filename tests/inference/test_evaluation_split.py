"""A model is judged on what its training held out, and never by accident on what it has learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Source
from reinception.data.sources.split import assign_splits
from reinception.errors import ReinceptionError
from reinception.inference.evaluation_split import select
from reinception.model.artifact import Manifest, read_manifest


@pytest.fixture(scope="module")
def manifest(small_run: Path) -> Manifest:
    return read_manifest(small_run)


@pytest.fixture
def source(solar_cells: Path) -> Source:
    return open_source(solar_cells)


def with_seed(manifest: Manifest, seed: int) -> Manifest:
    training = {**manifest.training, "split": {**manifest.training["split"], "seed": seed}}
    return dataclasses.replace(manifest, training=training)


def test_the_same_images_are_divided_as_in_training(source: Source, manifest: Manifest) -> None:
    selection = select(source, [manifest])
    assert (selection.split, selection.as_in_training) == ("test", True)
    assert selection.records == assign_splits(source, seed=0).split("test")


def test_another_seed_of_training_means_other_held_out_images(source: Source, manifest: Manifest) -> None:
    assert select(source, [with_seed(manifest, 1)]).records == assign_splits(source, seed=1).split("test")


def test_models_that_held_out_different_images_are_no_ensemble(source: Source, manifest: Manifest) -> None:
    with pytest.raises(ReinceptionError, match="training images of another"):
        select(source, [manifest, with_seed(manifest, 1)])


def test_images_the_model_never_saw_are_all_used(source: Source, manifest: Manifest) -> None:
    fewer = dataclasses.replace(source, records=source.records[1:])
    selection = select(fewer, [manifest])
    assert (selection.records, selection.split, selection.as_in_training) == (fewer.records, None, False)
    with pytest.raises(ReinceptionError, match="leave --split out"):
        select(fewer, [manifest], "test")


def test_images_that_come_divided_keep_their_division(source: Source, manifest: Manifest) -> None:
    split = ["val", *["test"] * 3, *["train"] * (len(source.records) - 5)]
    records = (dataclasses.replace(one, split=name) for one, name in zip(source.records[1:], split, strict=True))
    divided = dataclasses.replace(source, records=tuple(records))
    assert len(select(divided, [manifest]).records) == 3
    assert len(select(divided, [manifest], "val").records) == 1


def test_a_model_without_a_past_is_judged_on_every_image(source: Source, manifest: Manifest) -> None:
    foreign = dataclasses.replace(manifest, training={})
    assert select(source, [foreign]).records == source.records


def test_training_images_are_never_evaluated_on_unasked(source: Source, manifest: Manifest) -> None:
    def with_splits(*splits: str) -> Source:
        records = [dataclasses.replace(one, split=splits[n % len(splits)]) for n, one in enumerate(source.records[1:])]
        return dataclasses.replace(source, records=tuple(records))

    chosen = select(with_splits("train", "val"), [manifest])
    assert chosen.split == "val"
    assert "training images are left out" in chosen.reason
    assert select(with_splits("train", "val", "test"), [manifest]).split == "test"
    with pytest.raises(ReinceptionError, match="holds training images only"):
        select(with_splits("train"), [manifest])
    assert select(with_splits("train"), [manifest], "train").split == "train"
