"""Flags are the documented fields of option classes, and mean what they meant before a library parsed them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest

from reinception import cli
from reinception.cli.flags import Given, Verb, options_of
from reinception.cli.parsing import VERBS, parse, verb_named
from reinception.errors import UsageError
from reinception.inference.compute import Compute
from reinception.train.config import RESUMABLE, TrainConfig, flag

Parsed = Callable[..., tuple[object, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """A verb's own options."""

    model: str
    """a model"""

    paths: tuple[str, ...]
    """images"""

    out: Path
    """where to"""

    kind: Literal["one", "two"] = "one"
    """which"""

    top: int = 5
    """how many"""

    name: str | None = None
    """what it is called"""

    time_budget_seconds: float = 90.0
    """how long"""

    fast: bool = False
    """less careful"""

    json: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perhaps:
    """Options of which a verb gets what was given."""

    epochs: int = 7
    """how often"""

    seed: int = 0
    """another one"""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parsed]:
    """`parsed("doctor", WORDS...)`: the option classes that a verb with `Wanted` and the options of Compute gets."""
    got: list[tuple[object, ...]] = []

    def run(options: Wanted, compute: Compute, given: Annotated[Given, Perhaps]) -> None:
        """Do it."""
        got.append((options, compute, given))

    monkeypatch.setattr("reinception.cli.doctor.run", run)

    def call(*words: str) -> tuple[object, ...]:
        got.clear()
        parse(["doctor", *words])()
        return got[0]

    yield call


def test_options_are_read_into_the_classes_they_belong_to(parsed: Parsed) -> None:
    options, compute, given = parsed("m", "a", "-o", "x", "b", "--top", "2", "--workers", "0", "--epochs=3", "c")
    assert options == Wanted(model="m", paths=("a", "b", "c"), out=Path("x"), top=2)
    assert compute == Compute(workers=0)
    assert given == {"epochs": 3}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--name", "none"), "name", "none"),  # a word, not None
        (("--top", "3", "--top", "4"), "top", 4),
        (("--time-budget", "1.5h"), "time_budget_seconds", 5400),
        (("--fast",), "fast", True),
        (("--json",), "json", Path("-")),
        (("--json", "--fast"), "json", Path("-")),
        (("--json", "-", "--fast"), "json", Path("-")),
        (("--json", "f.json"), "json", Path("f.json")),
        (("--kind=two",), "kind", "two"),
        (("-o", "-"), "out", Path("-")),
        (("--out", "y"), "out", Path("y")),
        (("--", "--top"), "paths", ("a", "--top")),
    ],
)
def test_a_value_is_what_the_word_says(parsed: Parsed, words: tuple[str, ...], name: str, value: object) -> None:
    options, *_ = parsed("m", "a", "-o", "x", *words)
    assert getattr(options, name) == value


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--no-fast",), "Did you mean --fast?"),
        (("--fas",), "Did you mean --fast?"),
        (("--kind", "three"), "--kind: unknown: three; choose one of one, two"),
        (("--top", "0"), "--top: '0' is not a whole number above 0"),
        (("--top",), "--top requires an argument"),
        (("--workers", "-1"), "--workers: '-1' is not a whole number, 0 or more"),
        (("--time-budget", "0"), "--time-budget: '0' is not a length of time"),
        (("--progress", "1"), "Unknown option: --progress"),
    ],
)
def test_what_makes_no_sense_is_said_with_the_usage(parsed: Parsed, words: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed("m", "a", "-o", "x", *words)
    assert says in str(caught.value)
    assert str(caught.value).endswith("Usage: reinception doctor MODEL PATH... -o PATH [options]")


def test_every_option_of_training_is_a_flag_with_the_words_and_the_default_of_its_field() -> None:
    options = {one.name: one for one in verb_named("train").options}
    for field in dataclasses.fields(TrainConfig):
        assert options[field.name].default == field.default
        assert options[field.name].words
    assert "default: 10m" in options["checkpoint_seconds"].help
    assert "one of exact, fast; default: exact" in options["reduction"].help


def test_resume_takes_what_the_fields_allow_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"bool": [], "float": ["0.5"], "int": ["1"]}
    own = {"background": ["0,0,0"], "deep_range": ["0,4095"]}
    for one in options_of(TrainConfig):
        metadata = next(field.metadata for field in dataclasses.fields(TrainConfig) if field.name == one.name)
        if RESUMABLE.items() <= metadata.items():
            continue
        kind = "bool" if one.hint is bool else "float" if one.name.endswith("fraction") else "int"
        word = one.help.partition("one of ")[2].partition(",")[0] if "one of" in one.help else None
        value = [word] if word and "`" not in word else own.get(one.name, values[kind])
        assert cli.main(["train", "--resume", "no_run", flag(one.name), *value]) == 2, one.name
        assert f"{flag(one.name)} beside --resume" in capsys.readouterr().err
    assert cli.main(["train", "images", "--resume", "no_run", "-o", "run"]) == 2
    assert "-o beside --resume" in capsys.readouterr().err
    allowed = ["--workers", "1", "--batch-size", "2", "--replicas", "3", "--epochs", "9"]
    assert cli.main(["train", "images", "--resume", "no_run", *allowed]) == 1


def test_no_two_options_of_a_verb_share_a_flag() -> None:
    for name in VERBS:
        verb: Verb = verb_named(name)
        names = [one.metavar if one.is_positional else flag(one.name) for one in verb.options]
        assert len(set(names)) == len(names), name


def test_the_command_of_a_config_is_read_back_as_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    config = TrainConfig(
        data="my images", out="run", time_budget_seconds=90.5, width=0.3, tensorboard=True, aux="none", seed=-1
    )
    got: list[object] = []
    monkeypatch.setattr("reinception.train.run.start.train", lambda config, **_: got.append(config))
    assert cli.main(shlex.split(config.command())[1:]) == 0
    assert got == [config]


def test_json_alone_prints_and_json_with_a_file_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["recipe", "list", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert cli.main(["recipe", "list", "--json", str(tmp_path / "recipes.json")]) == 0
    assert json.loads((tmp_path / "recipes.json").read_text()) == printed
