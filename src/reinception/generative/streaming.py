"""Scores batch by batch, for training loops and for users of torchmetrics: update, compute, reset, merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError, UsageError
from reinception.generative.classifier_score import InceptionScoreResult, inception_score
from reinception.generative.frechet import FrechetResult, fid, fid_of
from reinception.generative.kernel import KernelResult, kid
from reinception.generative.moments import INCEPTION_LIMIT, Moments
from reinception.generative.neighbours import NeighbourResult, precision_recall
from reinception.generative.rows import Floats, Rows, as_rows, require_finite

if TYPE_CHECKING:
    from reinception.generative.extractor import Extractor
    from reinception.inference.compute import Compute

Result = FrechetResult | KernelResult | InceptionScoreResult | NeighbourResult
_NAMES = ("fid", "kid", "is", "prdc")


class GenerativeMetrics:
    """FID and the like of images or features that come in batches.

    extractor: an `Extractor`, the path of its weights, or any function from a batch of images to features (n, d);
    None takes features. metrics: of fid, kid, is and prdc. interval: whether the FID gets its interval, for which the
    features are kept; without it (and with fid alone) only exact sums are, 100 MB a set whatever its size.
    value_range: of images given as floats. limit: the largest |feature| that sums are exact for.

    Batches may come in any order and any size, and several may be put together by `merge` (they pickle): the same bits.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> metric = ri.generative.GenerativeMetrics(metrics=("fid", "kid"))
        >>> metric.update(draw(size=(60, 2)), real=True)
        >>> metric.update(draw(3, size=(60, 2)), real=False)
        >>> sorted(metric.compute())
        ['fid', 'kid']
    """

    def __init__(
        self,
        extractor: Extractor | str | Path | Callable[[Any], Rows] | None = None,
        *,
        metrics: Sequence[Literal["fid", "kid", "is", "prdc"]] = ("fid",),
        interval: bool = True,
        value_range: tuple[float, float] | None = None,
        limit: float = INCEPTION_LIMIT,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> None:
        if unknown := sorted(set(metrics) - set(_NAMES)) or not metrics:
            raise UsageError(f"metrics: {unknown if metrics else 'none'}; they are {', '.join(_NAMES)}")
        if isinstance(extractor, (str, Path)):
            from reinception.generative.extractor import load_extractor

            extractor = load_extractor(extractor)
        if "is" in metrics and (extractor is None or callable(extractor)):
            raise UsageError("the Inception score needs a classifier: give an extractor's weights")
        self.extractor = extractor
        self.metrics, self.interval, self.value_range = tuple(metrics), interval, value_range
        self.limit, self.seed, self._compute = limit, seed, compute
        self._rows: dict[bool, list[Floats]] = {}
        self._moments: dict[bool, Moments | None] = {}
        self.reset()

    def reset(self, *, real: bool = True) -> None:
        """Forgets the generated images, and with `real` the real ones too."""
        kept = (False, True) if real else (False,)
        self._rows.update({side: [] for side in kept})
        self._moments.update(dict.fromkeys(kept))

    @property
    def _keeps_rows(self) -> bool:
        return self.interval or self.metrics != ("fid",)

    def update(self, images: Any, real: bool) -> None:
        """Adds a batch: images (n, 3, h, w), uint8 or floats of `value_range`; or features (n, d) without extractor.

        ReinceptionError for another shape or width, values outside the range, and features that are not finite.
        """
        rows = as_rows(self._features(images))
        require_finite(rows, "features")
        found = self._moments[real]
        other = self._moments[not real]
        width = rows.shape[1] if found is None and other is None else (found or other).num_features  # type: ignore[union-attr]
        if rows.shape[1] != width:
            raise ReinceptionError(f"features of different widths: {rows.shape[1]} beside {width} before")
        if found is None:
            found = self._moments[real] = Moments(width, limit=self.limit)
        if self._keeps_rows:
            self._rows[real].append(rows.copy())
        found.update(rows)

    def _features(self, images: Any) -> Any:
        if self.extractor is None:
            return images
        if callable(self.extractor):
            return self.extractor(images)
        from reinception.generative.extract import features_of_batch
        from reinception.generative.modes import as_bytes
        from reinception.inference.compute import Compute

        return features_of_batch(
            self.extractor, as_bytes(images, self.value_range), self._compute or Compute(workers=0)
        )

    def compute(self) -> dict[str, Result]:
        """The result of each metric by its name. ReinceptionError where there are too few images."""
        found: dict[str, Result] = {}
        for name in self.metrics:
            if name == "fid":
                found[name] = self._fid()
            elif name == "kid":
                found[name] = kid(real=self._all(True), generated=self._all(False), seed=self.seed)
            elif name == "is":
                features = self._all(False)
                logits = self.extractor.logits(features)  # type: ignore[union-attr]
                found[name] = inception_score(logits, splits=min(10, len(logits)), logits=True)
            else:
                found[name] = precision_recall(real=self._all(True), generated=self._all(False))
        return found

    def _fid(self) -> FrechetResult:
        if self._keeps_rows:
            return fid(real=self._all(True), generated=self._all(False), interval=self.interval, seed=self.seed)
        real, generated = self._moments[True], self._moments[False]
        if real is None or generated is None:
            raise ReinceptionError(f"no {'generated' if generated is None else 'real'} images yet: update() first")
        return fid_of(real, generated)

    def _all(self, real: bool) -> npt.NDArray[Any]:
        if not self._rows[real]:
            raise ReinceptionError(f"no {'real' if real else 'generated'} images yet: update() first")
        return np.concatenate(self._rows[real])

    def merge(self, other: GenerativeMetrics) -> None:
        """Adds what `other`, of the same settings, has seen: in another process, or of another part of the data."""
        for real in (True, False):
            its, own = other._moments[real], self._moments[real]
            if its is None:
                continue
            if own is None:
                own = self._moments[real] = Moments(its.num_features, limit=self.limit)
            own.merge(its)
            self._rows[real] += other._rows[real]
