"""The model card in Markdown; a section without content is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reinception import __version__, metrics
from reinception.metrics import PredictionTable, calibration
from reinception.model.artifact import MODEL_NAME
from reinception.report.formatting import count, interval, percent, percent_or_dash
from reinception.report.read_run import Run
from reinception.report.sections.baseline import BaselineSection
from reinception.report.sections.reliability import calibration_by_predicted_class
from reinception.report.sections.slices import slice_section
from reinception.report.sections.training_cost import changes, costs

CARD_NAME = "MODEL_CARD.md"

_IN_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~"} | {"\n": " ", "\r": " "})
_MOST_CLASSES = 50
_MOST_SLICES = 8


def card(run: Run, baseline: BaselineSection | None = None) -> str:
    """The whole card; `baseline` is the comparison with another run. Every sentence in it is a fact of the run."""
    parts = [_front_matter(run), f"# {_escaped(run.name)}", _summary(run)]
    compared: list[str] = [] if baseline is None else [_escaped(baseline.verdict), "", _escaped(baseline.evidence)]
    table = run.scored
    for title, lines in (
        ("Result", _result(run, table) if table else ()),
        (f"Compared with {_escaped(baseline.name)}" if baseline else "", compared),
        ("Classes", _classes(table) if table else ()),
        ("Calibration and limits", _calibration(run, table) if table else ()),
        ("Accuracy by slice", _slices(run, table) if table else ()),
        ("Data", _data(run)),
        ("Training", _training(run)),
        ("Cost", [f"- {_escaped(name)}: {_escaped(value)}" for name, value in costs(run)]),
        ("Use", _use(run)),
        ("Reproduce", _reproduce(run)),
    ):
        if written := list(lines):
            parts.append("\n".join([f"## {title}", "", *written]))
    return "\n\n".join(parts) + f"\n\nWritten by reinception {__version__} from the run's own files.\n"


def _front_matter(run: Run) -> str:
    lines = ["library_name: reinception", "pipeline_tag: image-classification", "tags:", "- image-classification"]
    if model := run.config.get("model"):
        lines.append(f"- {model}")
    return "\n".join(["---", *lines, "---"])


def _summary(run: Run) -> str:
    config = run.config
    what = f"{config['model']}" if config.get("model") else "An image classifier"
    classes = config.get("classes") or (run.table.classes if run.table else ())
    classes_in_words = f" for {count(len(classes), 'class', 'classes')}" if classes else ""
    return f"{_escaped(what)}{classes_in_words}."


def _result(run: Run, table: PredictionTable) -> Iterator[str]:
    right, (name, base) = metrics.accuracy(table), metrics.majority(table)
    yield f"On {count(len(table), 'image')} of the {run.split_in_words} split, single crop:"
    yield ""
    yield "| figure | value | 95 % interval |"
    yield "|---|---|---|"
    yield f"| accuracy | {percent(right.percent, 2)} | {interval(*right.interval())} (Wilson) |"
    if len(table.classes) > 5:
        top5 = metrics.top_k_error(table, 5)
        yield f"| top-5 error | {percent(top5.percent, 2)} | {interval(*top5.interval())} (Wilson) |"
    yield f"| balanced accuracy | {percent(100 * metrics.balanced_accuracy(table), 2)} | |"
    yield f"| macro F1 | {metrics.macro_f1(table):.3f} | |"
    yield f"| always “{_escaped(name)}” | {percent(base.percent, 2)} | |"
    if run.split == "val":
        yield ""
        yield "The same images chose the weights that were kept, so expect somewhat less on others."


def _classes(table: PredictionTable) -> Iterator[str]:
    scores = sorted(metrics.per_class(table), key=lambda one: (one.recall is None, one.recall))
    yield "| class | images | precision | recall | 95 % interval of recall |"
    yield "|---|---|---|---|---|"
    for one in scores[:_MOST_CLASSES]:
        figures = f"{percent_or_dash(one.precision)} | {percent_or_dash(one.recall)}"
        ends = interval(*one.right.interval()) if one.right else "–"
        yield f"| {_escaped(one.name)} | {one.support:,} | {figures} | {ends} |"
    if len(scores) > _MOST_CLASSES:
        yield ""
        yield f"The {_MOST_CLASSES} weakest of {len(scores)} classes."


def _calibration(run: Run, table: PredictionTable) -> Iterator[str]:
    confidence = 100 * float(table.probabilities.max(axis=1).mean())
    yield (
        f"- Mean confidence {percent(confidence)}, accuracy {percent(metrics.accuracy(table).percent)}, "
        f"calibration error {percent(100 * calibration.calibration_error(table))}."
    )
    if run.validation is not None and len(run.validation):
        temperature = calibration.fit_temperature(run.validation)
        after = calibration.calibration_error(calibration.with_temperature(table, temperature))
        yield f"- With temperature {temperature:.2f}, fitted on the validation split: {percent(100 * after)}."
    yield f"- {calibration_by_predicted_class(table, run.validation).sentence}"
    yield "- It assigns one of its classes to every image, also to one that shows none of them."
    yield "- These figures are for images like those it was evaluated on, not for other cameras, places or times."


def _slices(run: Run, table: PredictionTable) -> Iterator[str]:
    found = slice_section(run, table)
    if found is None:
        return
    yield found.sentence if not found.worse else f"By Fisher's exact test, corrected for {found.counted} (Holm):"
    for row in found.worse[:_MOST_SLICES]:
        expected = "" if row.expected is None else f"; {percent(100 * row.expected)} expected from its classes"
        yield (
            f"- {_escaped(row.feature)}, {_escaped(row.value)}: {percent(row.accuracy.percent)} of {row.n:,} correct "
            f"({interval(*row.accuracy.interval())}), {percent(row.rest.percent)} of the rest{expected}"
        )
    if len(found.worse) > _MOST_SLICES:
        yield f"- and {len(found.worse) - _MOST_SLICES} more"


def _data(run: Run) -> Iterator[str]:
    config = run.config
    if config.get("data"):
        yield f"- Images: {_escaped(Path(str(config['data'])).name)}"
    counted = config.get("splits")
    if isinstance(counted, dict) and counted:
        parts = [f"{split} {sum(by_class.values()):,}" for split, by_class in counted.items()]
        yield f"- Split: {', '.join(parts)}"
    for note in config.get("notes", ()):
        yield f"- Note: {_escaped(note)}"
    if config.get("fingerprint"):
        yield f"- Fingerprint of names, sizes and labels: `{config['fingerprint']}`"


def _training(run: Run) -> Iterator[str]:
    config = run.config
    recipe = config.get("recipe")
    if isinstance(recipe, dict) and recipe.get("name"):
        yield f"- Recipe: {_escaped(str(recipe['name']))}"
        for path, preset, here in changes(run):
            yield f"- {_escaped(path)}: {_escaped(here)} instead of {_escaped(preset)}"
    if config.get("input_size"):
        yield f"- Input: {config['input_size']} × {config['input_size']} pixels"
    if config.get("width", 1) != 1:
        yield f"- Width: {config['width']:g} of the network's channels"
    start = _escaped(Path(str(config["weights"])).name) if config.get("weights") else "random weights"
    yield f"- Started from: {start}"
    for key in ("seed", "precision"):
        if config.get(key) is not None:
            yield f"- {key.capitalize()}: {config[key]}"


def _use(run: Run) -> Iterator[str]:
    if (run.folder / MODEL_NAME).is_file():
        yield "```sh"
        yield f"reinception predict {MODEL_NAME} IMAGE..."
        yield "```"
        yield ""
        yield "The file holds the weights, the classes and the preprocessing; nothing in it is executed."


def _reproduce(run: Run) -> Iterator[str]:
    if run.config.get("command"):
        yield "```sh"
        yield str(run.config["command"]).replace("```", "")
        yield "```"
    facts = [f"{key} {run.environment[key]}" for key in ("reinception", "python", "torch") if run.environment.get(key)]
    if facts:
        yield ""
        yield f"With {', '.join(facts)}."


def _escaped(text: str) -> str:
    """A name must neither format the Markdown nor be HTML."""
    return text.translate(_IN_MARKDOWN)
