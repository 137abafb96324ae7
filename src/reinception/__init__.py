"""Inception-v3 on PyTorch: the public names, each loaded when first used, so that importing costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reinception import family as family
    from reinception import generative as generative
    from reinception import spec as spec
    from reinception.errors import ReinceptionError as ReinceptionError
    from reinception.errors import UsageError as UsageError
    from reinception.family.catalog import bn_googlenet as bn_googlenet
    from reinception.family.catalog import bn_inception as bn_inception
    from reinception.family.catalog import create as create
    from reinception.family.catalog import googlenet as googlenet
    from reinception.family.catalog import inception_v2 as inception_v2
    from reinception.family.catalog import inception_v2_bn_auxiliary as inception_v2_bn_auxiliary
    from reinception.family.catalog import inception_v2_factorized_7x7 as inception_v2_factorized_7x7
    from reinception.family.catalog import inception_v2_label_smoothing as inception_v2_label_smoothing
    from reinception.family.catalog import inception_v2_rmsprop as inception_v2_rmsprop
    from reinception.family.catalog import inception_v3 as inception_v3
    from reinception.family.catalog import inception_v3_79 as inception_v3_79
    from reinception.family.catalog import inception_v3_151 as inception_v3_151
    from reinception.family.catalog import inception_v3_fid as inception_v3_fid
    from reinception.family.catalog import inception_v3_lucid as inception_v3_lucid
    from reinception.family.catalog import inception_v3_paper as inception_v3_paper
    from reinception.family.catalog import models as models
    from reinception.model.artifact import load as load
    from reinception.model.artifact import save as save
    from reinception.spec import cost as cost
    from reinception.train.loss import smoothed_cross_entropy as smoothed_cross_entropy

__version__ = "0.1.0"

# module -> what it gives; a module's own name stands for the module
_ROOMS = {
    "reinception.spec.cost": ("cost",),
    "reinception.errors": ("ReinceptionError", "UsageError"),
    "reinception.family": ("family",),
    "reinception.generative": ("generative",),
    "reinception.model.artifact": ("load", "save"),
    "reinception.family.catalog": (
        "create",
        "models",
        "googlenet",
        "bn_googlenet",
        "bn_inception",
        "inception_v2",
        "inception_v2_rmsprop",
        "inception_v2_label_smoothing",
        "inception_v2_factorized_7x7",
        "inception_v2_bn_auxiliary",
        "inception_v3",
        "inception_v3_paper",
        "inception_v3_lucid",
        "inception_v3_151",
        "inception_v3_79",
        "inception_v3_fid",
    ),
    "reinception.spec": ("spec",),
    "reinception.train.loss": ("smoothed_cross_entropy",),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the keys above are the names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reinception' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    value = getattr(home, name) if hasattr(home, name) and home.__name__.rpartition(".")[2] != name else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
