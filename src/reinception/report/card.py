"""The model card: Markdown filled from the run, in which a section without content does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reinception import __version__, metrics
from reinception.metrics import PredictionTable, calibration
from reinception.model.artifact import MODEL_NAME
from reinception.report.baseline import Against
from reinception.report.calibration_section import calibrated_classes
from reinception.report.formatting import count, interval, percent
from reinception.report.read_run import Run
from reinception.report.slices import sliced
from reinception.report.training_cost import changes, costs

CARD_NAME = "MODEL_CARD.md"

_IN_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~"} | {"\n": " ", "\r": " "})
_MOST_CLASSES = 50
_MOST_SLICES = 8


def card(run: Run, other: Against | None = None) -> str:
    """The whole card, beside another run where there is one.

    Every sentence in it is a fact of the run; what the run does not know is not asked for.
    """
    parts = [_front_matter(run), f"# {_escaped(run.name)}", _summary(run)]
    for title, lines in (
        ("Result", _result(run)),
        *(
            [(f"Against {_escaped(other.name)}", [_escaped(other.verdict), "", _escaped(other.evidence)])]
            if other
            else []
        ),
        ("Classes", _classes(run)),
        ("How far to trust it", _trust(run)),
        ("Where it is weaker", _slices(run)),
        ("Data", _data(run)),
        ("Training", _training(run)),
        ("Cost", [f"- {_escaped(name)}: {_escaped(value)}" for name, value in costs(run)]),
        ("Use", _use(run)),
        ("Do it again", _again(run)),
    ):
        written = [line for line in lines if line is not None]
        if written:
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
    between = f" that tells {count(len(classes), 'class', 'classes')} apart" if classes else ""
    return f"{_escaped(what)}{between}."


def _scored(run: Run) -> PredictionTable | None:
    return run.table if run.table is not None and len(run.table) else None


def _result(run: Run) -> Iterator[str | None]:
    table = _scored(run)
    if table is None:
        return
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


def _classes(run: Run) -> Iterator[str | None]:
    table = _scored(run)
    if table is None:
        return
    scores = sorted(metrics.per_class(table), key=lambda one: (one.recall is None, one.recall))
    yield "| class | images | precision | recall | 95 % interval of recall |"
    yield "|---|---|---|---|---|"
    for one in scores[:_MOST_CLASSES]:
        precision = "–" if one.precision is None else percent(100 * one.precision)
        recall, ends = "–", "–"
        if one.recall is not None:
            low, high = metrics.wilson(one.correct, one.support)
            recall, ends = percent(100 * one.recall), interval(100 * low, 100 * high)
        yield f"| {_escaped(one.name)} | {one.support:,} | {precision} | {recall} | {ends} |"
    if len(scores) > _MOST_CLASSES:
        yield ""
        yield f"The {_MOST_CLASSES} weakest of {len(scores)} classes."


def _trust(run: Run) -> Iterator[str | None]:
    table = _scored(run)
    if table is None:
        return
    sure = 100 * float(table.probabilities.max(axis=1).mean())
    yield (
        f"- It claims {percent(sure)} on average and is right for {percent(metrics.accuracy(table).percent)}; "
        f"calibration error {percent(100 * calibration.calibration_error(table))}."
    )
    if run.validation is not None and len(run.validation):
        temperature = calibration.fit_temperature(run.validation)
        after = calibration.calibration_error(calibration.with_temperature(table, temperature))
        yield f"- With temperature {temperature:.2f}, fitted on the validation split: {percent(100 * after)}."
    yield f"- {calibrated_classes(table, run.validation).sentence}"
    yield "- It names one of its classes for every picture, also for one that shows none of them."
    yield "- These figures are for images like those it was judged on; other cameras, places or times are not covered."


def _slices(run: Run) -> Iterator[str | None]:
    table = _scored(run)
    found = None if table is None else sliced(run, table)
    if found is None:
        return
    yield found.sentence if not found.behind else f"By Fisher's exact test, corrected for {found.looked_at} (Holm):"
    for row in found.behind[:_MOST_SLICES]:
        yield (
            f"- {_escaped(row.trait)}, {_escaped(row.value)}: {row.right} of {row.n:,} right ({row.interval}), "
            f"{row.rest} of the rest" + (f"; {row.expected} expected from its classes" if row.expected else "")
        )
    if len(found.behind) > _MOST_SLICES:
        yield f"- and {len(found.behind) - _MOST_SLICES} more"


def _data(run: Run) -> Iterator[str | None]:
    config = run.config
    if config.get("data"):
        yield f"- Images: {_escaped(Path(str(config['data'])).name)}"
    counted = config.get("splits")
    if isinstance(counted, dict) and counted:
        parts = [f"{split} {sum(by_class.values()):,}" for split, by_class in counted.items()]
        yield f"- Split: {', '.join(parts)}"
    if config.get("fingerprint"):
        yield f"- Fingerprint of names, sizes and labels: `{config['fingerprint']}`"


def _training(run: Run) -> Iterator[str | None]:
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


def _use(run: Run) -> Iterator[str | None]:
    if (run.folder / MODEL_NAME).is_file():
        yield "```sh"
        yield f"reinception predict {MODEL_NAME} IMAGE..."
        yield "```"
        yield ""
        yield "The file holds the weights, the classes and how pictures are prepared; nothing in it is executed."


def _again(run: Run) -> Iterator[str | None]:
    if run.config.get("command"):
        yield "```sh"
        yield str(run.config["command"]).replace("```", "")
        yield "```"
    facts = [f"{key} {run.environment[key]}" for key in ("reinception", "python", "torch") if run.environment.get(key)]
    if facts:
        yield ""
        yield f"With {', '.join(facts)}."


def _escaped(text: str) -> str:
    """Names are data: in Markdown, too, they must neither format nor be HTML."""
    return text.translate(_IN_MARKDOWN)
