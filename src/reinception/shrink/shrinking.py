"""Shrinks a trained model: students chosen, taught, judged on the teacher's own split, and laid side by side."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reinception.data.loading.loader import TrainingStream
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Source
from reinception.data.sources.split import assign_splits
from reinception.distributed import Ranks
from reinception.errors import ReinceptionError
from reinception.files import new_text_file, write_json
from reinception.inference.cascade import CASCADE_NAME, choose_threshold, joined, passing
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine
from reinception.inference.evaluate import evaluate_records
from reinception.inference.evaluation_split import split_as_in_training
from reinception.metrics import PredictionTable, accuracy
from reinception.model.artifact import Model, load
from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing
from reinception.recipe import Recipe, named
from reinception.report.formatting import duration
from reinception.shrink.front import FrontRow, drawing, markdown, recommended, teacher_of, to_json
from reinception.shrink.shrink_config import ShrinkConfig
from reinception.shrink.students import Student, cascade_images_per_second, choose, images_per_second
from reinception.spec import Arch, cost
from reinception.train.config import TrainConfig
from reinception.train.distill import Teacher
from reinception.train.run.open_run import FINISHED_NAME
from reinception.train.run.start import resume, train

SEARCH_NAME, FRONT_NAME, TABLE_NAME, CHART_NAME = "shrink.json", "front.json", "front.md", "front.svg"
_RESERVE = 0.06
"""Fraction of the time kept for judging students and measuring their speed."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shrinking:
    """One search: its configuration, the teacher, and the images with the split of the teacher's own training."""

    config: ShrinkConfig
    say: Say

    @cached_property
    def teacher(self) -> Model:
        """The model to shrink."""
        model = load(self.config.model, with_aux=False)
        model.manifest.require_classifier()
        return model

    @cached_property
    def source(self) -> Source:
        """The images, split as the teacher's training split them; anew where it was trained on others."""
        listed = open_source(self.config.data)
        again = split_as_in_training(listed, self.teacher.manifest)
        source = assign_splits(listed, **self.split) if again is None else again
        if missing := {"train", "val", "test"} - set(source.splits):
            raise ReinceptionError(f"{source.name}: has no {' and no '.join(sorted(missing))} images; shrink needs all")
        return source

    @cached_property
    def split(self) -> Mapping[str, Any]:
        """`seed`, `val_fraction` and `test_fraction` of the teacher's training, the defaults where it says nothing."""
        found = self.teacher.manifest.training.get("split")
        known = found if isinstance(found, Mapping) else {}
        defaults = {"seed": 0, "val_fraction": TrainConfig.val_fraction, "test_fraction": TrainConfig.test_fraction}
        return {name: known.get(name, value) for name, value in defaults.items()}

    @property
    def out(self) -> Path:
        return Path(self.config.out)

    def engine(self, network: Network, preprocessing: Preprocessing) -> Engine:
        """What speed is measured on: the number format that the hardware is fastest in."""
        return Engine(network, preprocessing, Compute(precision="auto"))

    def measure(self, networks: Sequence[Arch], batch_size: int) -> list[float]:
        """Images per second of networks with random weights, side by side; each is made once."""
        for arch in networks:
            if arch not in self._measured:
                self._measured[arch] = self.engine(build(arch), Preprocessing(input_size=arch.input_size))
        engines = {str(number): self._measured[arch] for number, arch in enumerate(networks)}
        return list(images_per_second(engines, batch_size=batch_size, rounds=2).values())

    @cached_property
    def _measured(self) -> dict[Arch, Engine]:
        return {}


def shrink(config: ShrinkConfig, *, say: Say = lambda line: None) -> str:
    """Trains smaller networks to answer as a model does; returns the front as a Markdown table.

    The students are run folders under `config.out`, beside front.json, front.md and front.svg. Interrupted at any
    moment, the same call goes on with what is missing. Students are trained on the training images, chosen on the
    validation images, and reported on the test images.

    Args:
        config: the teacher, the images and the goal.
        say: called with a line of progress.

    Returns:
        The table, and below it which student is recommended and why, or that none is.

    Raises:
        ReinceptionError: no network of the family reaches the goal, or the folder holds another search.
    """
    began = time.monotonic()
    search = Shrinking(config=config, say=say)
    plan = _claim(search)
    students = [Student(**one) for one in plan["students"]]
    _answers(search)
    runs = [(student, True) for student in students] + [(students[0], False)]
    for number, (student, is_taught) in enumerate(runs):
        left = config.time_budget_seconds * (1 - _RESERVE) - (time.monotonic() - began)
        seconds = plan["seconds"].setdefault(_run_name(student, is_taught), max(1.0, left / (len(runs) - number)))
        write_json(plan, search.out / SEARCH_NAME, replace=True)  # a student that goes on keeps its time
        _train(search, student, is_taught=is_taught, seconds=seconds)
    return _front(search, students)


