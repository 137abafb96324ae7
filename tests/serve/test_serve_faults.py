"""Faults: what dies is started again or ends the process, readiness is red meanwhile, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_helpers import RunningServer, Start, everything, write_model

from reinception.errors import UsageError
from reinception.serve.batcher import Batcher
from reinception.serve.counters import Counters
from reinception.serve.limits import ServeConfig
from reinception.serve.refusal import Refusal


@contextmanager
def load(server: RunningServer, images: list[bytes], clients: int = 4) -> Iterator[list[int | str]]:
    """Clients that ask without a pause while the block runs, for one image after another; afterwards the list holds
    what each got."""
    got: list[int | str] = []
    stopping = threading.Event()
    numbers = itertools.count()

    def ask() -> None:
        while not stopping.is_set():
            try:
                got.append(server.post("/v1/predict", images[next(numbers) % len(images)]).status)
            except ConnectionRefusedError:
                time.sleep(0.01)
            except (OSError, EOFError) as error:
                got.append(type(error).__name__)
            except Exception as error:  # http.client's own
                got.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for one in threads:
        one.start()
    try:
        yield got
    finally:
        stopping.set()
        for one in threads:
            one.join()


def until(holds: Callable[[], bool], seconds: float = 10) -> float:
    """Seconds until it holds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)
    return time.monotonic() - start


# -- the batcher alone ------------------------------------------------------------------------------------------------


