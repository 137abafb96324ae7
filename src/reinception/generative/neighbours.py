"""Precision, recall, density and coverage: which images lie within reach of the other set's nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reinception.errors import ReinceptionError
from reinception.generative.moments import Matrix
from reinception.generative.rows import Floats, Rows, checked_pair, content_order
from reinception.metrics import wilson

_BLOCK_ROWS, _COLUMNS = 512, 4096
# Squared distances come from |x|^2 + |y|^2 - 2 x.y, whose rounding is far below this part of the first two; what
# differs by no more counts as equal, so that copies are at distance 0.
_TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class NeighbourResult:
    """`precision`: of the generated images, the fraction within a real ball; `recall`: of the real ones, the fraction
    within a generated ball; `density`: how many real balls hold a generated image, over k; `coverage`: of the real
    balls, the fraction that holds a generated image. A ball reaches from an image to its k-th neighbour in its set.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> result = ri.generative.precision_recall(real=draw(size=(60, 2)), generated=draw(size=(60, 2)))
        >>> low, high = result.interval("precision")
        >>> low < result.precision < high
        True
    """

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

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> rows = draw(size=(60, 2))
        >>> ri.generative.precision_recall(real=rows, generated=rows + 100).precision
        0.0
    """
    pair = checked_pair(real, generated)
    for name, rows in zip(("real", "generated"), pair, strict=True):
        if not 1 <= k < len(rows):
            raise ReinceptionError(
                f"precision and recall: k = {k} neighbours of {len(rows)} {name} images; k is 1 to {len(rows) - 1}"
            )
    x, y = (rows[content_order(rows)[0]] for rows in pair)
    middle = (x.mean(0, dtype=np.float64) + y.mean(0, dtype=np.float64)) / 2
    reach_x, reach_y = _reach(x, middle, k), _reach(y, middle, k)
    in_real = np.zeros(len(y), dtype=np.int64)
    num_recalled = num_covered = 0
    for start in range(0, len(x), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        distances, norms = _distances(x[part], y, middle)
        distances -= _TOLERANCE * norms
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


def _reach(rows: Floats, middle: Matrix, k: int) -> Matrix:
    """The squared distance of each row (n,) to its k-th nearest other row."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK_ROWS):
        distances, _ = _distances(rows[start : start + _BLOCK_ROWS], rows, middle)
        num = len(distances)
        distances[np.arange(num), np.arange(start, start + num)] = np.inf
        found[start : start + num] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return found


def _distances(block: Floats, rows: Floats, middle: Matrix) -> tuple[Matrix, Matrix]:
    """Squared distances (b, n) of a block's rows to all rows, and the sums of their squared lengths about `middle`."""
    own = block.astype(np.float64) - middle
    products, lengths = np.empty((len(block), len(rows))), np.empty(len(rows))
    for start in range(0, len(rows), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        other = rows[part].astype(np.float64) - middle
        products[:, part], lengths[part] = own @ other.T, np.square(other).sum(1)
    norms = np.square(own).sum(1)[:, None] + lengths
    return norms - 2.0 * products, norms
