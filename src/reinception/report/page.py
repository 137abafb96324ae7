"""Renders the report page: sections in a template, under a content policy without requests or scripts."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reinception import __version__
from reinception.files import new_text_file
from reinception.metrics import Rate
from reinception.report.card import CARD_NAME, card
from reinception.report.charts import range_bar
from reinception.report.curves import learning_curves
from reinception.report.formatting import count, interval, number_or_dash, p_value, percent, percent_or_dash
from reinception.report.read_run import Run, read_run
from reinception.report.sections.baseline import BaselineSection, compare_with_baseline
from reinception.report.sections.class_scores import class_rows, pr_and_roc_charts
from reinception.report.sections.confusion_matrix import MOST_CLASSES_IN_A_TABLE, confusion_section
from reinception.report.sections.dataset import dataset
from reinception.report.sections.mistakes import mistakes
from reinception.report.sections.reliability import calibration_by_predicted_class, overall_calibration
from reinception.report.sections.reproduction import reproduction
from reinception.report.sections.slices import MOST_SHOWN, slice_section
from reinception.report.sections.summary import summary
from reinception.report.sections.thresholds import thresholds
from reinception.report.sections.training_cost import changes, costs

REPORT_NAME = "report.html"


def write_report(run: str | Path, out: str | Path | None = None, *, baseline: str | Path | None = None) -> Path:
    """Write the report page of a RUN folder and return its path.

    Without `out` it goes to RUN/report.html, and the model card to RUN/MODEL_CARD.md; both are replaced. `baseline` is
    a run, or a CSV file of predictions, for the same images, to compare with. Image files that have moved are left out
    of the page. ReinceptionError where `out` exists, or where anything else cannot be read.
    """
    folder = Path(run)
    path = folder / REPORT_NAME if out is None else Path(out)
    read = read_run(folder)
    other = None if baseline is None else compare_with_baseline(read, baseline)
    pages = {path: render(read, other)}
    if out is None:
        pages[folder / CARD_NAME] = card(read, other)
    for file_path, text in pages.items():
        with new_text_file(file_path, replace=out is None) as file:
            # A file name that is not UTF-8 must not make the page invalid.
            file.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    return path


def render(run: Run, baseline: BaselineSection | None = None) -> str:
    """The whole page as text. A section without content is left out."""
    style = files("reinception.report").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    # Only this very style sheet and embedded images: nothing is fetched, nothing runs, nothing is sent.
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    environment = Environment(
        loader=PackageLoader("reinception.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "fraction": percent_or_dash,
        "number": number_or_dash,
        "p_value": p_value,
        "interval": _interval,
        "range_bar": _range_bar,
    }
    table = run.scored
    return environment.get_template("report.html.j2").render(
        run=run,
        policy=policy,
        style=Markup(style),
        title=run.name,
        subtitle=_subtitle(run),
        summary=summary(table, run.split) if table else None,
        dataset=dataset(run, table),
        curves=learning_curves(run.log),
        confusion=confusion_section(run, table) if table else None,
        classes=class_rows(table) if table else (),
        class_curves=pr_and_roc_charts(table) if table else (),
        most_classes=MOST_CLASSES_IN_A_TABLE,
        baseline=baseline,
        calibration=overall_calibration(table, run.validation) if table else None,
        class_calibration=calibration_by_predicted_class(table, run.validation) if table else None,
        slices=slice_section(run, table) if table else None,
        most_slices=MOST_SHOWN,
        thresholds=thresholds(table, run.validation) if table else None,
        mistakes=mistakes(run, table) if table else (),
        num_wrong=int((~table.correct).sum()) if table else 0,
        num_images=count(len(table), "image") if table else "",
        costs=costs(run),
        changes=changes(run),
        reproduction=reproduction(run),
        version=__version__,
    )


def _interval(rate: Rate) -> str:
    return interval(*rate.interval())


def _range_bar(rate: Rate, fraction: float) -> Markup:
    low, high = rate.interval()
    return range_bar(low, high, 100 * fraction)


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
