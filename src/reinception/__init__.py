"""Inception-v3 on PyTorch: the public names, each loaded when first used, so that importing costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reinception import cost as cost
    from reinception import family as family
    from reinception import spec as spec
    from reinception.errors import ReinceptionError as ReinceptionError
    from reinception.errors import UsageError as UsageError
    from reinception.model.artifact import load as load
    from reinception.model.artifact import save as save
    from reinception.networks import create as create
    from reinception.networks import inception_v3 as inception_v3
    from reinception.networks import inception_v3_lucid as inception_v3_lucid
    from reinception.networks import inception_v3_paper as inception_v3_paper
    from reinception.networks import models as models
    from reinception.train.loss import smoothed_cross_entropy as smoothed_cross_entropy

__version__ = "0.1.0"

# name -> module that holds it; a module of that very name is the value itself
_HOMES = {
    "ReinceptionError": "reinception.errors",
    "UsageError": "reinception.errors",
    "cost": "reinception.cost",
    "create": "reinception.networks",
    "family": "reinception.family",
    "inception_v3": "reinception.networks",
    "inception_v3_lucid": "reinception.networks",
    "inception_v3_paper": "reinception.networks",
    "load": "reinception.model.artifact",
    "models": "reinception.networks",
    "save": "reinception.model.artifact",
    "smoothed_cross_entropy": "reinception.train.loss",
    "spec": "reinception.spec",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the keys above are the names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reinception' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    value = home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
