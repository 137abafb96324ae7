"""Finds the files that a list names, also where they are written as another system or program writes them."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from pathlib import Path

from reinception.data.images.formats import IMAGE_SUFFIXES
from reinception.data.sources.labels import BadValueError, not_utf8, shown
from reinception.data.sources.remote import is_address

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class ListedPaths:
    """The paths of a list, relative to `folder`, None where they are remote.

    A plain path is taken as it is and not looked for: millions have to be read in seconds. Only where it has spaces at
    its ends, backslashes, no ending of an image or letters beyond ASCII, and is not there, the file is looked for
    without the spaces, with slashes, under the other Unicode form, and with an ending where only one file fits.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._listings: dict[str, dict[str, list[str]]] = {}
        self._found: dict[str, int] = {}

    def find(self, value: object) -> str:
        """The path as the file is called. BadValueError for one that is empty, not UTF-8 or of another system."""
        if not isinstance(value, str):
            if not isinstance(value, int):
                raise BadValueError(f"the path is {value!r}, not a name: correct it")
            value = str(value)
        if value.isascii() and value.isprintable() and "\\" not in value and value[-1:] != " " and value[:1] != " ":
            dot = value.rfind(".")
            if dot > 0 and value[dot:].lower() in IMAGE_SUFFIXES:
                return value
        text = value.strip()
        if not text or "\0" in text:
            what = "holds a zero byte: correct it" if text else "is empty: fill it in or remove the line"
            raise BadValueError(f"the path {what}")
        if is_address(text) or self._folder is None:
            return text
        slashed = text.replace("\\", "/")
        for how, candidate in (("", value), ("without spaces at the ends", text), ("with / for \\", slashed)):
            if os.path.lexists(self._folder / candidate):
                return self._note(how, value, candidate)
            if (match := self._like(candidate)) is not None:
                is_longer = _form(match) != _form(candidate)
                return self._note("with an ending" if is_longer else "in the other Unicode form", value, match)
        if _WINDOWS.match(text):
            raise BadValueError(f"{shown(text)} is a path of Windows: write it relative to the list's folder")
        if why := not_utf8(text):
            raise BadValueError(f"the path {why}")
        return text

    def remarks(self) -> list[str]:
        """How many files are called otherwise than the list says."""
        return [f"{num:,} paths of the list were found {how}" for how, num in self._found.items()]

    def _note(self, how: str, value: str, found: str) -> str:
        if value != found:
            self._found[how] = self._found.get(how, 0) + 1
        return found

    def _like(self, name: str) -> str | None:
        """The only file of that name in the other Unicode form, or with the ending of an image."""
        assert self._folder is not None
        parts, found = name.split("/"), ""
        for place, part in enumerate(parts):
            folder, is_last = self._folder / found, place == len(parts) - 1
            match = [part] if os.path.lexists(folder / part) else self._listing(str(folder)).get(_form(part), [])
            if not match and is_last:
                match = self._listing(str(folder)).get(f"{_form(part)}.*", [])
            if len(match) != 1:
                return None
            found = f"{found}/{match[0]}" if place else match[0]
        return found

    def _listing(self, folder: str) -> dict[str, list[str]]:
        """The names in a folder by their composed form, and images by that without the ending."""
        if folder not in self._listings:
            self._listings[folder] = listing = dict[str, list[str]]()
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    listing.setdefault(_form(name), []).append(name)
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() in IMAGE_SUFFIXES:
                        listing.setdefault(f"{_form(stem)}.*", []).append(name)
        return self._listings[folder]


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)
