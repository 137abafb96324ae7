"""What is wrong with the pictures, found before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reinception.data.decode import Refused, decode
from reinception.data.records import Record
from reinception.data.workers import in_order

_RECORDS_PER_TASK = 16


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One picture that can not be used: its name, and the kind and reason of its refusal (see `decode.Refused`)."""

    name: str
    kind: str
    reason: str


def check_images(records: Sequence[Record], *, workers: int = 0) -> list[Problem]:
    """Every picture decoded in full, in this process or in `workers` others; those that are refused, in order."""
    tasks = [records[start : start + _RECORDS_PER_TASK] for start in range(0, len(records), _RECORDS_PER_TASK)]
    return [problem for found in in_order(_check, tasks, workers) for problem in found]


def _check(records: Sequence[Record]) -> list[Problem]:
    problems = []
    for record in records:
        try:
            decode(record.path, keep_grey=True)
        except Refused as error:
            problems.append(Problem(name=record.name, kind=error.kind, reason=error.reason))
    return problems
