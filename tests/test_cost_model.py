"""The cost model of benchmarks/scaling.py: what it must say in the cases one can do by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_gradient_is_that_of_27_161_264_parameters(scaling: ModuleType) -> None:
    assert scaling.gradient_bytes() == 4 * 27_161_264


def test_a_ring_sends_nearly_twice_the_gradient_and_a_tree_twice(scaling: ModuleType) -> None:
    link = scaling.Link(name="", bytes_per_second=1e9, seconds=0.0)
    assert scaling.ring(1e9, 2, link) == pytest.approx(1.0)
    assert scaling.ring(1e9, 50, link) == pytest.approx(2 * 49 / 50)
    assert scaling.tree(1e9, 50, link) == pytest.approx(2.0)
    slow = scaling.Link(name="", bytes_per_second=1e12, seconds=1e-3)
    assert scaling.exchange(1e3, 1024, slow) == pytest.approx(scaling.tree(1e3, 1024, slow))


def test_one_worker_is_perfect_and_stragglers_cost_what_the_largest_of_n_does(scaling: ModuleType) -> None:
    link = scaling.LINKS[0]
    assert scaling.efficiency(1.0, 1e8, 1, link, overlap=True) == 1.0
    free = scaling.Link(name="", bytes_per_second=math.inf, seconds=0.0)
    slowed = 1 + 0.02 * math.sqrt(2 * math.log(512))
    assert scaling.efficiency(1.0, 1e8, 512, free, overlap=False, spread=0.02) == pytest.approx(1 / slowed)


def test_the_published_figure_stands_beside_the_models_error(scaling: ModuleType) -> None:
    said = scaling.check()
    assert said.startswith("published: 90 % at 512 workers on 25 Gbit/s; the model without stragglers: 9")
    assert "an error of +" in said
    assert all(f"{workers:,}" in scaling.table() for workers in (50, 256, 1024))
