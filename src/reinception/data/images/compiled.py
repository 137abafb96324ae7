"""Functions that numba compiles to machine code, kept on disk from one process to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit

from reinception.files import cache_folder

# numba looks only at the file of a function itself to see whether what it kept is out of date. These call each other
# across files, so what is kept is kept under the digest of them all.
_SOURCES = sorted(Path(__file__).parent.glob("jpeg_*.py"))


@cache
def _folder() -> str:
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()
    return str(cache_folder() / "compiled" / digest[:16])


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba's `njit`, kept in the user's cache folder where there is a place for it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        settings = vars(config)
        before = settings["CACHE_DIR"]
        try:
            settings["CACHE_DIR"] = _folder()
            return njit(cache=True, **options)(function)
        except RuntimeError:  # there is no home, or nothing can be written: it is compiled in every process
            return njit(**options)(function)
        finally:
            settings["CACHE_DIR"] = before

    return decorate


# Without numba's runtime (`_nrt`) a function makes no arrays, and does not count who uses those it is given.
lean = compiled(_nrt=False)
inlined = compiled(_nrt=False, inline="always")
