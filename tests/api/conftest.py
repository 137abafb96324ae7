"""A small model file and a few real images, as the examples of the docstrings have them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reinception import family
from reinception.data.sources.open_source import open_source
from reinception.model.artifact import Manifest, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing

CLASSES = ("defective", "functional")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.safetensors` and `images/`, two of each class."""
    root = tmp_path_factory.mktemp("api")
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
    manifest = Manifest(arch=arch, classes=CLASSES, preprocessing=Preprocessing(input_size=75))
    save(build(arch, seed=0), root / "model.safetensors", manifest)
    for target, name in enumerate(CLASSES):
        folder = root / "images" / name
        folder.mkdir(parents=True)
        records = [record for record in open_source("elpv").records if record.target == target][:2]
        for number, record in enumerate(records, start=1):
            shutil.copy(record.path, folder / f"{number}.png")
    return root
