"""The bench: ours and others' in turn, in processes of their own; who cannot take part is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from reinception import cli
from reinception.bench import own, peers
from reinception.bench.contestant import Contestant, LeftOutError, Subject
from reinception.bench.own import convolutions, model_of, subject_of
from reinception.bench.timing import Entrant
from reinception.family import network
from reinception.model.build import build
from reinception.spec import cost


def test_the_convolutions_of_the_limit_are_those_that_the_spec_counts() -> None:
    arch = network("inception_v3", width=0.1, input_size=96, aux="none", num_classes=2)
    total = 0
    for (shape, kernel, stride, padding, _), times in convolutions(build(arch, seed=0), 96).items():
        sides = [
            (side + 2 * pad - window) // step + 1
            for side, pad, window, step in zip(shape[1:], padding, kernel[2:], stride, strict=True)
        ]
        total += times * sides[0] * sides[1] * kernel[0] * kernel[1] * kernel[2] * kernel[3]
    classifier = 2 * build(arch, seed=0).num_features
    assert total == cost.multiply_adds(arch) - classifier


def test_a_network_is_a_name_or_a_file_and_others_have_the_released_one_only(place: Path) -> None:
    assert subject_of("inception_v3").is_released
    narrow = subject_of(str(place / "model.safetensors"))
    assert (narrow.input_size, narrow.num_classes, narrow.is_released) == (75, 2, False)
    with pytest.raises(LeftOutError, match="released Inception-v3 only"):
        peers.make(Contestant(what="timm", setting="eager", precision="fp32"), narrow)
    assert model_of("inception_v3_79").network.arch.name == "inception_v3_79"


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_each_peer_computes_probabilities_of_bytes_with_every_setting(name: str) -> None:
    """Here at 75 pixels, its smallest size, and without torch.compile, which takes minutes."""
    if (package := peers.missing(name)) is not None:
        pytest.skip(f"{package} is not installed")
    subject = Subject(model="inception_v3", input_size=75, num_classes=5, is_released=True)
    images = torch.randint(0, 256, (3, 75, 75, 3), dtype=torch.uint8).numpy()
    tried = [one for one in peers.settings(name, "fp32") if one != peers.COMPILED]
    assert tried
    for setting in tried[-1:] if name != "openvino" else tried:
        peers.make(Contestant(what=name, setting=setting, precision="fp32"), subject)(images, 2)


def test_a_contestant_that_cannot_start_says_why_and_leaves_no_process(place: Path) -> None:
    subject = subject_of(str(place / "model.safetensors"))
    with pytest.raises(LeftOutError, match="nothing"):
        Entrant(Contestant(what=own.NAME, setting="nothing", precision="fp32"), subject, 1)


def test_bench_prints_a_table_and_writes_json_and_a_chart(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", place / "model.safetensors", "--against", "timm", "--batch-size", "1,3", "--precision", "fp32"]
    more = ["--rounds", 2, "--json", tmp_path / "b.json", "--svg", tmp_path / "b.svg", "--skip-compiled"]
    assert cli.main([*map(str, words), *map(str, more)]) == 0
    said = capsys.readouterr().out
    assert "n = 2 interleaved rounds" in said and "the convolutions alone" in said
    assert "left out: timm channels last fp32: has the released Inception-v3 only" in said
    found = json.loads((tmp_path / "b.json").read_text())
    assert [(run["what"], run["batch_size"], run["n"]) for run in found["runs"]] == [
        ("reinception", 1, 2),
        ("reinception", 3, 2),
    ]
    for run in found["runs"]:
        low, high = run["spread"]
        assert 0 < low <= run["median_images_per_second"] <= high
        assert run["precision"] == "fp32"
    assert found["machine"]["processor"]["model"] in said
    assert found["starts"][0]["peak_mib"] > 50 and found["starts"][0]["start_seconds"] > 0
    assert found["limits"][0]["images_per_second"] > 0
    assert {one["what"] for one in found["left_out"]} == {"timm"}
    drawing = ElementTree.parse(tmp_path / "b.svg").getroot()
    bars = [one.get("class") for one in drawing.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars == ["ours", "limit"]


def test_wrong_words_are_refused_before_anything_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--against", "keras"], "--against: unknown: keras"),
        (["--precision", "int4"], "--precision: unknown: int4"),
        (["--batch-size", "0"], "0"),
    ):
        assert cli.main(["bench", "inception_v3", *words]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["bench", "nothing.safetensors", "--against", "none"]) == 1


def test_the_command_of_the_guide_works(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "bench.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^```sh\nreinception (.*)\n```", guide, re.MULTILINE)
    shutil.copy(place / "model.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 0
    assert "convolutions alone" in capsys.readouterr().out
    assert {"bench.json", "bench.svg"} <= {one.name for one in tmp_path.iterdir()}
