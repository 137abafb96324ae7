"""What the pages tell a reader to type works, in the order in which it is written; what is not run says why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from page_blocks import PAGES, ROOT, blocks

import reinception

# The README's commands are run by tests/project/test_readme.py, at its own pace.
RUN_ELSEWHERE = {"README.md"}
TYPED = {page: [block for block in blocks(page) if block.language != "setup"] for page in PAGES}
TO_RUN = [page for page, found in TYPED.items() if page.name not in RUN_ELSEWHERE and any(not b.reason for b in found)]
# They compute full-size networks or train three times: part of the soak, that everybody's tests stay short.
LONG = {"torchvision.md", "timm.md", "fastai.md", "ultralytics.md"}
RUNNER = Path(__file__).parent / "run_page.py"


def test_every_fence_says_its_language() -> None:
    assert not [block.where for found in TYPED.values() for block in found if not block.language]


def test_at_most_one_block_in_twenty_is_not_run_and_says_why() -> None:
    every = [block for found in TYPED.values() for block in found]
    skipped = [block.where for block in every if block.reason]
    assert len(every) > 90
    assert len(skipped) <= 0.05 * len(every), skipped
    assert all(len(block.reason) > 20 for block in every if block.reason)


@pytest.fixture
def desk(solar_cells: Path, small_run: Path, place: Path, tmp_path: Path) -> Path:
    """A folder as readers are supposed to have it: `photos`, `new`, single images, `runs/first`, a model file."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    shutil.copytree(solar_cells, tmp_path / "photos")
    cells = sorted(solar_cells.rglob("*.png"))
    (tmp_path / "new").mkdir()
    for number, name in enumerate(("new/a.png", "new/b.png", "a.png", "b.png", "photo.png")):
        shutil.copy(cells[number], tmp_path / name)
    shutil.copytree(small_run, tmp_path / "runs" / "first")
    return tmp_path


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def cases() -> list[Any]:
    marks = {True: [pytest.mark.slow, pytest.mark.timeout(600)], False: []}
    return [pytest.param(page, marks=marks[page.name in LONG], id=page.relative_to(ROOT).as_posix()) for page in TO_RUN]


@pytest.mark.parametrize("page", cases())
def test_what_a_page_says_works(page: Path, desk: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if "-o runs/first" in text:
        shutil.rmtree(desk / "runs")
    if "mkdir new" in text:
        shutil.rmtree(desk / "new")
    if "photos" in text and "ImageDraw" in text:
        shutil.rmtree(desk / "photos")
    source = Path(reinception.__file__).parents[1]
    paths = os.pathsep.join([str(source), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, str(RUNNER), str(page), free_port()],
        cwd=desk,
        env=os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(desk / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
    )
    assert result.returncode == 0, f"{result.stdout[-2500:]}\n{result.stderr[-2500:]}"