class FakeModel:
    """Answers each image with its first pixel."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.sizes = seconds, list[int]()

    def compute(self, kind: str, squares: list[Any]) -> list[Any]:
        self.sizes.append(len(squares))
        time.sleep(self.seconds)
        if any(square[0, 0, 0] == 255 for square in squares):
            raise RuntimeError("a bad one among them")
        if any(square[0, 0, 0] == 254 for square in squares):
            raise SystemExit
        return [int(square[0, 0, 0]) for square in squares]


def pixels(value: int) -> Any:
    return np.full((1, 1, 3), value, dtype=np.uint8)


def with_batcher(work: Callable[[Batcher], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def run() -> None:
        batcher = Batcher(ServeConfig(models=("m.safetensors",), **options), Counters())
        try:
            await work(batcher)
        finally:
            batcher.close()

    asyncio.run(run())


def asking(batcher: Batcher, model: Any, value: int, seconds: float = 10, **more: Any) -> Coroutine[Any, Any, Any]:
    return batcher.compute(model, "probabilities", pixels(value), time.monotonic() + seconds, **more)


def test_a_batch_is_cut_by_size_and_by_time() -> None:
    async def work(batcher: Batcher) -> None:
        model = FakeModel()
        assert await asyncio.gather(*(asking(batcher, model, n) for n in range(40))) == list(range(40))
        assert max(model.sizes) <= 16
        assert len(model.sizes) < 10
        start = time.monotonic()
        await asking(batcher, model, 1)
        assert time.monotonic() - start < 1

    with_batcher(work)


def test_images_of_two_models_are_never_computed_together() -> None:
    async def work(batcher: Batcher) -> None:
        models = FakeModel(0.001), FakeModel(0.001)
        await asyncio.gather(*(asking(batcher, models[n % 2], n) for n in range(40)))
        assert [sum(one.sizes) for one in models] == [20, 20]

    with_batcher(work)


def test_an_image_that_makes_a_batch_fail_costs_only_itself() -> None:
    async def work(batcher: Batcher) -> None:
        asked = (asking(batcher, FakeModel(), n) for n in (1, 255, 3))
        one, two, three = await asyncio.gather(*asked, return_exceptions=True)
        assert (one, three) == (1, 3)
        assert isinstance(two, Refusal)
        assert two.status == 500

    with_batcher(work)


def test_cancelling_at_any_moment_leaves_nothing_behind() -> None:
    """10,000 requests, 80 % of them cancelled, many just when their result comes."""
    complaints: list[Any] = []

    async def work(batcher: Batcher) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        draw, model = random.Random(0), FakeModel()
        for _ in range(100):
            tasks = [asyncio.create_task(asking(batcher, model, n % 200)) for n in range(100)]
            kept = []
            for n, task in enumerate(tasks):
                if draw.random() < 0.8:
                    asyncio.get_running_loop().call_later(draw.random() * 0.004, task.cancel)
                else:
                    kept.append((n, task))
            assert await asyncio.gather(*(task for _, task in kept)) == [n % 200 for n, _ in kept]
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await asking(batcher, model, 7, seconds=2) == 7
        assert not batcher._queue

    with_batcher(work)
    assert not complaints


def test_a_deadline_is_kept_whatever_the_wall_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(batcher: Batcher) -> None:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        slow = asyncio.create_task(asking(batcher, FakeModel(0.5), 1))
        await asyncio.sleep(0.05)
        start = time.monotonic()
        with pytest.raises(Refusal) as refused:
            await asking(batcher, FakeModel(), 2, seconds=0.1)
        assert refused.value.code == "deadline"
        assert time.monotonic() - start < 0.4
        assert await slow == 1

    with_batcher(work)


def test_the_canary_goes_first_and_needs_no_place() -> None:
    async def work(batcher: Batcher) -> None:
        model = FakeModel(0.02)
        with batcher.places(128):
            with pytest.raises(Refusal), batcher.places(1):
                pass
            many = [asyncio.create_task(asking(batcher, model, n)) for n in range(100)]
            await asyncio.sleep(0)
            await asking(batcher, model, 1, is_urgent=True)
            assert sum(one.done() for one in many) < 60
            await asyncio.gather(*many)
        assert batcher.num_places == 0

    with_batcher(work)


def test_more_than_can_be_done_in_time_is_refused_with_when_to_come_again() -> None:
    async def work(batcher: Batcher) -> None:
        batcher.seconds_per_image = 1.0
        with pytest.raises(Refusal) as refused:
            batcher.check_room(8)
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        batcher.check_room(7)

    with_batcher(work)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_tells_who_waits_and_is_started_again() -> None:
    async def work(batcher: Batcher) -> None:
        with pytest.raises(Refusal) as refused:
            await asking(batcher, FakeModel(), 254)
        assert refused.value.code == "batcher_died"
        until(lambda: not batcher._thread.is_alive())
        batcher.supervise()
        assert await asking(batcher, FakeModel(), 5) == 5

    with_batcher(work)


def test_a_batch_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(batcher: Batcher) -> None:
        monkeypatch.setattr("reinception.serve.batcher.HUNG_SECONDS", -4.9)
        waiting = [asyncio.create_task(asking(batcher, FakeModel(1.0), n)) for n in range(3)]
        await asyncio.sleep(0.3)
        batcher.supervise()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {getattr(one, "code", None) for one in answers} == {"backend_hung"}
        with pytest.raises(Refusal):
            batcher.check_room()

    with_batcher(work)


def test_a_decoding_process_needs_no_torch() -> None:
    code = "import sys, reinception.serve.decoder_process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the whole server -------------------------------------------------------------------------------------------------


def test_killed_decoders_cost_their_own_images_only(starting: Start, images: list[bytes]) -> None:
    server = starting()
    first = server.decoders()
    assert len(first) == 2
    with load(server, images) as got:
        for pid in (*first, *first):
            time.sleep(0.3)
            for one in server.decoders() if pid == first[-1] else server.decoders()[:1]:
                os.kill(one, signal.SIGKILL)
        time.sleep(0.5)
    assert set(got) <= {200, 503}
    assert got.count(503) <= 2 * 6
    assert until(lambda: server.get("/readyz").status == 200) < 5
    assert server.post("/v1/predict", images[0]).status == 200
    assert not set(first) & set(server.decoders())
    assert server.stop() == 0


def answering_nan(folder: str) -> None:
    """The model's weights are NaN as soon as there is a file `nan`."""
    from reinception.serve.served_model import ServedModel

    compute = ServedModel.compute

    def sabotaged(self: ServedModel, *given: Any) -> Any:
        if (Path(folder) / "nan").exists():
            self.engine.network.classifier.bias.data[:] = float("nan")
        return compute(self, *given)

    ServedModel.compute = sabotaged  # pyrefly: ignore[bad-assignment]


def test_a_model_that_answers_nan_is_an_error_in_valid_json_and_not_ready(
    starting: Start, images: list[bytes], tmp_path: Path
) -> None:
    server = starting("--backend", "torch", before=partial(answering_nan, str(tmp_path)))
    (tmp_path / "nan").touch()
    answer = server.post("/v1/predict", images[0])
    assert (answer.status, answer.code) == (500, "non_finite_output")
    assert b"NaN" not in answer.body
    until(lambda: server.get("/readyz").status == 503)


