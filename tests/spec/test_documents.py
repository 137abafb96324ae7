"""The strict decoder: what fits, what does not, and how its place is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from reinception.documents import MAX_DEPTH, Documents
from reinception.errors import ReinceptionError


@dataclass(frozen=True, kw_only=True)
class Inner:
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    path: str | Path | None = None
    size: tuple[int, int] = (1, 1)
    kind: Literal["a", "b"] = "a"
    extra: Mapping[str, Any]


DOCUMENTS = Documents(has_defaults=True)


def decode(**fields: Any) -> Outer:
    return DOCUMENTS.decode({"inner": {}, "extra": {}} | fields, Outer, "outer")


def test_what_is_encoded_is_decoded_again() -> None:
    outer = Outer(inner=Inner(numbers=(1.0, 2.5)), path="a", size=(3, 4), kind="b", extra={"any": [1, None]})
    assert DOCUMENTS.decode(DOCUMENTS.encode(outer), Outer, "outer") == outer


def test_a_missing_field_takes_its_default_where_that_is_asked_for() -> None:
    assert decode() == Outer(inner=Inner(), extra={})
    with pytest.raises(ReinceptionError, match=r"^outer: lacks path, size, kind$"):
        Documents().decode({"inner": {"numbers": []}, "extra": {}}, Outer, "outer")
    with pytest.raises(ReinceptionError, match=r"^outer: lacks inner$"):
        DOCUMENTS.decode({"extra": {}}, Outer, "outer")


def test_an_integer_is_accepted_for_a_float() -> None:
    (number,) = decode(inner={"numbers": [3]}).inner.numbers
    assert type(number) is float and number == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner": {"numbers": [1.0, "2"]}}, r"^outer\.inner\.numbers\.1: expected float, found '2'$"),
        ({"inner": {"numbers": [True]}}, r"^outer\.inner\.numbers\.0: expected float, found True$"),
        ({"inner": {"numbers": [float("inf")]}}, r"numbers\.0: expected float, found inf$"),
        ({"inner": {"numbers": [10**400]}}, r"numbers\.0: expected float, found 1000"),
        ({"inner": {"numbers": "12"}}, r"^outer\.inner\.numbers: expected a list, found '12'$"),
        ({"inner": [1]}, r"^outer\.inner: expected a JSON object, found \[1\]$"),
        ({"inner": {"numbers": [], "new\nfield": 1}}, r"^outer\.inner: unknown field 'new\\nfield'; written by"),
        ({"path": 3}, r"^outer\.path: expected str, found 3$"),
        ({"size": [1]}, r"^outer\.size: expected 2 values, found \[1\]$"),
        ({"size": [1, 2.0]}, r"^outer\.size\.1: expected int, found 2\.0$"),
        ({"kind": "c"}, r"^outer\.kind: expected one of 'a', 'b', found 'c'$"),
        ({"kind": ["a"]}, r"^outer\.kind: expected one of 'a', 'b', found \['a'\]$"),
        ({"extra": [1]}, r"^outer\.extra: expected a JSON object, found \[1\]$"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_its_place(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ReinceptionError, match=message) as caught:
        decode(**fields)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_document_nested_without_end_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ReinceptionError, match=f"^outer: nested more than {MAX_DEPTH} deep$"):
        decode(extra={"deep": nested})
