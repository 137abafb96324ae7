"""What is scored, and how, as documented fields: those of the command line are derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reinception.errors import UsageError

METRICS = ("fid", "kid", "is", "prdc")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is scored, and how.

    Example:
        >>> import reinception as ri
        >>> config = ri.generative.ScoreConfig(metrics="fid,kid")
        >>> config.metrics
        'fid,kid'
    """

    metrics: str = "fid"
    """of fid, kid, is (Inception score, of GENERATED alone) and prdc (precision, recall, density, coverage), separated
    by commas"""

    mode: Literal["tf", "pytorch_fid", "clean", "torchmetrics"] | None = None
    """how an image becomes the FID network's input: as that tool does it, tf being the original (default: tf)"""

    weights: str | None = None
    """the extractor: FID's own file, or any other model, and then the scores have other names; torchhub:fid downloads
    FID's (default: FID's own file in the cache folder)"""

    seed: int = 0
    """of the random parts that the extrapolation and the kernel distance draw"""

    subsets: int = 100
    """random subsets that the kernel distance is averaged over"""

    subset_size: int | None = None
    """images in each (default: 1,000, or all where there are fewer)"""

    splits: int = 10
    """parts that the Inception score is averaged over"""

    neighbours: int = 3
    """k of precision, recall, density and coverage"""

    cache: Path | None = None
    """folder that keeps features by content, so that killed work goes on (default: the user's cache folder; in Python,
    where a call has no hidden effects, none)"""

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in METRICS]
        if unknown or not self.names:
            wrong = ", ".join(map(repr, unknown)) or "none"
            raise UsageError(f"metrics: {wrong}; they are {', '.join(METRICS)}, separated by commas")

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics one by one."""
        return tuple(name.strip() for name in self.metrics.split(",") if name.strip())
