"""`reinception doctor`: what this machine has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.files import write_json
from reinception.machine import examine


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    json: Path | None = None


def run(options: DoctorOptions) -> None:
    """Print what this machine has: versions, processor, devices, disk.

    Put its output into a bug report.

    Example: reinception doctor
    """
    facts = examine()
    if options.json is not None:
        write_json(facts, options.json)
        return
    width = max(len(name) for section in facts.values() for name in section)
    for title, section in facts.items():
        print(title)
        for name, value in section.items():
            print(f"  {name.replace('_', ' '):<{width}}  {_said(value)}")


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
