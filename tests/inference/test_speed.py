"""What a run measures of its network's speed: real repetitions on this machine, never a figure without its n."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reinception.inference.speed import SPEED_NAME, measure
from reinception.model.artifact import load


def test_one_picture_alone_and_a_batch_are_measured_with_their_n(small_run: Path) -> None:
    network, manifest = load(small_run)
    before = [tensor.clone() for tensor in network.state_dict().values()]
    found = measure(network.train(), manifest.preprocessing, batch_size=4)
    assert [one["batch_size"] for one in found["runs"]] == [1, 4]
    for one in found["runs"]:
        assert one["n"] >= 3
        assert 0 < one["median_milliseconds"] <= one["p95_milliseconds"]
        assert one["images_per_second"] > 0
    assert (found["device"], found["threads"], found["precision"]) == ("cpu", torch.get_num_threads(), "fp32")
    assert found["hardware"] and found["input_size"] == 75
    assert network.training
    assert all(map(torch.equal, before, network.state_dict().values()))


def test_a_batch_of_one_is_measured_once(small_run: Path) -> None:
    network, manifest = load(small_run)
    assert [one["batch_size"] for one in measure(network, manifest.preprocessing, batch_size=1)["runs"]] == [1]


def test_a_run_keeps_what_was_measured_when_it_was_judged(small_run: Path) -> None:
    kept = json.loads((small_run / SPEED_NAME).read_text(encoding="utf-8"))
    assert [one["batch_size"] for one in kept["runs"]] == [1, 8]


FAULTS = """
import resource, sys
import torch
import reinception
from reinception.inference.engine import evaluating
from reinception.machine import keep_freed_memory

network = reinception.create("inception_v3", width=0.25, aux="none", input_size=299)
network = network.to(memory_format=torch.channels_last)
if sys.argv[1] == "kept":
    keep_freed_memory()
# Blocks above 32 MiB: for smaller ones glibc raises its threshold by itself, as the heap happens to lie.
images = torch.rand(40, 3, 299, 299)
counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
with evaluating(network):
    for _ in range(10):
        network(images)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
# The median of the later passes: a heap that still grows in one of them, as threads happen to meet, does not count.
print(sorted(after - before for before, after in zip(counts[3:], counts[4:]))[3])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory is another allocator's")
def test_a_program_that_keeps_freed_memory_uses_it_again():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("kept", "given back")
    }
    assert faults["kept"] < 70
    assert faults["given back"] > 1000
