"""Turns names of folders, cells of manifests and texts of shards into labels and splits, by one set of rules."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

SPLITS = ("train", "val", "test")
NO_SPLIT = 255
SPLIT_WORDS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1}
SPLIT_WORDS |= {"test": 2, "testing": 2, "eval": 2, "evaluation": 2}
"""How people spell the splits, and their positions in SPLITS. Test is never taken for validation."""

_WORDS = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_SPLIT = re.compile(rf"({_WORDS})(?:[ _-]?set)?")
_SPLIT_INSIDE = re.compile(rf"(?<![a-z])({_WORDS})(?:[ _-]?set)?(?![a-z])")
_NUMBERED_SPLIT = re.compile(rf"({_WORDS})(?:[ _-]?set)?(?![a-z])(?:[ _.-]|[0-9]|of|part|shards?)*")
_NUMBER = re.compile(r"[+-]?(\d+)(?:\.0*)?")
_SURROGATES, _LONE = re.compile("[\ud800-\udfff]"), re.compile("[\ud800-\udc7f\udd00-\udfff]")
_MISSING = frozenset({"nan", "null", "none", "na", "n/a", "<na>", "#n/a", "nil"})


class BadValueError(ValueError):
    """A value that is no label, name or split, and why; the reader adds the place."""


def shown(text: str) -> str:
    """The text in quotes, with what cannot be seen made visible: spaces at its ends, controls, combining marks."""
    is_composed = unicodedata.is_normalized("NFC", text)
    quoted = repr(text)
    return quoted if is_composed else "".join(ascii(c)[1:-1] if unicodedata.combining(c) else c for c in quoted)


def listed(names: Sequence[object], limit: int = 5) -> str:
    """The first of the names, quoted, and how many more there are."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(shown(str(name)) for name in names[:limit]) + more


def label_of(value: object) -> str:
    """The class that a value of a file or the name of a folder stands for.

    Spaces and invisible characters at the ends are dropped and the text is brought into one Unicode form (NFC); a whole
    number of JSON is written without a fraction (1.0 is 1). `BadValueError` for nothing, null, NaN, fractions, lists.
    """
    if isinstance(value, str):
        return _label_of_text(value)
    if value is None:
        raise BadValueError("is null, and every image needs a class: fill it in or remove the image")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isfinite(value) and value == int(value):
            return str(int(value))
        raise BadValueError(f"is {value}; a class is a name or a whole number: correct it")
    what = "a list" if isinstance(value, list) else "an object"
    raise BadValueError(f"is {what}, and an image has one class: give one name or number")


@lru_cache(1 << 16)
def _label_of_text(text: str) -> str:
    clean = trimmed(unicodedata.normalize("NFC", text))
    if not clean or "\0" in clean:
        raise BadValueError(f"is empty{f' ({shown(text)})' if text else ''}: fill it in or remove the image")
    return clean


def trimmed(text: str) -> str:
    """The text without spaces and invisible characters at its ends."""
    text = text.strip()
    start, end = 0, len(text)
    while start < end and _is_invisible(text[start]):
        start += 1
    while end > start and _is_invisible(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def not_utf8(text: str) -> str | None:
    """Why a text that was read as UTF-8 is none, with what it probably says; None for one that is."""
    if text.isascii() or not _SURROGATES.search(text):
        return None
    raw = _LONE.sub("?", text).encode("utf-8", "surrogateescape")
    reads = shown(raw.decode("cp1252", "replace"))
    return f"{shown(text)} is not UTF-8 (in Windows-1252 it reads {reads}): save it as UTF-8"


def split_code(value: object) -> int | None:
    """The position in SPLITS of a split in any usual spelling ("Training", "test_set"); None for another word."""
    found = _SPLIT.fullmatch(str(value).strip().lower())
    return SPLIT_WORDS[found[1]] if found else None


def split_names(names: Iterable[str], *, numbered: bool = False) -> dict[str, int]:
    """Those of the names beside each other that stand for splits, with their positions in SPLITS.

    A name is that of a split as `split_code` knows it, with `numbered` also before numbers (`train-01`, `val_1-of-8`).
    Otherwise names that hold one such word each are splits where they differ in it alone and one is of train
    (`seg_train`, `seg_test`): `train_station` beside `test_tube` are not.
    """
    exact, inside, rests = dict[str, int](), dict[str, int](), set[str]()
    for name in names:
        found = (_NUMBERED_SPLIT if numbered else _SPLIT).fullmatch(name.strip().lower())
        if found:
            exact[name] = SPLIT_WORDS[found[1]]
        words = list(_SPLIT_INSIDE.finditer(name.lower()))
        if len(words) == 1:
            inside[name] = SPLIT_WORDS[words[0][1]]
            rests.add(re.sub(r"\d+", "", name.lower()[: words[0].start()] + "*" + name.lower()[words[0].end() :]))
        else:
            rests.add(name)
    return exact if exact or len(rests) != 1 or 0 not in inside.values() else inside


def twins(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ only in case, in spaces or in how a number is written."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        number = _NUMBER.fullmatch(label)
        key = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        groups.setdefault(f"number {int(number[1])} {label[0] == '-'}" if number else key, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def missing_words(labels: Sequence[str]) -> list[str]:
    """The labels that spreadsheets and pandas write where there is none, such as `nan`."""
    return [label for label in labels if label.lower() in _MISSING]


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether all are whole numbers, however they are written."""
    return all(_NUMBER.fullmatch(label) for label in labels)
