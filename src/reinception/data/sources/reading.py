"""How a source was read: its layout, where labels and splits came from, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Ignored:
    """Entries of one kind that were left out: how many, and one of them."""

    kind: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """`layout` is what the data were taken for and `labels` where the classes came from, as phrases; `splits` says of
    each folder or shard taken for a split which one it is; `remarks` are doubts, each one sentence."""

    layout: str = "images"
    labels: str = ""
    splits: tuple[str, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass
class IgnoredEntries:
    """Counts what is left out while a source is read."""

    _found: dict[str, list[str | int]] = field(default_factory=dict)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        if count:
            entry = self._found.setdefault(kind, [0, example])
            entry[0] = int(entry[0]) + count

    def counted(self) -> tuple[Ignored, ...]:
        """Every kind, the rarest first."""
        found = [Ignored(kind=kind, count=int(num), example=str(one)) for kind, (num, one) in self._found.items()]
        return tuple(sorted(found, key=lambda one: (one.count, one.kind)))
