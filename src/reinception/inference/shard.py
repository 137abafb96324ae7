"""Shard: one of n consecutive parts of a list of images, for machines that share nothing but the list."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part `number`, from 1, of `of` consecutive parts of a list; one after another they are the list.

    Example:
        >>> from reinception.inference.shard import Shard
        >>> Shard.parse("2/3").range(10)
        range(3, 6)
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `text`, such as 2/8, names. ValueError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text!r} is not a shard such as 1/8, the first of eight, or 8/8, the last")
        return cls(number=int(match[1]), of=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def range(self, num: int) -> range:
        """Its part of `range(num)`: as long as any other or one shorter."""
        return range(num * (self.number - 1) // self.of, num * self.number // self.of)
