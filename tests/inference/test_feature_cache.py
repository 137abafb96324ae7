"""Rows kept by content: found in any order, checked when read, shared by processes, made anew where damaged."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reinception import family
from reinception.inference.feature_cache import FeatureCache, weights_digest
from reinception.model.build import Network, build
from reinception.spec import count_border

HOW = {"weights": "w", "view": 0}
SHAPE = (4, 3)


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def row(number: int) -> torch.Tensor:
    return torch.full(SHAPE, float(number))


def kept(root: Path, numbers: range, said: Callable[[str], None] = print) -> FeatureCache:
    cache = FeatureCache(root, HOW, SHAPE, say=said)
    cache.keep([digest(number) for number in numbers], torch.stack([row(number) for number in numbers]))
    return cache


def test_rows_are_found_by_content_in_any_order(tmp_path: Path) -> None:
    kept(tmp_path, range(5))
    kept(tmp_path, range(5, 9))
    found = FeatureCache(tmp_path, HOW, SHAPE)
    wanted = [7, 0, 8, 3]
    rows, marks = found.rows([digest(number) for number in wanted])
    assert torch.equal(rows, torch.stack([row(number) for number in wanted])) and marks == [0] * 4
    assert digest(9) not in found
    with pytest.raises(KeyError):
        found.rows([digest(9)])


@pytest.mark.parametrize("how", [{"weights": "v", "view": 0}, {"weights": "w", "view": 1}, {"weights": "w"}])
def test_rows_computed_in_another_way_are_not_found(how: dict[str, object], tmp_path: Path) -> None:
    kept(tmp_path, range(3))
    assert digest(0) not in FeatureCache(tmp_path, how, SHAPE)
    assert digest(0) not in FeatureCache(tmp_path, HOW, (3, 4))
    assert digest(0) not in FeatureCache(tmp_path, HOW, SHAPE, torch.bfloat16)


@pytest.mark.parametrize("kind", ["truncated", "bit", "empty", "foreign"])
def test_a_file_that_is_not_what_was_written_is_named_and_made_anew(kind: str, tmp_path: Path) -> None:
    cache = kept(tmp_path, range(3))
    assert cache.folder is not None
    (path,) = cache.folder.iterdir()
    whole = path.read_bytes()
    foreign = FeatureCache(tmp_path, {"weights": "other"}, SHAPE)
    foreign.keep([digest(0)], row(99)[None])
    assert foreign.folder is not None
    (other,) = foreign.folder.iterdir()
    contents = {
        "truncated": whole[:-7],
        "bit": whole[:-20] + bytes([whole[-20] ^ 4]) + whole[-19:],
        "empty": b"",
        "foreign": other.read_bytes(),
    }
    path.write_bytes(contents[kind])
    said: list[str] = []
    again = FeatureCache(tmp_path, HOW, SHAPE, say=said.append)
    assert digest(0) not in again and not path.exists()
    assert len(said) == 1 and str(path) in said[0] and "\n" not in said[0]
    again.keep([digest(0)], row(0)[None])
    assert torch.equal(FeatureCache(tmp_path, HOW, SHAPE).rows([digest(0)])[0][0], row(0))


def test_a_folder_that_cannot_be_written_costs_only_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    for root in (tmp_path / "file", None):
        cache = FeatureCache(root, HOW, SHAPE, say=said.append)
        cache.keep([digest(0), digest(1)], torch.stack([row(0), row(1)]), [0, 7])
        rows, marks = cache.rows([digest(1)])
        assert torch.equal(rows[0], row(1)) and marks == [7]
    assert len(said) == 1 and "cannot keep" in said[0]


def _write_all(root: str, number: int) -> None:
    for start in range(0, 64, 16):
        if number == 3 and start == 32:
            os.kill(os.getpid(), signal.SIGKILL)
        cache = FeatureCache(Path(root), HOW, SHAPE)
        todo = [one for one in range(start, start + 16) if digest(one) not in cache]
        if todo:
            cache.keep([digest(one) for one in todo], torch.stack([row(one) for one in todo]))
    done = FeatureCache(Path(root), HOW, SHAPE)
    rows, _ = done.rows([digest(one) for one in range(64)])
    assert torch.equal(rows, torch.stack([row(one) for one in range(64)]))


def test_sixteen_processes_fill_one_cache_at_once_and_one_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_all, args=(str(tmp_path), number)) for number in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    assert codes == [-signal.SIGKILL if number == 3 else 0 for number in range(16)]
    said: list[str] = []
    cache = FeatureCache(tmp_path, HOW, SHAPE, say=said.append)
    assert all(digest(number) in cache for number in range(64)) and not said


# -- the key of weights ------------------------------------------------------------------------------------------------


@pytest.fixture
def network() -> Network:
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
    return build(arch, seed=0)


def test_one_weight_or_buffer_by_one_unit_in_the_last_place_is_another_network(network: Network) -> None:
    stages = [name for name, _ in network.arch.stages]
    before = {weights_digest(network, stages)}
    network.classifier.weight.data.add_(1.0)
    assert weights_digest(network, stages) in before  # the classifier plays no part
    state = network.state_dict()
    for name in ("grid17.2.doubled.3.conv.weight", "stem.1.bn.running_var"):
        value = state[name].view(-1)
        value[0] = torch.nextafter(value[0], torch.tensor(torch.inf))
        assert weights_digest(network, stages) not in before
        before.add(weights_digest(network, stages))
    other = build(replace(count_border(network.arch, True), input_size=75), seed=0)
    assert weights_digest(other, stages) != weights_digest(build(network.arch, seed=0), stages)


def test_what_lies_above_the_named_stages_plays_no_part(network: Network) -> None:
    before = weights_digest(network, ["stem", "grid35"])
    network.state_dict()["grid8.0.point.0.conv.weight"].add_(1.0)
    assert weights_digest(network, ["stem", "grid35"]) == before
