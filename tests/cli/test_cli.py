"""The command line, as real processes: help, exit codes, one-line errors, and what is imported when."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import reinception
from command import Command
from reinception import cli, family
from reinception.cli.flags import Verb
from reinception.cli.parsing import VERBS, verb_named
from reinception.cli.values import duration
from reinception.errors import ReinceptionError, UsageError

GOLDEN = Path(__file__).parents[1] / "golden" / "cli"
SCREENS = {
    "reinception": ["--help"],
    **{group: [group, "--help"] for group in ("recipe", "data", "weights")},
    **{verb.replace(" ", "_"): [*verb.split(), "--help"] for verb in VERBS},
    "show_inception_v3": ["show", "inception_v3"],
}


@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen_reads_as_its_golden_file(command: Command, screen: str) -> None:
    result = command(*SCREENS[screen])
    golden = GOLDEN / f"{screen}.txt"
    if os.environ.get("REINCEPTION_WRITE_GOLDEN"):
        golden.write_text(result.stdout, encoding="utf-8")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == golden.read_text(encoding="utf-8"), "`make golden` writes the files anew"


def test_every_golden_file_has_a_screen() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCREENS)


def verbs() -> list[Verb]:
    return [verb_named(name) for name in VERBS]


@pytest.mark.parametrize("verb", verbs(), ids=lambda verb: verb.name)
def test_every_verb_and_flag_says_what_it_means_and_every_verb_has_an_example(verb: Verb) -> None:
    for option in verb.options:
        assert option.words, f"{verb.name} {option.name} has no help"
    assert f"\n    Example: reinception {verb.name}" in (verb.run.__doc__ or "")


# -- what is imported when ---------------------------------------------------------------------------------------------


def imported_by(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after `statement`."""
    code = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint('\\n'.join(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(Path(reinception.__file__).parent.parent)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(result.stdout.splitlines())


HEAVY = {"torch", "numpy", "PIL", "safetensors", "jinja2", "torchvision"}


@pytest.mark.parametrize(
    "words", [[], ["--version"], ["trian"], ["show", "no_such"], ["train", "images"], *SCREENS.values()], ids=" ".join
)
def test_help_and_wrong_usage_never_wait_for_torch(words: list[str]) -> None:
    assert not imported_by(f"from reinception.cli import main; main({words!r})") & HEAVY


def test_looking_at_a_network_needs_no_torch() -> None:
    for words in (["models"], ["show", "inception_v3"], ["draw", "inception_v3", "-o", "-"]):
        assert not imported_by(f"from reinception.cli import main; main({words!r})") & HEAVY


def test_importing_the_package_loads_no_torch_and_building_a_network_no_torchvision() -> None:
    assert not imported_by("import reinception") & HEAVY
    loaded = imported_by("import reinception; reinception.create('inception_v3', num_classes=2, width=0.1)")
    assert "torch" in loaded and "torchvision" not in loaded


def test_a_factory_takes_what_the_factories_of_the_review_take() -> None:
    for name in ("bn_inception", "inception_v3_lucid"):
        network = getattr(reinception, name)(num_classes=3, use_aux=False, dropout_prob=0.25)
        assert (network.arch.name, network.arch.num_classes, network.arch.dropout) == (name, 3, 0.25)
        assert network.arch.aux == ()


def test_help_answers_in_half_a_second(command: Command) -> None:
    def processor_seconds() -> float:
        # Of the process itself: on a busy machine wall-clock time measures the others.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(processor_seconds() for _ in range(3)) < 0.5


def test_the_public_names_all_exist_and_nothing_else_is_public() -> None:
    for name in reinception.__all__:
        assert getattr(reinception, name) is not None
    assert dir(reinception) == sorted(reinception.__all__)
    assert set(family.NETWORKS) <= set(reinception.__all__)
    assert reinception.models() == tuple(family.NETWORKS)
    with pytest.raises(AttributeError, match="no_such_name"):
        reinception.no_such_name  # noqa: B018  # pyrefly: ignore[missing-attribute] - the access is what is tested


# -- models and show ---------------------------------------------------------------------------------------------------


def test_models_gives_computed_numbers_beside_reported_ones(command: Command) -> None:
    records = {record["name"]: record for record in json.loads(command("models", "--json", "-").stdout)}
    released = records["inception_v3"]
    assert released["input_size"] == 299
    assert (released["parameters"], released["parameters_with_auxiliary"]) == (23_834_568, 27_161_264)
    assert round(released["multiply_adds"] / 1e9, 3) == 5.713
    assert released["reported"]["top1_error"] == 21.2
    assert released["reported"]["top5_error"] == 5.6
    assert released["reported"]["multiply_adds_billions"] == 4.8
    assert records["inception_v3_lucid"]["reported"] is None
    table = command("models").stdout
    assert all(name in table for name in records) and "23,834,568" in table


def test_show_as_json_adds_up_to_its_totals(command: Command) -> None:
    shown = json.loads(command("show", "inception_v3", "--json").stdout)
    for total in ("parameters", "multiply_adds"):
        assert shown[total] == sum(layer[total] for layer in shown["layers"])
        assert shown[total] == sum(stage[total] for stage in shown["stages"])
    assert shown["parameters_with_auxiliary"] - shown["parameters"] == sum(
        layer["parameters"] for layer in shown["auxiliary_layers"]
    )
    first = shown["layers"][0]
    assert first | {"parameters": 0, "multiply_adds": 0} == {
        "path": "stem.0",
        "kind": "conv",
        "kernel": [3, 3],
        "stride": [2, 2],
        "padding": [0, 0],
        "output": [149, 149, 32],
        "parameters": 0,
        "multiply_adds": 0,
    }


def test_show_takes_an_input_size_and_a_width(command: Command) -> None:
    shown = json.loads(command("show", "inception_v3", "--input-size", "150", "--width", "0.5", "--json").stdout)
    assert shown["cuts"][-1]["shape"] == [3, 3, 1024]
    assert shown["auxiliary_layers"] is None, "its 5x5 window does not fit the 7x7 grid after the 5x5/3 pool"
    assert "at least 299 pixels" in command("show", "inception_v3", "--input-size", "150").stdout


def test_json_goes_to_a_new_file_and_never_over_an_old_one(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    assert command("models", "--json", file).stdout == ""
    written = file.read_text(encoding="utf-8")
    assert "inception_v3" in {record["name"] for record in json.loads(written)}
    again = command("models", "--json", file)
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)
    assert str(file) in again.stderr
    assert file.read_text(encoding="utf-8") == written


def test_doctor_says_what_this_machine_has(command: Command) -> None:
    import torch

    facts = json.loads(command("doctor", "--json", "-").stdout)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["processor"]["usable_cores"] == len(os.sched_getaffinity(0))
    assert facts["memory"]["total_gib"] > 0 and facts["disk"]["free_gib"] > 0
    assert facts["distributed"]["gloo"] == torch.distributed.is_gloo_available()
    said = command("doctor").stdout
    for section, names in facts.items():
        assert section in said.splitlines()
        assert all(name.replace("_", " ") in said for name in names)


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], 'Did you mean "train"?'),
        (["frobnicate"], "Available commands: models, show"),
        (["show"], "NAME"),
        (["show", "no_such_network"], "inception_v3_lucid"),
        (["show", "inception_v3", "--input-size", "74"], "at least 75 pixels"),
        (["show", "inception_v3", "--input-size", "many"], "'many' is not a whole number above 0"),
        (["show", "inception_v3", "--width", "-1"], "'-1' is not a number above 0"),
        (["train", "images"], "-o"),
        (["train", "images", "-o", "run", "--epochs", "1", "--time-budget", "5m"], "exclude each other"),
        (["train", "images", "-o", "run", "--time-budget", "soon"], "15m"),
        (["train", "images", "-o", "run", "--epoch", "3"], "--epoch"),
        (["evaluate", "run"], "DATA"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(command: Command, words: list[str], says: str) -> None:
    result = command(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr


def test_no_words_at_all_are_answered_with_help_and_exit_code_2(command: Command) -> None:
    result = command()
    assert (result.returncode, result.stdout) == (2, "")
    assert "Usage: reinception VERB" in result.stderr


def test_a_closed_pipe_ends_the_command_quietly(command: Command) -> None:
    script = f"{sys.executable} -m reinception show inception_v3 | head -n 1"
    environment = os.environ | {"PYTHONPATH": str(Path(reinception.__file__).parent.parent)}
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert result.stderr == ""
    assert result.stdout.startswith("inception_v3:")


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (ReinceptionError("images/a.jpg: truncated; copy it again"), "images/a.jpg: truncated; copy it again", 1),
        (UsageError("two\nlines"), "two lines", 2),
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), "run/x: no room left on the disk", 1),
        (PermissionError(errno.EACCES, "Permission denied", "run"), "run: Permission denied", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "smaller --batch-size", 1),
        (ZeroDivisionError("division by zero"), "--debug shows where", 1),
    ],
)
def test_whatever_fails_inside_a_verb_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("reinception.cli.models.aligned", fail)
    assert cli.main(["models"]) == code
    said = capsys.readouterr().err
    assert line in said and len(said.splitlines()) == 1
    assert cli.main(["models", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reinception.cli.show.aligned", interrupt)
    assert cli.main(["show", "inception_v3", "--width", "0.5"]) == 130
    assert "reinception show inception_v3 --width 0.5" in capsys.readouterr().err


def test_a_length_of_time_is_read_as_people_write_it() -> None:
    assert [duration(text) for text in ("90", "90s", "15m", "1.5h")] == [90, 90, 900, 5400]
