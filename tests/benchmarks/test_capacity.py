"""The capacity model: what workers do together, what holds them up, and the server that limits a link."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import pytest
from capacity import Check, Jobs, served
from capacity_model import Costs, Site, capacity, price_of_a_million, seconds_for, table

COSTS = Costs(decode=0.01, network=0.04, bytes=1e5, start=5.0)


def test_one_worker_does_what_its_core_allows() -> None:
    assert capacity(COSTS, Site(), 1).images_per_second == pytest.approx(20.0)
    assert seconds_for(COSTS, Site(), 1, 200) == pytest.approx(15.0)


def test_workers_add_up_until_the_cores_of_a_machine_are_busy() -> None:
    two_cores = Site(cores=2, workers_a_machine=4)
    rates = [capacity(COSTS, two_cores, workers).images_per_second for workers in (1, 2, 4, 8)]
    assert rates == pytest.approx([20, 40, 40, 80])
    assert seconds_for(COSTS, two_cores, 4, 400) == pytest.approx(10.0 + 10.0)  # they share cores as they start, too


def test_the_smallest_of_processor_link_and_storage_is_the_bound() -> None:
    for site, workers, bound, rate in (
        (Site(link=1e6), 3, "link", 30.0),
        (Site(storage=1e6), 3, "storage", 10.0),
        (Site(storage=1e8, link=1e8), 3, "processor", 60.0),
    ):
        found = capacity(COSTS, site, workers)
        assert (found.bound, found.images_per_second) == (bound, pytest.approx(rate))


def test_a_million_costs_the_same_until_cores_wait_for_storage() -> None:
    site = Site(price=0.04, storage=1e8)
    assert price_of_a_million(COSTS, site, 1) == pytest.approx(0.04 * 50_000 / 3600)
    assert price_of_a_million(COSTS, site, 50) == pytest.approx(price_of_a_million(COSTS, site, 1))
    assert price_of_a_million(COSTS, site, 1000) == pytest.approx(20 * price_of_a_million(COSTS, site, 1))
    said = table([("bf16", COSTS)], site).splitlines()
    assert len(said) == 5 and said[1].split()[:3] == ["bf16", "1", "1,728,000"]
    assert said[-1].endswith("storage")


def test_the_error_of_a_check_is_that_of_the_prediction() -> None:
    assert Check(what="x", seconds=(9.0, 10.0, 30.0), predicted=12.0).error == pytest.approx(0.2)


def test_the_server_sends_no_more_than_its_link_and_any_part_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(bytes(range(256)) * 400)
    with served([file], 4e5) as (address,):
        began = time.monotonic()
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == file.read_bytes()
        assert time.monotonic() - began > 0.8 * 102_400 / 4e5
        asked = urllib.request.Request(address, headers={"Range": "bytes=10-19"})
        with urllib.request.urlopen(asked) as answer:
            assert (answer.status, answer.read()) == (206, bytes(range(10, 20)))


def test_jobs_are_real_ones_by_as_many_processes_and_over_http(place: Path, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, place / "images" / "functional", ("--backend", "torch", "--precision", "fp32"))
    (tmp_path / "model.safetensors").write_bytes((place / "model.safetensors").read_bytes())
    assert jobs.decode_seconds() > 0
    assert jobs.seconds(2, 2) > 0
    assert [len((tmp_path / f"{number}.jsonl").read_text().splitlines()) for number in (1, 2)] == [1, 1]
    with served(jobs.files, 1e7) as addresses:
        assert jobs.seconds(2, 1, addresses) > 0
