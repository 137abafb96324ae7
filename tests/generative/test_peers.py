"""Beside pytorch-fid, clean-fid, torch-fidelity, torchmetrics and prdc: the same features and the same scores.

The same random weights are put into each tool's own network, since the published ones cannot be fetched here. Tools
that are not installed are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foreign_weights import random_network
from reinception.data.sources.open_source import open_source
from reinception.generative import fid, inception_score, kid, load_extractor, precision_recall
from reinception.generative.extract import features_of_records
from reinception.inference.compute import Compute
from reinception.model.artifact import Manifest
from reinception.preprocess import Preprocessing
from reinception.weights.library_files import export

NUM_IMAGES = 300
SIZES = ((300, 300), (299, 299), (128, 96), (64, 64), (32, 32), (500, 380))

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own warnings are not ours


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """300 real images of six sizes: solar cells, and cuts from scikit-learn's two photographs in colour."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    folder = tmp_path_factory.mktemp("images")
    photographs = sklearn_datasets.load_sample_images().images
    rng = np.random.default_rng(0)
    records = open_source("elpv").records
    for index in range(NUM_IMAGES):
        size = SIZES[index % len(SIZES)]
        if index % 2:
            with Image.open(records[index].path) as cell:
                image = cell.convert("RGB")
        else:
            photograph = photographs[index // 2 % 2]
            side = int(rng.integers(120, 400))
            top, left = (int(rng.integers(0, length - side)) for length in photograph.shape[:2])
            image = Image.fromarray(photograph[top : top + side, left : left + side])
        image.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:03}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = random_network(seed=5, fid=True, num_classes=1008, aux=False)
    classes = tuple(f"output_{index}" for index in range(1008))
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    export(network, Manifest(arch=network.arch, classes=classes, preprocessing=Preprocessing()), "pytorch-fid", path)
    return path


