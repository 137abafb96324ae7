"""Runs the server: loads, listens, supervises, reloads on SIGHUP, and stops after the last answer."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import uvicorn
from PIL import Image
from prometheus_client import start_http_server
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from reinception.errors import ReinceptionError, UsageError
from reinception.inference.cascade import kept_threshold
from reinception.inference.compute import Compute
from reinception.machine import limit_memory_arenas, num_processors
from reinception.report.formatting import count
from reinception.serve.admission import Gate
from reinception.serve.app import Api, read_samples
from reinception.serve.batcher import Batcher
from reinception.serve.classify import Pipeline, Readiness
from reinception.serve.connections import DrainingServer, limited_protocol
from reinception.serve.counters import Counters
from reinception.serve.decoders import DecoderPool
from reinception.serve.early_refusal import early_refusal
from reinception.serve.limits import START_SECONDS, ServeConfig
from reinception.serve.refusal import Refusal
from reinception.serve.served_model import ServedModels
from reinception.serve.uploads import Bodies

_SUPERVISE_SECONDS = 0.25
_KEEP_ALIVE_SECONDS = 15
_SWITCH_SECONDS = 0.0002
_HEAD_BYTES = 32 << 10
_SPARE_DESCRIPTORS = 64
_ARENAS = 2  # an arena for each of many threads would hold the largest use of each


def serve(config: ServeConfig, compute: Compute) -> None:
    """Serves until SIGTERM or SIGINT. ReinceptionError where it cannot start, or the backend hangs."""
    token = None if config.token_file is None else _token(config.token_file)
    samples = read_samples(config.samples)
    listener = _listen(config.host, config.port)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(num_processors())
    limit_memory_arenas(_ARENAS)
    # The batcher needs the interpreter for each of hundreds of operations, and under load would wait 5 ms each time.
    sys.setswitchinterval(_SWITCH_SECONDS)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = min(hard, max(soft, config.connections + _SPARE_DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    config = replace(config, connections=max(1, min(config.connections, soft - _SPARE_DESCRIPTORS)))
    models = ServedModels(config.named_models, compute, config.batch_size, _threshold(config))
    # What has been loaded stays: looking through all of it for garbage would stop every answer for 0.1 s at a time.
    gc.collect()
    gc.freeze()
    asyncio.run(_serve(config, models, listener, token, samples))


async def _serve(
    config: ServeConfig, models: ServedModels, listener: socket.socket, token: bytes | None, samples: list[bytes]
) -> None:
    counters = Counters()
    batcher = Batcher(config, counters)
    batcher.seconds_per_image = max(model.seconds_per_image for model in models.all())
    pool = DecoderPool(config.workers, config.max_megapixels * 1_000_000, counters)
    pool.start()
    pipeline = Pipeline(
        pool=pool, batcher=batcher, models=models, counters=counters, deadline_seconds=config.deadline_seconds
    )
    router = Router(default=_not_found, redirect_slashes=False)
    gate = Gate(router, config, counters, token, lambda: server.should_exit)
    server = DrainingServer(
        uvicorn.Config(
            gate,
            http=limited_protocol(config.connections, early_refusal(batcher, counters, config.root_path)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(config.drain_seconds),
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
    )
    api = Api(
        config=config,
        models=models,
        pipeline=pipeline,
        readiness=Readiness(pipeline, models, _test_image()),
        counters=counters,
        draining=lambda: server.should_exit,
        bodies=Bodies(config),
        samples=samples,
        has_token=token is not None,
    )
    router.routes.extend(api.routes())
    until = time.monotonic() + START_SECONDS
    while problem := await api.readiness.problem():
        if time.monotonic() > until:
            raise ReinceptionError(f"serve: cannot answer its own test image: {problem}")
        await asyncio.sleep(_SUPERVISE_SECONDS)
    if config.metrics_port is not None:
        start_http_server(config.metrics_port, config.host, counters.registry)
    _say_started(config, models, listener)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again when it has stopped in order
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: _start_reload(models, counters))
    watching = asyncio.create_task(_supervise(batcher, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        batcher.close()
        await pool.close()
    if batcher.failure:
        raise ReinceptionError(f"serve: {batcher.failure}; start it again")


async def _supervise(batcher: Batcher, server: uvicorn.Server) -> None:
    """Looks after the batcher, and says when the server stops."""
    said = False
    while True:
        batcher.supervise()
        if batcher.failure:
            server.should_exit = True
        if server.should_exit and not said:
            _say(f"draining: {batcher.num_places} images are waiting for their answer")
            said = True
        await asyncio.sleep(_SUPERVISE_SECONDS)


_reloads: set[asyncio.Task[None]] = set()


def _start_reload(models: ServedModels, counters: Counters) -> None:
    task = asyncio.create_task(_reload(models, counters))
    _reloads.add(task)
    task.add_done_callback(_reloads.discard)


async def _reload(models: ServedModels, counters: Counters) -> None:
    for one in await models.reload():
        counters.reloads.labels(one["status"]).inc()
        _say(f"reload: {one['name']} {one['hash']}: {one['status']} {one.get('reason', '')}".rstrip())


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refusal(404, "no_such_address", "there is no such address; see /api")


def _threshold(config: ServeConfig) -> float | None:
    """Of a cascade; None without one."""
    if not config.cascade or config.threshold is not None:
        return config.threshold
    return kept_threshold(next(iter(config.named_models.values())))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ReinceptionError(
            f"serve: cannot listen on {host} port {port} ({error.strerror or error}); choose another --host or --port"
        ) from None


def _token(path: Path) -> bytes:
    token = path.read_bytes().strip()
    if not token or not all(33 <= byte < 127 for byte in token):
        raise UsageError(f"{path}: must hold one secret of printable ASCII characters without spaces")
    return token


def _test_image() -> bytes:
    """A small image with something on it, for the readiness check."""
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return file.getvalue()


def _say_started(config: ServeConfig, models: ServedModels, listener: socket.socket) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    named = ", ".join(
        f"{one.name} ({one.digest}, {one.engine.backend.name} {one.engine.precision})" for one in models.all()
    )
    _say(
        f"{count(torch.get_num_threads(), 'thread')} on {count(num_processors(), 'processor')}, "
        f"{count(config.workers, 'decoder')}, batches of "
        f"{config.batch_size}, {config.connections} connections, {_ARENAS} memory arenas"
    )
    _say(f"ready: {named} at http://{host}:{listener.getsockname()[1]}{config.root_path or ''}/")


def _say(line: str) -> None:
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    print(f"reinception: serve: {safe}", file=sys.stderr, flush=True)
