"""One model and one server that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import RunningServer, Start, write_model


@pytest.fixture(scope="session")
def served_file(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("served") / "cells.safetensors", solar_cells)


@pytest.fixture(scope="session")
def images(solar_cells: Path) -> list[bytes]:
    """32 different images."""
    return [path.read_bytes() for path in sorted(solar_cells.rglob("*.png"))]


@pytest.fixture(scope="session")
def server(served_file: Path, solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("server") / "log"
    words = (served_file, "--samples", solar_cells, "--max-body-mib", 10, "--max-megapixels", 20)
    running = RunningServer(words, log).wait_until_ready()
    yield running
    assert running.stop() == 0, running.said


@pytest.fixture
def starting(served_file: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts servers, and ends those that a test leaves running."""
    running: list[RunningServer] = []

    def begin(*words: object, before: Any = None, model: object = served_file) -> RunningServer:
        running.append(RunningServer((model, *words), tmp_path / f"log{len(running)}", before))
        return running[-1].wait_until_ready()

    yield begin
    for one in running:
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