def hanging_backend(folder: str) -> None:
    """The backend hangs as soon as there is a file `hang`; that is noticed after half a second."""
    from reinception.serve import batcher
    from reinception.serve.served_model import ServedModel

    batcher.HUNG_SECONDS = 1.0
    compute = ServedModel.compute

    def sabotaged(self: ServedModel, *given: Any) -> Any:
        while (Path(folder) / "hang").exists():
            time.sleep(0.05)
        return compute(self, *given)

    ServedModel.compute = sabotaged  # pyrefly: ignore[bad-assignment]


def test_a_backend_that_hangs_is_red_within_seconds_and_ends_the_process_with_a_line(
    starting: Start, images: list[bytes], tmp_path: Path
) -> None:
    server = starting("--drain-seconds", 2, before=partial(hanging_backend, str(tmp_path)))
    (tmp_path / "hang").touch()
    time.sleep(1.1)  # the last answer of the readiness check holds for a second
    with ThreadPoolExecutor(4) as clients:
        waiting = [clients.submit(server.post, "/v1/predict", images[0]) for _ in range(4)]
        start = time.monotonic()
        assert server.get("/readyz").status == 503
        assert time.monotonic() - start < 5
        assert {one.result().status for one in waiting} <= {503}
    server.process.join(20)
    assert server.process.exitcode == 1, server.said
    assert "the backend hangs; start it again" in server.said


def test_a_batcher_thread_killed_from_outside_is_started_again(
    starting: Start, images: list[bytes], tmp_path: Path
) -> None:
    server = starting(before=partial(killing_batcher, str(tmp_path)))
    (tmp_path / "kill").touch()
    assert server.post("/v1/predict", images[0]).json["error"]["code"] == "batcher_died"
    (tmp_path / "kill").unlink(missing_ok=True)
    assert until(lambda: server.get("/readyz").status == 200) < 5
    assert server.post("/v1/predict", images[0]).status == 200
    assert server.metric('restarts_total{part="batcher"') == 1


def killing_batcher(folder: str) -> None:
    from reinception.serve.served_model import ServedModel

    compute = ServedModel.compute

    def sabotaged(self: ServedModel, *given: Any) -> Any:
        if (Path(folder) / "kill").exists():
            (Path(folder) / "kill").unlink()
            number = threading.get_ident()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), ctypes.py_object(SystemExit))
            time.sleep(0.01)
        return compute(self, *given)

    ServedModel.compute = sabotaged  # pyrefly: ignore[bad-assignment]


def few_descriptors() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))


def test_without_descriptors_no_request_is_lost_and_the_server_comes_back(starting: Start, images: list[bytes]) -> None:
    server = starting(before=few_descriptors)
    idle = [server.connect() for _ in range(150)]
    statuses = [everything(one).split()[1:2] for one in idle[100:]]
    assert statuses.count([b"503"]) > 30
    for one in idle:
        one.close()
    until(lambda: server.get("/readyz").status == 200)
    assert server.post("/v1/predict", images[0]).status == 200


def test_a_stopping_server_answers_what_it_accepted_and_goes_in_time(starting: Start, images: list[bytes]) -> None:
    """Beside the load, one client holds an idle connection, and one reads nothing."""
    server = starting("--drain-seconds", 5)
    with server.connect(), server.connect() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        children = server.decoders()
        with load(server, images) as got:
            time.sleep(0.5)
            server.signal(signal.SIGTERM)
            server.process.join(20)
        assert server.process.exitcode == 0, server.said
        assert set(got) == {200}
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in children))


@pytest.mark.slow
def test_sigterm_under_load_fifty_times_fails_no_accepted_request(starting: Start, images: list[bytes]) -> None:
    for _ in range(50):
        server = starting()
        with load(server, images) as got:
            time.sleep(0.3 + random.random() / 2)
            server.signal(signal.SIGTERM)
            server.process.join(30)
        assert server.process.exitcode == 0, server.said
        assert set(got) == {200}


# -- reload -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_models(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    one, two = (write_model(folder / f"{seed}.safetensors", solar_cells, seed=seed) for seed in (1, 2))
    return one, two


def replace(target: Path, source: Path) -> None:
    shutil.copy(source, target.with_suffix(".new"))
    os.replace(target.with_suffix(".new"), target)


