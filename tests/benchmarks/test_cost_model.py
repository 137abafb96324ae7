"""The cost model of benchmarks/scaling.py in the cases one can do by hand, and its bench on links that exist."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import scaling
import scaling_model as model
from limited_network import INTERFACE, limited_network, why_not
from scaling_model import Host, Link, Work

from reinception.errors import ReinceptionError

GIGABYTE = Link(name="", bytes_per_second=1e9, seconds=0.0)
FREE = Link(name="", bytes_per_second=math.inf, seconds=0.0)


@pytest.fixture(scope="module")
def limits() -> None:
    if reason := why_not():
        pytest.skip(f"no limited network here: {reason}")


def test_the_gradient_is_that_of_27_161_264_parameters() -> None:
    assert model.gradient_bytes() == 4 * 27_161_264


def test_a_ring_sends_nearly_twice_the_gradient_and_a_tree_twice() -> None:
    assert model.ring(1e9, 2, GIGABYTE) == pytest.approx(1.0)
    assert model.ring(1e9, 50, GIGABYTE) == pytest.approx(2 * 49 / 50)
    assert model.tree(1e9, 50, GIGABYTE) == pytest.approx(2.0)


def test_small_messages_among_many_go_by_a_tree_unless_there_is_none() -> None:
    slow = Link(name="", bytes_per_second=1e12, seconds=1e-3)
    assert model.exchange(1e3, 1024, slow) == pytest.approx(2 * 10 * 5 * 1e-3)
    assert model.exchange(1e3, 1024, slow, trees=False) == pytest.approx(2 * 1023 * 5 * 1e-3)
    assert model.exchange(1e3, 1, slow) == 0.0


def test_where_no_link_is_in_the_way_the_processor_is_and_four_processes_take_turns_on_two_cores() -> None:
    host = Host(cores=2, elapsed=2e-9, busy=1e-9)
    assert model.exchange(1e9, 2, FREE, host=host) == pytest.approx(2.0)  # each sends the gradient once
    assert model.exchange(1e9, 4, FREE, host=host) == pytest.approx(1.5 * (2.0 + 1.0))
    slow = Link(name="", bytes_per_second=1e8, seconds=0.0)
    assert model.exchange(1e9, 4, slow, host=host, trees=False) == pytest.approx(15.0)


def test_a_process_computes_slower_in_company_and_as_much_slower_as_its_core_is_shared() -> None:
    host = Host(cores=2, crowding=0.1)
    assert [host.slowdown(workers) for workers in (1, 2, 4)] == pytest.approx([1.0, 1.1, 2.2])
    assert Host().slowdown(1024) == 1.0


def test_of_an_overlapped_exchange_and_its_backward_pass_the_shorter_costs_one_bucket() -> None:
    work = Work(forward=1.0, backward=2.0, after=0.5)
    hidden = model.step_seconds(work, 5e8, 2, GIGABYTE, overlap=True)
    assert hidden == pytest.approx(1.0 + 2.0 + 0.5 / 5 + 0.5)
    assert model.step_seconds(work, 4e9, 2, GIGABYTE, overlap=True) == pytest.approx(1.0 + 4.0 + 2.0 / 5 + 0.5)
    assert model.step_seconds(work, 5e8, 2, GIGABYTE, overlap=False) == pytest.approx(3.5 + 0.5)
    assert model.step_seconds(work, 5e8, 1, GIGABYTE, overlap=True) == pytest.approx(3.5)


def test_what_the_processor_does_for_an_exchange_delays_the_backward_pass_beside_it() -> None:
    host = Host(cores=2, elapsed=1e-9, busy=1e-9)
    step = model.step_seconds(Work(forward=1.0, backward=2.0), 1e9, 2, FREE, overlap=True, host=host)
    assert step == pytest.approx(1.0 + 2.0 + 1.0 + 1.0 / 5)


def test_stragglers_cost_what_the_largest_of_n_normal_numbers_does() -> None:
    assert model.efficiency(Work(forward=1.0, backward=0.0), 1e8, 1, FREE, overlap=True) == 1.0
    # Means of the largest of 2, 10 and 100 standard normal numbers, as tables of order statistics have them.
    for workers, tabulated in ((2, 0.564), (10, 1.539), (100, 2.508)):
        assert model.slowest(workers) == pytest.approx(tabulated, rel=0.05)
    work, slowed = Work(forward=0.3, backward=0.7), 1 + 0.02 * model.slowest(512)
    assert model.efficiency(work, 1e8, 512, FREE, overlap=False, spread=0.02) == pytest.approx(1 / slowed)


def test_the_published_figure_stands_beside_the_models_error() -> None:
    said = model.check()
    assert said.startswith("published: 90 % at 512 workers on 25 Gbit/s; the model without stragglers: 9")
    assert "an error of +" in said
    assert "with the 3.0% measured here: " in model.check(0.03)


def test_each_efficiency_of_the_table_has_the_models_error_beside_it_and_none_is_above_100() -> None:
    assert all(f"{workers:,}" in model.table() for workers in (50, 256, 1024))
    first = model.table({"fast": 0.1, "exact": 0.2}).splitlines()[1]
    assert "99 (89-100) / 90 (72-100)" in first  # 10 Gbit/s and the GPU of 2015: 90 * 1.2 is cut off


@pytest.mark.usefixtures("limits")
def test_two_ranks_on_nodes_of_their_own_send_the_bytes_the_model_says_and_leave_nothing_behind() -> None:
    size = 400_000
    with limited_network(2) as network, scaling.Workers(2, network) as workers:
        network.limit(200.0)
        shape = _ip("tc", "-n", network.names[1], "qdisc", "show", "dev", INTERFACE)
        assert "tbf" in shape and "200Mbit" in shape
        workers.do("exchange", 1, size=8)  # they have met
        before = network.sent_bytes(0)
        timed = workers.do("exchange", 5, size=size)
        sent = network.sent_bytes(0) - before
        network.limit(None)
        assert "tbf" not in _ip("tc", "-n", network.names[1], "qdisc", "show", "dev", INTERFACE)
    assert len(timed.seconds) == 5
    rounds = 5 + 2  # two are not timed
    assert sent / rounds == pytest.approx(model.sent(size, 2), rel=0.1)  # headers and barriers are the rest
    assert not _left_by(os.getpid())


@pytest.mark.usefixtures("limits")
def test_an_error_and_an_interruption_leave_no_namespace_behind() -> None:
    with pytest.raises(ReinceptionError, match="tbf"), limited_network(2) as network:
        assert _left_by(os.getpid())
        network.limit(0)  # no link has no bandwidth at all
    assert not _left_by(os.getpid())

    program = (
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from limited_network import limited_network\n"
        "with limited_network(3): print('made', flush=True); time.sleep(600)\n"
    )
    paths = os.pathsep.join((str(Path(scaling.__file__).parent), *sys.path))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "made\n"
        assert len(_left_by(process.pid)) == 4
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert not _left_by(process.pid)


def test_a_rank_that_dies_is_named() -> None:
    with scaling.Workers(2) as workers, pytest.raises(ReinceptionError, match="of 2 has died"):
        workers.do("exchange", 1, size="many")  # which is no size


def _left_by(process: int) -> list[str]:
    return [name for name in _ip("ip", "netns", "list").splitlines() if name.startswith(f"reinception-{process}-")]


def _ip(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
