"""Inception-v3 on PyTorch: the public names, each loaded when first used, so that importing costs nothing."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from reinception._version import __version__ as __version__

# name -> the module that defines it, read from the one list of them, which type checkers read too
_HOMES = {
    name: home
    for home, name in re.findall(
        r"^from (\S+) import (\w+) as", Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"), re.MULTILINE
    )
}

__all__ = [*_HOMES]  # noqa: PLE0604 - the keys are the names


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'reinception' has no attribute {name!r}")
    module = importlib.import_module(home)
    if name in globals():  # a package of that name, imported on the way: `reinception.train`, which can be called
        return globals()[name]
    is_package = home == __name__ or not hasattr(module, name)
    globals()[name] = value = importlib.import_module(f"{home}.{name}") if is_package else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return __all__
