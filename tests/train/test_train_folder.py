"""The run folder and the console: nothing half written, nothing written over, a bar only where there is a terminal."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from reinception.errors import ReinceptionError
from reinception.train.run.console import PLAIN_LINES, Console
from reinception.train.run.run_folder import RunFolder, refuse_unusable, refuse_without_room


def limited(code: str, *, file_bytes: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process that cannot make a file longer than `file_bytes`: the write fails half-way."""
    start = (
        "import resource, signal, sys; from pathlib import Path; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, {file_bytes}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code, str(folder)], capture_output=True, text=True, check=False
    )


def test_a_line_that_does_not_fit_is_taken_back_whole(tmp_path: Path) -> None:
    code = """
from reinception.errors import ReinceptionError
from reinception.train.run.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
try:
    for number in range(1000):
        folder.append("log.txt", f"line {number:03d}\\n")
except ReinceptionError as error:
    print(error)
"""
    done = limited(code, file_bytes=1000, folder=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "log.txt: cannot write: File too large" in done.stdout
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert lines == [f"line {number:03d}" for number in range(111)]  # 9 bytes each


def test_a_json_file_that_does_not_fit_is_not_there(tmp_path: Path) -> None:
    code = """
from reinception.train.run.run_folder import RunFolder
RunFolder(Path(sys.argv[1])).write_json("config.json", {"long": "x" * 5000})
"""
    done = limited(code, file_bytes=1000, folder=tmp_path / "run")
    assert done.returncode == 1
    assert "config.json: cannot write: File too large" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.csv"]


def test_an_existing_folder_file_or_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(ReinceptionError, match=f"{name}: exists already"):
            refuse_unusable(tmp_path / name)
    refuse_unusable(tmp_path / "new" / "deep" / "run")
    with pytest.raises(ReinceptionError, match="is not a folder one may write to"):
        refuse_unusable(tmp_path / "file" / "run")


def test_an_empty_folder_is_free_also_where_a_kill_has_left_half_a_file_of_ours(tmp_path: Path) -> None:
    refuse_unusable(tmp_path)
    (tmp_path / ".config.json.123.tmp").write_text("{")
    refuse_unusable(tmp_path)
    RunFolder(tmp_path, config={"ours": True})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "results.csv"]
    with pytest.raises(ReinceptionError, match="exists already; `reinception train --resume"):
        refuse_unusable(tmp_path)


def test_a_disk_with_no_room_is_refused_in_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # the disk is the outer edge: we cannot fill a real one here
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 7 * 10**8, 3 * 10**8))
    refuse_without_room(tmp_path / "run", model_bytes=10 * 10**6)
    with pytest.raises(ReinceptionError, match=r"run: the run needs about 1,517 MB and .* has 300 MB free; make room"):
        refuse_without_room(tmp_path / "run", model_bytes=10**8)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_ends_in_one_clear_line_and_no_half_written_file(tmp_path: Path) -> None:
    code = """
import subprocess, sys
from pathlib import Path
from reinception.family import network
from reinception.model.artifact import Manifest
from reinception.model.build import build
from reinception.preprocess import Preprocessing
from reinception.train.run.run_folder import RunFolder
net = build(network("inception_v3", num_classes=2, width=0.1), seed=0)
one_and_a_half = 3 * sum(tensor.nbytes for tensor in net.state_dict().values()) // 2
if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={one_and_a_half}", "tmpfs", sys.argv[1]]).returncode:
    sys.exit(77)
folder = RunFolder(Path(sys.argv[1]) / "run")
manifest = Manifest(arch=net.arch, classes=("a", "b"), preprocessing=Preprocessing())
try:
    for name in ("model.safetensors", "last.safetensors"):
        folder.save_model(net, manifest, name=name)
except Exception as error:
    print(error)
    print(*sorted(path.name for path in folder.path.iterdir()))
"""
    command = ["unshare", "--mount", sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this container may not mount")
    error, files = done.stdout.splitlines()
    assert "last.safetensors: cannot write: No space left on device; make room" in error, done.stderr
    assert files == "model.safetensors results.csv"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def speak(stream: io.StringIO) -> list[str]:
    """A run of 1,000 steps with two remarks; returns its log."""
    log: list[str] = []
    with Console(stream) as console:
        console.say("before [bold]")
        console.log_to(log.append)
        for step in range(1000):
            console.advance(step / 1000, state=f"epoch {step}", images_per_second=12.34)
        console.say("after")
    return log


def test_without_a_terminal_a_run_says_some_twenty_plain_lines() -> None:
    stream = io.StringIO()
    log = speak(stream)
    lines = stream.getvalue().splitlines()
    assert len(lines) == PLAIN_LINES + 2
    assert lines[0] == "before [bold]"
    assert lines[1] == "  0%  epoch 0, 12.3 images/s, remaining time not known yet"
    assert lines[-2].startswith(" 95%  epoch 950, 12.3 images/s, ")
    assert [line.rstrip("\n").split("  ", 1)[1] for line in log] == lines


def test_on_a_terminal_a_bar_moves_and_remarks_stand_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    log = speak(stream)
    assert "\x1b[" in stream.getvalue()
    assert "before [bold]" in stream.getvalue()
    assert "12.3 images/s" in stream.getvalue()
    assert [line.rstrip("\n").split("  ", 1)[1] for line in log] == ["before [bold]", "after"]


def test_a_new_run_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.add_metrics({"split": "train", "loss": 1.5})
    assert (tmp_path / "a" / "b" / "metrics.jsonl").read_text() == '{"split": "train", "loss": 1.5}\n'


def test_a_reopened_folder_goes_back_to_where_it_was_and_keeps_what_waited(tmp_path: Path) -> None:
    """Also to the very beginning, when there were no metrics yet."""
    folder = RunFolder(tmp_path / "run")
    beginning = folder.position()
    RunFolder.reopened(tmp_path / "run", beginning).add_metrics({"step": 1})
    later = folder.position()
    folder.add_metrics({"step": 2})
    RunFolder.reopened(tmp_path / "run", later | {"waiting": {"metrics.jsonl": "waited\n"}}).settle()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1}\nwaited\n'
    RunFolder.reopened(tmp_path / "run", beginning)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""
