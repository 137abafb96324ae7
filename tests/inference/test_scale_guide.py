"""The guide to millions of images is true: its commands work, one after the other."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from command import Command

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "scale.md"


def test_the_commands_of_the_guide_work_in_their_order(command: Command, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        program, *words = line.split()
        if program == "reinception":
            result = command(*words, cwd=tmp_path)
            assert result.returncode == 0, f"{line}: {result.stderr}"
        else:
            subprocess.run(line, shell=True, check=True, cwd=tmp_path)
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "labels.parquet").is_file() and (tmp_path / "features.npz").is_file()
    assert not list(tmp_path.glob("*.job"))