Ours = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def ours(images: list[Path], weights: Path) -> Ours:
    """Our features of the images in a mode, in the order of the images."""
    found: dict[str, np.ndarray] = {}

    def features(mode: str) -> np.ndarray:
        if mode not in found:
            import hashlib

            from reinception.data.sources.records import Record

            extractor = load_extractor(weights, mode)
            records = [Record(path=path, name=path.name, target=0) for path in images]
            rows = features_of_records(extractor, records, Compute(workers=0)).features
            digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in images]
            places = {digest: place for place, digest in enumerate(sorted(digests))}
            found[mode] = rows[[places[digest] for digest in digests]]
        return found[mode]

    return features


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def _same_features(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() < 1e-5 * max(1.0, float(np.abs(expected).max()))


def _halves(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows[0::4].astype(np.float64), rows[1::2].astype(np.float64)


def _same_fid(found: np.ndarray, expected: np.ndarray, theirs: Callable[..., Any]) -> None:
    """Ours of our features, theirs of their features: 75 photographs against 150 solar cells."""
    real, generated = _halves(expected)
    statistics = [(rows.mean(0), np.cov(rows, rowvar=False)) for rows in (real, generated)]
    value = float(theirs(*statistics[0], *statistics[1]))
    mine = _halves(found)
    assert fid(real=mine[0], generated=mine[1], interval=False).value == pytest.approx(value, rel=1e-4)


@pytest.mark.slow
def test_pytorch_fid(images: list[Path], weights: Path, ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytorch_fid")
    from pytorch_fid import fid_score, inception

    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: state)
    model = inception.InceptionV3([3])
    expected = fid_score.get_activations(list(map(str, images)), model, batch_size=1, num_workers=0)
    _same_features(ours("pytorch_fid"), expected)
    _same_fid(ours("pytorch_fid"), expected, fid_score.calculate_frechet_distance)


@pytest.fixture(scope="module")
def fidelity_network(weights: Path) -> Any:
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("ours", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights))


@pytest.mark.slow
def test_torch_fidelity(images: list[Path], weights: Path, ours: Ours, fidelity_network: Any) -> None:
    from torch_fidelity import metric_fid, metric_isc

    rows, logits = [], []
    for path in images:
        pooled, unbiased = fidelity_network(torch.from_numpy(_pixels(path)).permute(2, 0, 1)[None])
        rows.append(pooled[0].numpy())
        logits.append(unbiased[0])
    expected = np.stack(rows)
    _same_features(ours("tf"), expected)

    def theirs(mu1: Any, sigma1: Any, mu2: Any, sigma2: Any) -> float:
        found = metric_fid.fid_statistics_to_metric({"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2}, False)
        return float(found[metric_fid.KEY_METRIC_FID])

    _same_fid(ours("tf"), expected, theirs)
    score = metric_isc.isc_features_to_metric(torch.stack(logits), splits=1, shuffle=False)
    mine = load_extractor(weights, "tf").logits(ours("tf"))
    assert inception_score(mine, splits=1, logits=True).value == pytest.approx(
        score[metric_isc.KEY_METRIC_ISC_MEAN], rel=1e-4
    )


@pytest.mark.slow
def test_clean_fid(images: list[Path], ours: Ours, fidelity_network: Any) -> None:
    pytest.importorskip("cleanfid")
    from cleanfid import fid as clean
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    network = fidelity_network
    rows = []
    for path in images:
        small = torch.from_numpy(resize(_pixels(path))).permute(2, 0, 1)[None]
        rows.append(_behind_the_resize(network, (small - 128) / 128)[0].numpy())  # as its InceptionV3W does
    expected = np.stack(rows)
    _same_features(ours("clean"), expected)
    _same_fid(ours("clean"), expected, clean.frechet_distance)


def _behind_the_resize(network: Any, values: torch.Tensor) -> torch.Tensor:
    """torch-fidelity's layers on what is resized and normalised already."""
    for name, layer in network.named_children():
        if name == "fc":
            break
        values = layer(values)
    return values.flatten(1)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "antialias"), [("torchmetrics", True), ("tf", False)])
def test_torchmetrics(images: list[Path], weights: Path, ours: Ours, mode: str, antialias: bool) -> None:
    pytest.importorskip("torch_fidelity")  # torchmetrics takes its network from there
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(
        feature=2048, feature_extractor_weights_path=str(weights), antialias=antialias, normalize=False
    )
    network: Any = metric.inception
    rows = []
    for index, path in enumerate(images):
        pixels = torch.from_numpy(_pixels(path)).permute(2, 0, 1)[None].contiguous()
        rows.append(network(pixels)[0].numpy())
        if index % 4 == 0 or index % 2:
            metric.update(pixels, real=index % 2 == 0)
    expected = np.stack(rows)
    _same_features(ours(mode), expected)
    mine = _halves(ours(mode))
    found = fid(real=mine[0], generated=mine[1], interval=False).value
    assert found == pytest.approx(float(metric.compute()), rel=1e-4)


def _clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 16)), rng.normal(0.4, 1.2, size=(250, 16))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc(k: int) -> None:
    prdc = pytest.importorskip("prdc")
    real, generated = _clouds()
    expected = prdc.compute_prdc(real, generated, nearest_k=k)
    found = precision_recall(real=real, generated=generated, k=k)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12), name


def test_torch_fidelitys_precision_and_recall() -> None:
    pytest.importorskip("torch_fidelity")
    from torch_fidelity import metric_prc

    real, generated = (torch.from_numpy(rows) for rows in _clouds())
    found = precision_recall(real=real, generated=generated)
    # Its two-input command has had the two the other way round in some versions (torch-fidelity#58); 0.4 takes the
    # generated ones first.
    expected = metric_prc.calculate_precision_recall_full(generated, real, 3)
    assert (found.precision, found.recall) == pytest.approx(expected, abs=1e-6)


def test_torch_fidelitys_and_clean_fids_kernel_distance() -> None:
    real, generated = _clouds()
    full = kid(real=real, generated=generated[:250], full=True).full
    clean = pytest.importorskip("cleanfid.fid")
    expected = [clean.kernel_distance(real[:250], generated, num_subsets=1, max_subset_size=250) for _ in range(2)]
    assert expected[0] == pytest.approx(expected[1], rel=1e-9)  # all subsets are the whole set
    assert kid(real=real[:250], generated=generated).value == pytest.approx(expected[0], rel=1e-9)
    assert full is not None and full > 0
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    assert fidelity.kernel_mmd(real[:250], generated) == pytest.approx(expected[0], rel=1e-9)


def test_torchmetrics_kernel_distance() -> None:
    pytest.importorskip("torchmetrics")
    from torchmetrics.image.kid import poly_mmd

    real, generated = (torch.from_numpy(rows) for rows in _clouds())
    expected = float(poly_mmd(real[:250], generated))
    assert kid(real=real[:250], generated=generated).value == pytest.approx(expected, rel=1e-9)
