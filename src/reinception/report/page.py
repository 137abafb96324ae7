"""The page: sections put into the template under a policy that forbids every request and every script."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reinception import __version__
from reinception.files import new_text_file
from reinception.report import calibration_section, sections
from reinception.report.baseline import Against, against
from reinception.report.card import CARD_NAME, card
from reinception.report.confusion import MOST_CLASSES_IN_A_TABLE, confusion
from reinception.report.formatting import count
from reinception.report.read_run import Run, read_run
from reinception.report.slices import MOST_SHOWN, sliced
from reinception.report.training_cost import changes, costs

REPORT_NAME = "report.html"

_MACHINE = ("reinception", "python", "torch", "platform", "processor", "threads", "device", "precision")
"""Keys of environment.json that the page prints, in this order, before whatever else is there."""


_NOT_SHOWN = ("root", "arch")
"""Keys of config.json that the page leaves out: a folder of somebody's machine, and the network layer by layer."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What someone else needs to get these numbers again."""

    commands: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    config: str


def write_report(run: str | Path, out: str | Path | None = None, *, baseline: str | Path | None = None) -> Path:
    """Write the page of a RUN folder to `out`, and say where it is; beside a `baseline`, a run or a file of
    predictions for the same images.

    Without `out` it goes to RUN/report.html, and the model card to RUN/MODEL_CARD.md; both are renewed, as nothing in
    them is anyone's own work. An `out` that exists is refused. Image files that have moved since are left out of the
    page, everything else must be readable.
    """
    folder = Path(run)
    path = folder / REPORT_NAME if out is None else Path(out)
    read = read_run(folder)
    other = None if baseline is None else against(read, baseline)
    pages = {path: render(read, other)}
    if out is None:
        pages[folder / CARD_NAME] = card(read, other)
    for file_path, text in pages.items():
        with new_text_file(file_path, replace=out is None) as file:
            # A file name that is not UTF-8 must not make the page invalid.
            file.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    return path


def render(run: Run, other: Against | None = None) -> str:
    """The whole page as text. A section the run holds nothing for is left out."""
    style = files("reinception.report").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    # Only this very style sheet and embedded pictures: nothing is fetched, nothing runs, nothing is sent.
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    environment = Environment(
        loader=PackageLoader("reinception.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = run.table if run.table is not None and len(run.table) else None
    return environment.get_template("report.html.j2").render(
        run=run,
        policy=policy,
        style=Markup(style),
        title=run.name,
        subtitle=_subtitle(run),
        verdict=sections.verdict(table, run.split) if table else None,
        data=sections.data(run, table),
        curves=sections.curves(run),
        confusion=confusion(run, table) if table else None,
        classes=sections.classes(table) if table else (),
        rankings=sections.ranking_charts(table) if table else (),
        most_classes=MOST_CLASSES_IN_A_TABLE,
        against=other,
        calibration=calibration_section.calibrated(table, run.validation) if table else None,
        class_calibrations=calibration_section.calibrated_classes(table, run.validation) if table else None,
        slices=sliced(run, table) if table else None,
        most_slices=MOST_SHOWN,
        thresholds=calibration_section.thresholds(table, run.validation) if table else None,
        mistakes=sections.mistakes(run, table) if table else (),
        num_wrong=int((~table.correct).sum()) if table else 0,
        num_images=count(len(table), "image") if table else "",
        costs=costs(run),
        changes=changes(run),
        reproduction=reproduction(run),
        version=__version__,
    )


def reproduction(run: Run) -> Reproduction:
    """Commands, machine and configuration of the run; the folder of the images stays private."""
    config, folder = run.config, shlex.quote(str(run.folder))
    data = shlex.quote(str(config.get("data", "DATA")))
    commands = [("train", str(config["command"]))] if config.get("command") else []
    if run.split:
        commands.append(("evaluate", f"reinception evaluate {folder} {data} --split {run.split}"))
    commands.append(("use", f"reinception predict {folder} IMAGE..."))
    known = [("seed", config.get("seed")), ("data fingerprint", config.get("fingerprint"))]
    known += [(key, run.environment.get(key)) for key in _MACHINE]
    return Reproduction(
        commands=tuple(commands),
        facts=tuple((name, str(value)) for name, value in known if value is not None),
        config=json.dumps({k: v for k, v in config.items() if k not in _NOT_SHOWN}, indent=2, ensure_ascii=False),
    )


def _subtitle(run: Run) -> str:
    config = run.config
    recipe = config.get("recipe")
    parts = [
        config.get("model"),
        f"width {config['width']:g}" if config.get("width", 1) != 1 else None,
        f"{config['input_size']} × {config['input_size']} pixels" if config.get("input_size") else None,
        f"recipe {recipe['name']}" if isinstance(recipe, dict) and "name" in recipe else None,
        f"data {Path(str(config['data'])).name}" if config.get("data") else None,
        str(run.environment["started"])[:10] if run.environment.get("started") else None,
    ]
    return " · ".join(part for part in parts if part)