def _claim(search: Shrinking) -> dict[str, Any]:
    """The students of this search: read from its folder, or chosen and written there."""
    config, path = search.config, search.out / SEARCH_NAME
    wanted = dataclasses.asdict(config) | {"workers": None, "out": None, "recipe": _recipe(config).to_json()}
    wanted = json.loads(json.dumps(wanted | {"model": str(config.model), "data": str(config.data)}))
    if path.is_file():
        plan = json.loads(path.read_text(encoding="utf-8"))
        if different := sorted(name for name in wanted if plan["asked"].get(name) != wanted[name]):
            raise ReinceptionError(
                f"{search.out}: holds a search with another {', '.join(different)}; use its own or another folder"
            )
        return plan
    if search.out.exists() and any(search.out.iterdir()):
        raise ReinceptionError(f"{search.out}: exists already and holds no search; name another folder")
    _ = search.source  # what cannot be read is refused before anything is written
    students = choose(config, search.teacher.manifest.arch, search.measure)
    search.out.mkdir(parents=True, exist_ok=True)
    plan: dict[str, Any] = {"asked": wanted, "students": [dataclasses.asdict(one) for one in students], "seconds": {}}
    write_json(plan, path)
    for one in students:
        search.say(f"student {one.name}: {cost.multiply_adds(one.arch(1)) / 1e6:,.0f} M multiply-adds")
    return plan


def _recipe(config: ShrinkConfig) -> Recipe:
    return named(config.recipe) if isinstance(config.recipe, str) else config.recipe


def _answers(search: Shrinking) -> None:
    """Lets the teacher answer for all views before the students' time begins; they find the answers in the cache."""
    config, recipe = search.config, _recipe(search.config)
    stream = TrainingStream(
        search.source.split("train"),
        input_size=search.teacher.preprocessing.input_size,
        augmentation=recipe.augmentation,
        batch_size=recipe.batch_size,
        seed=0,
        workers=config.workers,
        views=config.teacher_views,
    )
    compute = Compute(device="auto", precision="auto", workers=config.workers)
    teacher = Teacher(path=config.model, classes=search.source.classes, stream=stream, compute=compute)
    teacher.targets(Ranks(teacher.device), say=search.say, check=lambda: None)


def _run_name(student: Student, is_taught: bool) -> str:
    return student.name if is_taught else f"from-labels-{student.name}"


def _train(search: Shrinking, student: Student, *, is_taught: bool, seconds: float) -> None:
    """Trains a student, goes on with it, or finds it finished."""
    config, out = search.config, search.out / _run_name(student, is_taught)
    if (out / "state" / FINISHED_NAME).is_file():
        return
    search.say(f"{out.name}: {duration(seconds)}")
    if (out / "config.json").is_file():
        resume(out)
        return
    plain = TrainConfig(
        data=config.data,
        out=out,
        model=student.network,
        width=student.width,
        depth=student.depth,
        input_size=student.input_size,
        aux="none",
        recipe=config.recipe,
        time_budget_seconds=seconds,
        seed=config.seed,
        split_seed=search.split["seed"],
        val_fraction=search.split["val_fraction"],
        test_fraction=search.split["test_fraction"],
        workers=config.workers,
    )
    taught = dataclasses.replace(
        plain,
        teacher=config.model,
        teacher_weight=config.teacher_weight,
        temperature=config.temperature,
        teacher_views=config.teacher_views,
    )
    train(taught if is_taught else plain)


# -- the front ---------------------------------------------------------------------------------------------------------