def test_a_model_is_replaced_under_load_and_a_damaged_one_changes_nothing(
    starting: Start, images: list[bytes], two_models: tuple[Path, Path], tmp_path: Path
) -> None:
    served = tmp_path / "served.safetensors"
    replace(served, two_models[0])
    server = starting(model=served)

    def digest() -> str:
        return server.post("/v1/predict", images[0]).json["model"]["hash"]

    first = digest()
    with load(server, images) as got:
        replace(served, two_models[1])
        server.signal(signal.SIGHUP)
        until(lambda: digest() != first, 30)
        second = digest()
        for damage in (b"", b"damaged", two_models[0].read_bytes()[:-100]):
            before = server.said.count("failed")
            served.write_bytes(damage)
            server.signal(signal.SIGHUP)
            server.signal(signal.SIGHUP)
            until(lambda before=before: server.said.count("failed") > before, 30)
        assert digest() == second
    assert set(got) == {200}
    assert server.get("/readyz").status == 200
    assert "not a whole .safetensors file" in server.said
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("models", "options", "line"),
    [
        (("m.safetensors", "m.safetensors"), {}, "two models are called"),
        (("a/b=m.safetensors",), {}, "cannot be a model's name"),
        (("m.safetensors",), {"queue_size": 8}, "could never fill"),
        (("m.safetensors",), {"workers": 0}, "workers must be at least 1"),
        (("m.safetensors",), {"root_path": "x/"}, "must begin with /"),
    ],
)
def test_options_that_make_no_sense_are_refused(models: tuple[str, ...], options: Any, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        ServeConfig(models=models, **options)


def test_a_port_that_is_taken_is_one_line(served_file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = RunningServer((served_file,), tmp_path / "log", port=taken.getsockname()[1])
        assert server.process.join(60) is None
    assert server.process.exitcode == 1
    assert "choose another --host or --port" in server.said
    assert server.said.count("\n") == 1


@pytest.mark.slow
def test_a_thousand_reloads_under_load_lose_nothing_and_memory_stays(
    starting: Start, images: list[bytes], two_models: tuple[Path, Path], tmp_path: Path
) -> None:
    served, token = tmp_path / "served.safetensors", tmp_path / "token"
    token.write_text("secret")
    replace(served, two_models[0])
    server = starting("--token-file", token, model=served)
    headers = {"Authorization": "Bearer secret", "Content-Type": "image/png"}
    memory: list[int] = []
    for number in range(1000):
        replace(served, two_models[(number + 1) % 2])
        reloading = ThreadPoolExecutor(1).submit(server.ask, "POST", "/v1/reload", b"", headers)
        while not reloading.done():
            assert server.post("/v1/predict", images[number % 32], headers).status == 200
        assert reloading.result().json["models"][0]["status"] == "loaded"
        text = Path(f"/proc/{server.pid}/status").read_text()
        memory.append(int(text.partition("VmRSS:")[2].split()[0]))
    assert max(memory[900:]) < max(memory[100:200]) + (30 << 10)


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_memory_and_descriptors_stay_level_under_load(starting: Start, images: list[bytes]) -> None:
    """Mixed sizes from 16 clients for REINCEPTION_SOAK_MINUTES (10); the slope is taken after three tenths."""
    import io

    from PIL import Image

    large = io.BytesIO()
    Image.effect_noise((5000, 4000), 50).save(large, "JPEG")
    server = starting()
    memory: list[tuple[float, int]] = []
    whole = 60 * float(os.environ.get("REINCEPTION_SOAK_MINUTES", "10"))
    start = time.monotonic()
    with load(server, [*images, large.getvalue()], clients=16) as got:
        while (seconds := time.monotonic() - start) < whole:
            time.sleep(2)
            text = Path(f"/proc/{server.pid}/status").read_text()
            memory.append((seconds, int(text.partition("VmRSS:")[2].split()[0])))
            got[:] = [one for one in got if one not in (200, 429)]
    late = np.array([one for one in memory if one[0] > 0.3 * whole])
    slope = np.polyfit(late[:, 0] / 3600, late[:, 1] / 1024, 1)[0]
    print(f"memory slope {slope:.1f} MiB/h over {len(late)} samples")
    assert set(got) <= {200, 429}
    assert slope < (1 if whole >= 3600 else 20 if whole >= 600 else 600)  # a short time says little
    time.sleep(16)
    assert len(list(Path(f"/proc/{server.pid}/fd").iterdir())) < 60
