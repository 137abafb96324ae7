"""The report of a conversion, as text and as JSON: everything that was dropped, added or assumed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Tensors of the file that are not in the model, by the file's names."""

    what: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.names[:_SHOWN])
        more = ", ..." if len(self.names) > _SHOWN else ""
        return f"dropped {len(self.names)} tensors, {self.what}: {shown}{more}"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The outputs of both networks on the same random images, compared.

    `difference` is the largest of any output, `relative` the same divided by the largest output (or by 1). `peer` is
    None, and `why_not` tells why, where nothing could be compared.
    """

    peer: str | None
    why_not: str = ""
    num_images: int = 0
    what: tuple[str, ...] = ()
    difference: float | None = None
    relative: float | None = None

    def __str__(self) -> str:
        if self.peer is None:
            return f"parity not run: {self.why_not}"
        return (
            f"parity with {self.peer} on {self.num_images} random images: {' and '.join(self.what)} differ by at most "
            f"{self.difference:.1e} ({self.relative:.1e} of the largest)"
        )


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did. `added` are tensors that the file did not have: batch norm's step counters, at 0."""

    title: str
    source: str
    certainty: str
    could_also_be: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    added: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    proof: Proof | None = None

    def lines(self) -> tuple[str, ...]:
        """One fact a line, for people."""
        lines = [self.title, f"source: {self.source} ({self.certainty})"]
        if self.could_also_be:
            lines.append(f"could also be: {', '.join(self.could_also_be)}")
        lines += [str(group) for group in self.dropped]
        if self.added:
            lines.append(f"added {len(self.added)} batch norm step counters at 0")
        lines += list(self.notes)
        if self.proof is not None:
            lines.append(str(self.proof))
        return tuple(lines)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