def _front(search: Shrinking, students: Sequence[Student]) -> str:
    """Judges and measures all networks, writes the front and returns its table."""
    config, out = search.config, search.out
    names = [_run_name(one, True) for one in students] + [_run_name(students[0], False)]
    models = {str(config.model): search.teacher} | {name: load(out / name, with_aux=False) for name in names}
    speeds = images_per_second(
        {name: search.engine(model.network, model.preprocessing) for name, model in models.items()}, rounds=5
    )
    rows = []
    for name, model in models.items():
        is_teacher = model is search.teacher
        what = "teacher" if is_teacher else "student" if name != names[-1] else "from labels alone"
        tables = _teacher_tables(search) if is_teacher else _student_tables(out / name)
        rows.append(
            FrontRow(
                model=name,
                what=what,
                **tables,
                images_per_second=speeds[name],
                multiply_adds=cost.multiply_adds(dataclasses.replace(model.manifest.arch, aux=())),
            )
        )
    choice = recommended(rows, config.tolerance)
    rows.append(_cascade(search, rows, models, choice))
    write_json(to_json(rows, choice), out / FRONT_NAME, replace=True)
    text = "\n".join([*markdown(rows, choice), "", *_verdict(search, rows, choice)])
    for name, content in ((TABLE_NAME, text + "\n"), (CHART_NAME, drawing(rows))):
        with new_text_file(out / name, replace=True) as file:
            file.write(content)
    return text


def _teacher_tables(search: Shrinking) -> dict[str, PredictionTable]:
    """The teacher on the validation and test images."""
    compute = Compute(precision="auto", device="auto", workers=search.config.workers)
    classes, source = search.source.classes, search.source
    found = {}
    for name, split in (("validation", "val"), ("test", "test")):
        evaluation = evaluate_records([search.teacher], source.split(split), classes, compute=compute)
        for bad in evaluation.bad:
            raise bad
        found[name] = evaluation.table
    return found


def _student_tables(run: Path) -> dict[str, PredictionTable]:
    """A student on the same images, as its own run judged it."""
    folder = run / "predictions"
    return {
        "validation": PredictionTable.load_csv(folder / "val.csv"),
        "test": PredictionTable.load_csv(folder / "test.csv"),
    }


def _cascade(
    search: Shrinking, rows: Sequence[FrontRow], models: Mapping[str, Model], choice: FrontRow | None
) -> FrontRow:
    """The recommended student, else the one that is most often right on the validation images, before the teacher.

    The threshold is chosen on the validation images; it is written to cascade.json with what it does there.
    """
    teacher = teacher_of(rows)
    students = [row for row in rows if row.what == "student"]
    small = choice or max(students, key=lambda row: accuracy(row.validation).percent)
    threshold = choose_threshold(small.validation, teacher.validation, search.config.agreement)
    found = passing(small.validation, teacher.validation, threshold)
    document = {"small": small.model, "large": str(Path(teacher.model).resolve()), "agreement": search.config.agreement}
    write_json(
        document | {"threshold": threshold, "passed_on": found.passed_on}, search.out / CASCADE_NAME, replace=True
    )
    engines = [search.engine(models[row.model].network, models[row.model].preprocessing) for row in (small, teacher)]
    return FrontRow(
        model=CASCADE_NAME,
        what="cascade",
        validation=joined(small.validation, teacher.validation, threshold),
        test=joined(small.test, teacher.test, threshold),
        images_per_second=cascade_images_per_second(*engines, passed_on=found.passed_on),
        multiply_adds=small.multiply_adds + round(found.passed_on * teacher.multiply_adds),
    )


def _verdict(search: Shrinking, rows: Sequence[FrontRow], choice: FrontRow | None) -> Iterator[str]:
    config = search.config
    yield f"- test images: {len(rows[0].test):,}; chosen on {len(rows[0].validation):,} validation images"
    yield f"- goal: {config.goal}; speed here at batch 32, from decoded pixels, median of 5 interleaved rounds"
    often = f"{100 * config.agreement:g} % of the time"
    yield f"- {CASCADE_NAME}: the small network answers alone where it agrees with the teacher at least {often}"
    if choice is None:
        yield (
            f"- recommended: none. No student loses at most {config.tolerance:g} points on the validation images with "
            "95 % confidence; more validation images, more time or a larger --tolerance may show that one does"
        )
    else:
        lost = f"at most {config.tolerance:g} points lost with 95 % confidence"
        yield f"- recommended: {choice.model}, the fastest with {lost}"
