"""FID, KID, Inception score, precision and recall: exact, streaming, with intervals; functions of arrays or tensors.

`fid`, `kid`, `inception_score`, `precision_recall` and `compare_fid` take features; `score` takes folders and files;
`GenerativeMetrics` takes batches. Only what reads images loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reinception.generative.classifier_score import InceptionScoreResult, inception_score
from reinception.generative.frechet import Difference, FrechetResult, compare_fid, fid, frechet_distance
from reinception.generative.kernel import KernelResult, kid
from reinception.generative.modes import MODES, Mode
from reinception.generative.moments import Moments, moments_of
from reinception.generative.neighbours import NeighbourResult, precision_recall
from reinception.generative.statistics_file import FeatureRows, Statistics, read_file, save_statistics
from reinception.generative.streaming import GenerativeMetrics

if TYPE_CHECKING:
    from reinception.generative.extractor import Extractor as Extractor
    from reinception.generative.extractor import load_extractor as load_extractor
    from reinception.generative.scoring import ScoreConfig as ScoreConfig
    from reinception.generative.scoring import ScoreReport as ScoreReport
    from reinception.generative.scoring import save_statistics_of as save_statistics_of
    from reinception.generative.scoring import score as score

_WITH_TORCH = {
    "Extractor": "extractor",
    "load_extractor": "extractor",
    "ScoreConfig": "scoring",
    "ScoreReport": "scoring",
    "save_statistics_of": "scoring",
    "score": "scoring",
}

__all__ = [  # noqa: PLE0604 - the last are the names above
    "fid",
    "kid",
    "inception_score",
    "precision_recall",
    "compare_fid",
    "frechet_distance",
    "Moments",
    "moments_of",
    "GenerativeMetrics",
    "MODES",
    "Mode",
    "FrechetResult",
    "KernelResult",
    "InceptionScoreResult",
    "NeighbourResult",
    "Difference",
    "FeatureRows",
    "Statistics",
    "read_file",
    "save_statistics",
    *_WITH_TORCH,
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'reinception.generative' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"reinception.generative.{_WITH_TORCH[name]}"), name)
    globals()[name] = value
    return value
