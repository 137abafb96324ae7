"""`reinception doctor`: what this machine has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.files import write_json
from reinception.machine import choose_device, examine


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    json: Path | None = None


def run(options: DoctorOptions) -> None:
    """Print what this machine has: versions, processor, devices, disk, and faults of torch that are avoided.

    Put its output into a bug report.

    Example: reinception doctor
    """
    from reinception.model.pooling import gradient_is_wrong

    device = choose_device()
    is_wrong = gradient_is_wrong(device)
    layout = "in the other memory layout, since torch's is wrong here (pytorch#188344)" if is_wrong else "torch's"
    pools = {
        "average_gradient": f"{layout}, on {device}",
        "compiled_gradients": "torch's, not the compiler's (pytorch#198119)",
    }
    facts = {**examine(), "pooling": pools}
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
