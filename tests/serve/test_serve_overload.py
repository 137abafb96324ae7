"""Overload and the unexpected: refusals from the first line of a request, and whatever an OpenAPI client may send."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serve_helpers import Answer, RunningServer, Start, everything, multipart
from test_serve_faults import with_batcher

import reinception as ri
from reinception.serve.batcher import Batcher
from reinception.serve.counters import Counters
from reinception.serve.early_refusal import early_refusal


def test_a_full_queue_is_said_from_the_first_line_and_nothing_else_is_stopped() -> None:
    async def work(batcher: Batcher) -> None:
        counters = Counters()
        refused = early_refusal(batcher, counters, "/models")
        lines = [b"POST /v1/predict HTTP/1.1\r\n", b"PUT /models/v1/features?model=a HTTP/1.1\r\n"]
        v2 = b"POST /v2/models/a/versions/1/infer HTTP/1.1\r\n"
        assert [refused(line) for line in [*lines, v2]] == [None] * 3
        with batcher.places(128):
            for line in [*lines, v2]:
                head, _, body = (refused(line) or b"").partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
                for one in (b"\r\nretry-after: 1\r\n", b"\r\nconnection: close\r\n", b"content-security-policy"):
                    assert one in head + b"\r\n"
                told = json.loads(body)
                assert told["code" if line == v2 else "error"]
                assert f"content-length: {len(body)}".encode() in head
            for line in (
                b"GET /readyz HTTP/1.1\r\n",
                b"GET /v1/predict HTTP/1.1",
                b"POST /v1/predictions HTTP/1.1",
                b"POST /v1/reload HTTP/1.1",
            ):
                assert refused(line) is None
        batcher.failure = "the backend hangs"
        assert (refused(v2) or b"").startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert counters.requests.labels("predict", "POST", "429")._value.get() == 1

    with_batcher(work)


@pytest.fixture(scope="module")
def small_queue(served_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    words = (served_file, "--queue-size", 4, "--batch-size", 4, "--max-images", 4)
    running = RunningServer(words, tmp_path_factory.mktemp("full") / "log").wait_until_ready()
    yield running
    assert running.stop() == 0, running.said


def test_under_overload_every_request_gets_its_answer_or_a_whole_refusal(
    small_queue: RunningServer, images: list[bytes]
) -> None:
    body, headers = multipart(*images[:4])

    def ask(number: int) -> Answer:
        return (
            small_queue.post("/v1/predict", body, headers) if number % 2 else small_queue.post("/v1/predict", images[0])
        )

    with ThreadPoolExecutor(32) as clients:
        answers = list(clients.map(ask, range(400)))
    assert {one.status for one in answers} == {200, 429}
    for one in answers:
        if one.status == 429:
            assert one.json["error"]["code"] == "queue_full" and int(one.headers["retry-after"]) >= 1
        else:
            assert len(one.json["predictions"]) in (1, 4)
    assert small_queue.get("/readyz").status == 200
    assert small_queue.metric("refused_total") >= sum(one.status == 429 for one in answers)
    assert small_queue.post("/v1/predict", images[0]).status == 200


def test_a_refused_client_that_is_still_sending_reads_the_whole_refusal(
    small_queue: RunningServer, images: list[bytes]
) -> None:
    body, headers = multipart(*images[:4])
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {8 << 20}\r\n\r\n".encode()

    def slowly(_: int) -> bytes:
        with small_queue.connect() as one:
            one.sendall(head)
            for _ in range(8):
                one.sendall(bytes(1 << 20))
            return everything(one)

    with ThreadPoolExecutor(24) as clients:
        pressing = [clients.submit(small_queue.post, "/v1/predict", body, headers) for _ in range(100)]
        found = list(clients.map(slowly, range(12)))
        assert {one.result().status for one in pressing} <= {200, 429}
    assert {one.split(b" ")[1] for one in found} <= {b"429", b"400"}  # 400: it was let in, and is no image
    assert all(one.endswith(b"}") or one.endswith(b"}}") for one in found)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_whatever_the_openapi_document_allows_is_answered_in_order(server: RunningServer, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{server.port}/openapi.json",
        "--checks", "not_a_server_error", "--max-examples", os.environ.get("REINCEPTION_EXAMPLES", "100"),
        "--seed", "1", "--exclude-path", "/v1/reload", "--exclude-path", "/readyz",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert server.get("/readyz").status == 200


@pytest.mark.slow
@pytest.mark.skipif(
    "REINCEPTION_FULL_MODEL" not in os.environ, reason="REINCEPTION_FULL_MODEL names no model of full width"
)
def test_a_model_of_full_width_answers_as_predict_under_32_clients(
    starting: Start, images: list[bytes], solar_cells: Path
) -> None:
    model = Path(os.environ["REINCEPTION_FULL_MODEL"])
    server = starting("--precision", "fp32", model=model)
    answers = ri.Predictor(model, precision="fp32", top=3)(sorted(solar_cells.rglob("*.png")))
    expected = [{one.label: one.probability for one in answer.labels} for answer in answers]

    def ask(number: int) -> tuple[int, Answer]:
        return number, server.post("/v1/predict?top=3", images[number % 32])

    with ThreadPoolExecutor(32) as clients:
        for number, answer in clients.map(ask, range(200)):
            assert answer.status == 200, answer.body
            labels = answer.json["predictions"][0]["labels"]
            found = {one["label"]: one["probability"] for one in labels}
            assert found == pytest.approx(expected[number % 32], abs=1e-6)
    assert server.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_computing_has_a_lower_priority_than_answering(server: RunningServer) -> None:
    process = server.process.pid
    assert process is not None
    threads = {
        int(one.name): os.getpriority(os.PRIO_PROCESS, int(one.name)) for one in Path(f"/proc/{process}/task").iterdir()
    }
    assert threads.pop(process) == os.getpriority(os.PRIO_PROCESS, 0)
    assert max(threads.values()) > os.getpriority(os.PRIO_PROCESS, 0)
    assert all(os.getpriority(os.PRIO_PROCESS, one) > os.getpriority(os.PRIO_PROCESS, 0) for one in server.decoders())


def test_the_estimate_of_the_wait_counts_what_lies_between_batches() -> None:
    async def work(batcher: Batcher) -> None:
        with batcher.places(40):
            batcher._busy_since = time.monotonic() - 2.0  # the last batch ended two seconds ago, and images wait
            batcher._measure(16, time.monotonic() - 1.0)
        assert batcher.seconds_per_image == pytest.approx(2.0 / 16, rel=0.05)

    with_batcher(work)
