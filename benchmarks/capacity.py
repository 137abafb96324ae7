"""From rates measured here to a billion images: the table of capacity_model.py, and how wrong the model is.

Measured of one process on one thread: its start and the core-seconds of an image (two lengths of a job), those of
decoding alone, and bytes. Then the model is asked for jobs it has not seen: one, two and four processes with a shard
each, and images read over HTTP from a server that sends so many bytes a second and no more.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity_model import Costs, Site, seconds_for, table
from pipeline import make_images

import reinception as ri
from reinception.cli.table import aligned
from reinception.data.loading.read import evaluation_square
from reinception.data.sources.records import Record
from reinception.machine import examine, num_processors
from reinception.preprocess import Preprocessing

SIDES = 500, 375
CHUNK = 16 << 10


@dataclass(frozen=True, kw_only=True)
class Check:
    """A job that the model was asked about: how long it took in each round, and what had been said."""

    what: str
    seconds: tuple[float, ...]
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / statistics.median(self.seconds) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400, help="of the longer job (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--width", type=float, default=1.0, help="of the network, to try it (default: 1)")
    parser.add_argument("--settings", nargs="+", default=["torch:fp32", "auto:auto"], help="BACKEND:PRECISION")
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour (default: %(default)s)")
    parser.add_argument("--storage", type=float, default=12.5e9, help="bytes a second of all (default: 100 Gbit/s)")
    parser.add_argument("--link", type=float, default=1.25e9, help="bytes a second of a machine (default: 10 Gbit/s)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: list[tuple[str, Costs]] = []
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = ri.create("inception_v3", aux="none", seed=0, width=options.width)
        classes = tuple(f"class {index}" for index in range(network.arch.num_classes))
        model = ri.Model(network, ri.Manifest(arch=network.arch, classes=classes, preprocessing=Preprocessing()))
        ri.save(model, folder / "model.safetensors")
        images = make_images(folder / "images", *SIDES, options.images)
        for setting in options.settings:
            backend, precision = setting.split(":")
            jobs = Jobs(folder, images, ("--backend", backend, "--precision", precision))
            costs = jobs.costs(options.rounds)
            found.append((setting, costs))
            checks += jobs.checks(setting, costs, options.rounds)
    site = Site(price=options.price, storage=options.storage, link=options.link)
    facts = examine()
    print(f"{facts['processor']['model']}, {num_processors()} cores; n = {options.rounds}; medians\n")
    rows = [(one, *(f"{value:.4g}" for value in vars(costs).values())) for one, costs in found]
    print(aligned(("SETTING", "DECODE S", "NETWORK S", "BYTES", "START S"), rows, right=range(1, 5)))
    print(f"\n{table(found, site)}\n")
    told = [
        (one.what, f"{statistics.median(one.seconds):.1f}", f"{one.predicted:.1f}", f"{one.error:+.0%}")
        for one in checks
    ]
    print(aligned(("ASKED", "SECONDS", "PREDICTED", "ERROR"), told, right=(1, 2, 3)))
    if options.json is not None:
        document = {
            "machine": facts,
            "costs": {one: vars(costs) for one, costs in found},
            "checks": [vars(one) | {"error": one.error} for one in checks],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


class Jobs:
    """Real jobs over `images`: a process for each shard, with one thread each."""

    def __init__(self, folder: Path, images: Path, words: Sequence[str]) -> None:
        self.folder, self.words = folder, words
        self.files = sorted(images.iterdir())
        self.bytes = statistics.fmean(file.stat().st_size for file in self.files)

    def costs(self, rounds: int) -> Costs:
        """What an image and a start cost one process with a core to itself."""
        short, long = len(self.files) // 8 or 1, len(self.files)
        self.seconds(long, 1)  # the choice of a backend and its compiling are kept
        pairs = [(self.seconds(short, 1), self.seconds(long, 1)) for _ in range(rounds)]
        fewer, more = (statistics.median(column) for column in zip(*pairs, strict=True))
        an_image = (more - fewer) / (long - short)
        decode = self.decode_seconds()
        start = max(fewer - short * an_image, 0.0)
        return Costs(decode=decode, network=max(an_image - decode, 0.0), bytes=self.bytes, start=start)

    def decode_seconds(self) -> float:
        """Core-seconds of reading and decoding one image."""
        records = [Record(path=file, name=file.name, target=0) for file in self.files]
        began = time.process_time()
        for record in records:
            evaluation_square(record, Preprocessing())
        return (time.process_time() - began) / len(records)

    def checks(self, setting: str, costs: Costs, rounds: int) -> Iterator[Check]:
        """Jobs of half the length by 1, 2 and 4 processes, and over a link of two fifths of what a process reads."""
        num = len(self.files) // 2
        for processes in (1, 2, 4):
            site = Site(cores=num_processors(), workers_a_machine=processes)
            seconds = tuple(self.seconds(num, processes) for _ in range(rounds))
            predicted = seconds_for(costs, site, processes, num)
            yield Check(what=f"{setting}, {processes} processes", seconds=seconds, predicted=predicted)
        link = 0.4 * costs.bytes / costs.core_seconds
        with served(self.files, link) as addresses:
            seconds = tuple(self.seconds(num, 1, addresses) for _ in range(rounds))
        predicted = seconds_for(costs, Site(link=link), 1, num)
        yield Check(what=f"{setting}, 1 process, {8e-6 * link:.1f} Mbit/s", seconds=seconds, predicted=predicted)

    def seconds(self, num: int, processes: int, addresses: Sequence[str] | None = None) -> float:
        """From the start of all processes to the end of the last, each with its shard of the first `num` images."""
        listed = self.folder / "list.jsonl"
        names = [str(file) for file in self.files] if addresses is None else addresses
        listed.write_text("".join(f"{json.dumps({'path': name})}\n" for name in names[:num]))
        settings = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.folder / "cache")}
        environment = os.environ | settings | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        began, started = time.perf_counter(), []
        outs = [self.folder / f"{number}.jsonl" for number in range(1, processes + 1)]
        for number, out in enumerate(outs, start=1):
            out.unlink(missing_ok=True)
            words: list[Any] = [
                sys.executable,
                "-m",
                "reinception",
                "predict",
                self.folder / "model.safetensors",
                listed,
            ]
            words += ["-o", out, "--shard", f"{number}/{processes}", "--workers", 1]
            words += self.words
            quiet = subprocess.DEVNULL
            started.append(subprocess.Popen([*map(str, words)], env=environment, stdout=quiet, stderr=quiet))
        codes = [one.wait() for one in started]
        seconds = time.perf_counter() - began
        rows = sum(len(out.read_text().splitlines()) for out in outs if out.exists())
        if any(codes) or rows != num:
            raise SystemExit(f"a job failed: exit codes {codes}, {rows} rows of {num}")
        return seconds


@contextmanager
def served(files: Sequence[Path], bytes_per_second: float) -> Iterator[list[str]]:
    """The addresses of files at a server here that sends no more than that, to all together."""
    lock, free_at = threading.Lock(), time.monotonic()

    def wait_for(size: int) -> None:
        nonlocal free_at
        with lock:
            free_at = max(free_at, time.monotonic()) + size / bytes_per_second
            until = free_at
        time.sleep(max(0.0, until - time.monotonic()))

    by_name = {f"/{file.name}": file for file in files}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = by_name[self.path].read_bytes()
            start, end = 0, len(content)
            if (asked := self.headers.get("Range")) is not None:
                first, last = asked.removeprefix("bytes=").split("-")
                start, end = int(first), min(int(last) + 1 if last else end, end)
            self.send_response(206 if asked else 200)
            self._head(len(content), start, end)
            for place in range(start, end, CHUNK):
                part = content[place : min(place + CHUNK, end)]
                wait_for(len(part))
                self.wfile.write(part)

        def do_HEAD(self) -> None:
            size = by_name[self.path].stat().st_size
            self.send_response(200)
            self._head(size, 0, size)

        def _head(self, size: int, start: int, end: int) -> None:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - start))
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [f"http://127.0.0.1:{server.server_port}/{file.name}" for file in files]
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
