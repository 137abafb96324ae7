"""The Inception score: how sure a classifier is of each image, and how varied its answers are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.generative.rows import Z_95, Rows, as_rows, content_order, require_finite


@dataclass(frozen=True, kw_only=True)
class InceptionScoreResult:
    """`value` is the mean over `splits` parts and `spread` their standard deviation (None for one part), as papers
    print it; `whole` is the score of all images at once. `interval` is the 95 % interval around `value` over other
    images of the same kind. The score grows a little with the number of images.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> result = ri.generative.inception_score(np.eye(4)[[0, 1, 2, 3] * 5])
        >>> result.value, result.spread
        (2.0, 0.0)
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    spread: float | None
    whole: float
    splits: int
    num_generated: int


def inception_score(probabilities: Rows, *, splits: int = 10, logits: bool = False) -> InceptionScoreResult:
    """exp of the mean Kullback-Leibler divergence between each row (n, classes) and the mean row of its part.

    `probabilities` sum to 1 in each row; with `logits` they are taken through a softmax first. Rows are dealt out to
    the parts one by one in an order that their content decides, so that neither classes that lie together in a folder
    nor any other order changes a bit. K for one-hot rows spread evenly over K classes, 1 for equal rows.
    ReinceptionError for fewer rows than `splits`, values that are not finite, and rows that are no probabilities.
    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> round(ri.generative.inception_score(np.eye(4)[[0, 1, 2, 3] * 5], splits=1).value, 6)
        4.0
    """
    rows = as_rows(probabilities, "probabilities")
    require_finite(rows, "probabilities")
    if not 1 <= splits <= len(rows):
        raise ReinceptionError(f"inception score: {splits} splits of {len(rows)} images; give at most one an image")
    p = rows[content_order(rows)[0]].astype(np.float64)
    if logits:
        p = np.exp(p - p.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
    off = np.abs(p.sum(1) - 1).max()
    if off > 1e-3 or p.min() < 0:
        raise ReinceptionError(
            "inception score: the rows are no probabilities: each must sum to 1 (for logits, say so)"
        )
    divergences = _divergences(p)
    whole = float(np.exp(divergences.mean()))
    scores = np.array([np.exp(_divergences(p[part::splits]).mean()) for part in range(splits)])
    value = float(scores.mean())
    # d log(score) by one image is its own divergence less the mean: the infinitesimal jackknife.
    error = float(divergences.std(ddof=1) / np.sqrt(len(p))) if len(p) > 1 else 0.0
    return InceptionScoreResult(
        value=value,
        standard_error=value * error,
        interval=(max(1.0, value * float(np.exp(-Z_95 * error))), value * float(np.exp(Z_95 * error))),
        spread=float(scores.std()) if splits > 1 else None,
        whole=whole,
        splits=splits,
        num_generated=len(p),
    )


def _divergences(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """KL(row || mean row) of each row, with 0 log 0 = 0."""
    mean = p.mean(0)
    logs = np.log(np.where(p > 0, p, 1.0)) - np.log(np.where(mean > 0, mean, 1.0))
    return (p * logs).sum(1)
