"""Statistics and features in .npz files, as other tools write and read them, plus where they come from."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.files import refuse_existing
from reinception.generative.moments import Matrix, Moments
from reinception.generative.rows import Floats, as_rows, require_finite

PROVENANCE_KEY = "reinception"


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """`mu` (d,) and `sigma` (d, d), and what is known of the images and the extractor: empty for other tools' files.

    `provenance` has `mode`, `extractor` (sha256 of its weights), `num_images`, `num_distinct` and `versions`.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> np.savez("statistics.npz", mu=np.zeros(2), sigma=np.eye(2))
        >>> ri.generative.read_file("statistics.npz").mu.shape
        (2,)
    """

    mu: Matrix
    sigma: Matrix
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_images(self) -> int | None:
        """None where the file does not say."""
        found = self.provenance.get("num_images")
        return found if isinstance(found, int) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureRows:
    """Features (n, d) of one set, logits (n, classes) where they are known, and the provenance as in Statistics.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> np.savez("features.npz", features=draw(size=(3, 2)))
        >>> ri.generative.read_file("features.npz").features.shape
        (3, 2)
    """

    features: Floats
    logits: Floats | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def save_statistics(path: str | Path, moments: Moments, provenance: Mapping[str, Any]) -> Path:
    """A new .npz with `mu`, `sigma` (float64), as pytorch-fid and clean-fid read them, and the provenance as JSON.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> moments = ri.generative.moments_of(draw(size=(60, 2)))
        >>> ri.generative.save_statistics("own.npz", moments, {"mode": "clean"}).name
        'own.npz'
    """
    told = {**provenance, "num_images": moments.num_rows}
    arrays = {"mu": moments.mean, "sigma": moments.covariance, PROVENANCE_KEY: np.array(json.dumps(told))}
    return save_arrays(path, arrays)


def save_arrays(path: str | Path, arrays: Mapping[str, npt.NDArray[Any]], *, replace: bool = False) -> Path:
    """A .npz, whole or not at all; over an existing file only with `replace`."""
    path = Path(path)
    if not replace:
        refuse_existing(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(path)
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot write: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def read_file(path: str | Path, *, squeeze: bool = False) -> Statistics | FeatureRows:
    """The statistics (`mu`, `sigma`) or the features (`features`, perhaps `logits`) of a .npz file.

    A `mu` of the shape (1, d) is refused unless `squeeze`. ReinceptionError, one line that names the file, for one that
    is missing, no .npz, holds other keys, or statistics that cannot be: a sigma that is not d x d, not symmetric, or
    has negative eigenvalues beyond rounding.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> np.savez("given.npz", mu=np.zeros(2), sigma=np.eye(2))
        >>> ri.generative.read_file("given.npz").sigma.shape
        (2, 2)
    """
    path = Path(path)
    try:
        return _read(path, squeeze)
    except ReinceptionError as error:
        raise ReinceptionError(f"{path}: {error}") from None


def _read(path: Path, squeeze: bool) -> Statistics | FeatureRows:
    if path.suffix.lower() == ".npy":
        raise ReinceptionError("is an .npy array; statistics are an .npz with mu and sigma, features one with features")
    if not path.exists():
        raise ReinceptionError("there is no such file: check the path")
    arrays = read_arrays(path)
    provenance = _provenance(arrays)
    if {"mu", "sigma"} <= arrays.keys():
        mu, sigma = _checked_statistics(arrays["mu"], arrays["sigma"], squeeze)
        return Statistics(mu=mu, sigma=sigma, provenance=provenance)
    if "features" in arrays:
        features = as_rows(arrays["features"])
        require_finite(features, "features")
        logits = as_rows(arrays["logits"], "logits") if "logits" in arrays else None
        if logits is not None and len(logits) != len(features):
            raise ReinceptionError(f"has {len(logits)} rows of logits for {len(features)} of features")
        return FeatureRows(features=features, logits=logits, provenance=provenance)
    raise ReinceptionError(
        f"holds {_listed(sorted(arrays))}; statistics are mu and sigma, features are features: rename the keys"
    )


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every array of an .npz, without running anything in it. ReinceptionError where it is none or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            if not isinstance(opened, np.lib.npyio.NpzFile):
                raise ReinceptionError("is a single array; an .npz with mu and sigma, or with features, is expected")
            return {name: opened[name] for name in opened.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, OSError) as error:
        message = str(error).strip().splitlines() or [type(error).__name__]
        raise ReinceptionError(f"is no whole .npz file ({message[0][:100]}); write or copy it again") from None


def _provenance(arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Any]:
    if PROVENANCE_KEY not in arrays:
        return {}
    try:
        told = json.loads(str(arrays[PROVENANCE_KEY][()]))
    except ValueError as error:
        raise ReinceptionError(f"its provenance is not JSON ({error})") from None
    if not isinstance(told, dict):
        raise ReinceptionError("its provenance is not a JSON object")
    return told


def _checked_statistics(mu: npt.NDArray[Any], sigma: npt.NDArray[Any], squeeze: bool) -> tuple[Matrix, Matrix]:
    for name, array in (("mu", mu), ("sigma", sigma)):
        if array.dtype.kind not in "fiu":
            raise ReinceptionError(f"{name} must be numbers, got {array.dtype}")
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64)
    if squeeze and mu.ndim == 2 and mu.shape[0] == 1:
        mu = mu[0]
    if mu.ndim != 1 or not mu.size:
        raise ReinceptionError(f"mu must have the shape (d,), got {mu.shape}")
    if sigma.shape != (len(mu), len(mu)):
        raise ReinceptionError(f"sigma must be {len(mu)} x {len(mu)} as mu has {len(mu)} values, got {sigma.shape}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ReinceptionError("mu or sigma is not finite: compute it again from the images")
    scale = float(np.abs(sigma).max())
    # Other tools store float32 too, whose rounding is 6e-8.
    if float(np.abs(sigma - sigma.T).max()) > 1e-5 * scale:
        raise ReinceptionError("sigma is not symmetric: it is no covariance")
    sigma = (sigma + sigma.T) / 2
    if float(np.linalg.eigvalsh(sigma)[0]) < -1e-5 * scale * np.sqrt(len(mu)):
        raise ReinceptionError("sigma has negative eigenvalues beyond rounding: it is no covariance")
    return mu, sigma


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) if names else "nothing"
