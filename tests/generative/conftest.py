"""What the tests of scoring share: a narrow network as extractor, and folders of real images of several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reinception import family
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import decode
from reinception.data.loading.loader import normalise
from reinception.data.sources.open_source import open_source
from reinception.model.artifact import Manifest, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing


@pytest.fixture(scope="session")
def narrow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very narrow Inception-v3 with random weights and batch-norm statistics of real pixels."""
    arch = family.network("inception_v3", num_classes=7, width=0.05, input_size=75, aux="none")
    network, preprocessing = build(arch, seed=0), Preprocessing(input_size=75, resize="whole")
    network.set_batch_norm_decay(0)
    cells = [evaluation_pixels(decode(record.path), preprocessing) for record in open_source("elpv").records[:8]]
    with torch.no_grad():
        network.train()(normalise(torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2), preprocessing))
        network.classifier.weight *= 20
    manifest = Manifest(arch=arch, classes=tuple(f"c{index}" for index in range(7)), preprocessing=preprocessing)
    path = tmp_path_factory.mktemp("model") / "narrow.safetensors"
    save(network, path, manifest)
    return path


def _cells(folder: Path, start: int, num: int) -> Path:
    folder.mkdir(parents=True)
    for index, record in enumerate(open_source("elpv").records[start : start + num]):
        with Image.open(record.path) as cell:
            cell.resize((80 + index % 5, 75 + index % 3)).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 solar cells, small."""
    return _cells(tmp_path_factory.mktemp("real") / "images", 0, 150)


@pytest.fixture(scope="session")
def generated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 other solar cells, small."""
    return _cells(tmp_path_factory.mktemp("generated") / "images", 1000, 140)
