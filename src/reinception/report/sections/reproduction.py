"""Reproduction section: the commands, the machine and the configuration of a run."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from reinception.report.read_run import Run

_MACHINE = ("reinception", "python", "torch", "platform", "processor", "threads", "device", "precision")
"""Keys of environment.json that the page prints, in this order."""

_NOT_SHOWN = ("root", "arch")
"""Keys of config.json that the page leaves out: a private folder, and the network layer by layer."""


@dataclass(frozen=True, kw_only=True)
class ReproductionSection:
    """What someone else needs to get these numbers again."""

    commands: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    config: str


def reproduction(run: Run) -> ReproductionSection:
    """Commands, machine and configuration of the run; the folder of the images stays private."""
    config, folder = run.config, shlex.quote(str(run.folder))
    data = shlex.quote(str(config.get("data", "DATA")))
    commands = [("train", str(config["command"]))] if config.get("command") else []
    if run.split:
        commands.append(("evaluate", f"reinception evaluate {folder} {data} --split {run.split}"))
    commands.append(("use", f"reinception predict {folder} IMAGE..."))
    known = [("seed", config.get("seed")), ("data fingerprint", config.get("fingerprint"))]
    known += [(key, run.environment.get(key)) for key in _MACHINE]
    return ReproductionSection(
        commands=tuple(commands),
        facts=tuple((name, str(value)) for name, value in known if value is not None),
        config=json.dumps({k: v for k, v in config.items() if k not in _NOT_SHOWN}, indent=2, ensure_ascii=False),
    )
