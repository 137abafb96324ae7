"""Statistics and features in .npz files: those of other tools are read, and what cannot be is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reinception.errors import ReinceptionError
from reinception.generative import FeatureRows, Statistics, moments_of, read_file, save_statistics


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_statistics_of_other_tools_are_read(tmp_path: Path, kind: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 5))
    sigma = np.cov(rows, rowvar=False)
    np.savez_compressed(tmp_path / "s.npz", mu=rows.mean(0).astype(kind), sigma=sigma.astype(kind))
    found = read_file(tmp_path / "s.npz")
    assert isinstance(found, Statistics) and found.num_images is None and not found.provenance
    assert found.sigma.dtype == np.float64
    assert np.abs(found.sigma - sigma).max() < 1e-6


def test_ours_can_be_read_by_others_and_say_where_they_come_from(tmp_path: Path) -> None:
    moments = moments_of(np.random.default_rng(0).normal(size=(30, 5)))
    path = save_statistics(tmp_path / "s.npz", moments, {"mode": "tf", "extractor": "abc"})
    with np.load(path) as opened:
        assert (opened["mu"] == moments.mean).all() and (opened["sigma"] == moments.covariance).all()
    found = read_file(path)
    assert found.provenance["mode"] == "tf"
    assert isinstance(found, Statistics) and found.num_images == 30
    with pytest.raises(ReinceptionError, match="exists already"):
        save_statistics(path, moments, {})


def test_features_are_read_with_their_logits(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.zeros((4, 3), np.float32), logits=np.zeros((4, 2)), paths=np.array(["a"]))
    found = read_file(tmp_path / "f.npz")
    assert isinstance(found, FeatureRows) and found.features.shape == (4, 3) and found.logits is not None


def _identity(d: int) -> np.ndarray:
    return np.eye(d)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mean": np.zeros(2), "cov": _identity(2)}, "holds cov, mean; statistics are mu and sigma"),
        ({"mu": np.zeros((1, 2)), "sigma": _identity(2)}, r"mu must have the shape \(d,\), got \(1, 2\)"),
        ({"mu": np.zeros(3), "sigma": _identity(2)}, r"sigma must be 3 x 3 as mu has 3 values, got \(2, 2\)"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.0, 1.0]])}, "sigma is not symmetric"),
        ({"mu": np.zeros(2), "sigma": np.diag([1.0, -1.0])}, "negative eigenvalues"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "not finite"),
        ({"mu": np.array(["a"]), "sigma": _identity(1)}, "mu must be numbers"),
        ({"features": np.full((2, 2), np.nan)}, "row 0, column 0 is nan"),
        ({"features": np.zeros((3, 2)), "logits": np.zeros((2, 2))}, "2 rows of logits for 3"),
    ],
)
def test_arrays_that_cannot_be_are_named(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ReinceptionError, match=f"s.npz: .*{said}"):
        read_file(tmp_path / "s.npz")


def test_one_row_of_means_is_squeezed_when_that_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros((1, 2)), sigma=np.eye(2))
    found = read_file(tmp_path / "s.npz", squeeze=True)
    assert isinstance(found, Statistics) and found.mu.shape == (2,)


def test_what_is_no_npz_is_told_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "text.npz").write_text("mu")
    with pytest.raises(ReinceptionError, match=r"a.npy: is an .npy array"):
        read_file(tmp_path / "a.npy")
    with pytest.raises(ReinceptionError, match=r"no.npz: there is no such file"):
        read_file(tmp_path / "no.npz")
    for name in ("torn.npz", "text.npz"):
        with pytest.raises(ReinceptionError, match=f"{name}: is no whole .npz"):
            read_file(tmp_path / name)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=np.array([object()], dtype=object), sigma=np.eye(1))
    with pytest.raises(ReinceptionError, match=r"is no whole .npz"):
        read_file(tmp_path / "s.npz")
