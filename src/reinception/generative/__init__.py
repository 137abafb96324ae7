"""FID, KID, Inception score, precision and recall: exact, streaming, with intervals; functions of arrays or tensors.

`fid`, `kid`, `inception_score`, `precision_recall` and `compare_fid` take features; `score` takes folders and files;
`GenerativeMetrics` takes batches. Each name is loaded when it is first used, and only what reads images loads torch.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

# name -> the module that defines it, read from the one list of them, which type checkers read too
_HOMES = {
    name: home
    for home, name in re.findall(
        r"^from (\S+) import (\w+) as", Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"), re.MULTILINE
    )
}

__all__ = [*_HOMES]  # noqa: PLE0604 - the keys are the names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reinception.generative' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
