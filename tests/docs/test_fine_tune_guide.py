"""The commands of docs/guides/fine-tune.md, run one after another in a folder that has what they name."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from command import Command
from reinception import family
from reinception.data.sources.open_source import open_source
from reinception.model.artifact import Manifest, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "fine-tune.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos`, twelve solar cells of each class, and `weights.safetensors`, a tenth as wide as the published ones."""
    root = tmp_path_factory.mktemp("guide")
    source = open_source("elpv")
    for target, name in enumerate(source.classes):
        (root / "photos" / name).mkdir(parents=True)
        for record in [record for record in source.records if record.target == target][:12]:
            shutil.copy(record.path, root / "photos" / name / record.path.name)
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=96, aux="none")
    manifest = Manifest(arch=arch, classes=("a", "b"), preprocessing=Preprocessing(input_size=96))
    save(build(arch, seed=0), root / "weights.safetensors", manifest)
    return root


def test_every_command_of_the_guide_runs(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    found = commands()
    assert len(found) >= 5 and all(words[0] == "reinception" for words in found)
    for words in found:
        result = command(*words[1:], cwd=folder)
        assert result.returncode == 0, f"{shlex.join(words)}\n{result.stderr[-2000:]}"
    assert (folder / "curve.svg").is_file() and (folder / "curve.csv").is_file()
    assert json.loads((folder / "runs" / "views" / "head.json").read_text())["views"] == 2
    folds = json.loads((folder / "runs" / "folds" / "folds.json").read_text())
    assert folds["num_images"] == 24 and len(folds["folds"]) == 3
    assert "from the cache" in (folder / "runs" / "folds" / "fold-3" / "log.txt").read_text()
