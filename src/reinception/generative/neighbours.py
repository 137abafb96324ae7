"""Precision, recall, density and coverage: which images lie within reach of the other set's nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.generative.moments import Matrix
from reinception.generative.rows import Rows, checked_pair, content_order
from reinception.metrics import wilson

_BLOCK_ROWS = 512
# Squared distances come from |x|^2 + |y|^2 - 2 x.y, whose rounding is far below this part of the first two; what
# differs by no more counts as equal, so that copies are at distance 0.
_TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class NeighbourResult:
    """`precision`: of the generated images, the fraction within a real ball; `recall`: of the real ones, the fraction
    within a generated ball; `density`: how many real balls hold a generated image, over k; `coverage`: of the real
    balls, the fraction that holds a generated image. A ball reaches from an image to its k-th neighbour in its set."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    num_real: int
    num_generated: int

    def interval(self, name: str) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the fraction `name`, with the balls as they are; None for the density."""
        if name == "density":
            return None
        n = self.num_generated if name == "precision" else self.num_real
        low, high = wilson(round(getattr(self, name) * n), n)
        return low, high


def precision_recall(*, real: Rows, generated: Rows, k: int = 3) -> NeighbourResult:
    """Precision and recall of Kynkäänniemi et al. 2019 (arXiv 1904.06991), density and coverage of Naeem et al. 2020
    (arXiv 2002.09797), from features (n, d) and (m, d).

    The k-th neighbour leaves out the image itself once, not its copies; "within" includes the border. Exchanging the
    sets exchanges precision and recall exactly. Distances are taken in blocks. ReinceptionError where `k` is not below
    the number of images of a set, for different widths, and values that are not finite.
    """
    pair = checked_pair(real, generated)
    for name, rows in zip(("real", "generated"), pair, strict=True):
        if not 1 <= k < len(rows):
            raise ReinceptionError(
                f"precision and recall: k = {k} neighbours of {len(rows)} {name} images; k is 1 to {len(rows) - 1}"
            )
    x, y = (rows[content_order(rows)[0]].astype(np.float64) for rows in pair)
    middle = (x.mean(0) + y.mean(0)) / 2
    x -= middle
    y -= middle
    reach_x, reach_y = _reach(x, k), _reach(y, k)
    norms_x, norms_y = np.square(x).sum(1), np.square(y).sum(1)
    in_real = np.zeros(len(y), dtype=np.int64)
    num_recalled = num_covered = 0
    for start in range(0, len(x), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        norms = norms_x[part, None] + norms_y
        distances = norms - 2.0 * (x[part] @ y.T) - _TOLERANCE * norms
        inside = distances <= reach_x[part, None]
        in_real += inside.sum(0)
        num_covered += int(inside.any(1).sum())
        num_recalled += int((distances <= reach_y).any(1).sum())
    return NeighbourResult(
        precision=float((in_real > 0).mean()),
        recall=num_recalled / len(x),
        density=int(in_real.sum()) / (k * len(y)),
        coverage=num_covered / len(x),
        k=k,
        num_real=len(x),
        num_generated=len(y),
    )


def _reach(rows: Matrix, k: int) -> npt.NDArray[np.float64]:
    """The squared distance of each row (n,) to its k-th nearest other row."""
    norms = np.square(rows).sum(1)
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        distances = norms[start : start + _BLOCK_ROWS, None] + norms - 2.0 * (block @ rows.T)
        distances[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        found[start : start + _BLOCK_ROWS] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return found
