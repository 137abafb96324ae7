"""The decoder pool: processes that turn encoded images into squares of pixels, each replaced at once when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import reinception
from reinception.data.images.decode import Pixels
from reinception.errors import BadImage
from reinception.preprocess import Preprocessing
from reinception.serve.counters import Counters
from reinception.serve.decoder_process import ANSWER, ASK
from reinception.serve.limits import DECODE_SECONDS
from reinception.serve.refusal import Refusal

MAX_DEATHS, _REMEMBERED = 3, 1000
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """The pixels that the network sees, (s, s, 3) uint8, and the size of the upright image they were cut from."""

    square: Pixels
    width: int
    height: int


@dataclass(eq=False)
class _Request:
    data: bytes
    preprocessing: Preprocessing
    future: asyncio.Future[Decoded]


class DecoderPool:
    """`num` processes and one queue. A process that dies costs the image it had; the others never notice."""

    def __init__(self, num: int, max_pixels: int, counters: Counters) -> None:
        self._num, self._max_pixels, self._counters = num, max_pixels, counters
        self._queue: asyncio.PriorityQueue[tuple[int, int, _Request]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._deaths: OrderedDict[bytes, int] = OrderedDict()
        self.process_ids: set[int] = set()
        """Of the processes that run now."""

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep_one()) for _ in range(self._num)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def decode(self, data: bytes, preprocessing: Preprocessing, *, is_urgent: bool = False) -> Decoded:
        """One image. BadImage where it cannot be used, Refusal where its process died."""
        if self._deaths and self._deaths.get(hashlib.sha256(data).digest(), 0) >= MAX_DEATHS:
            raise BadImage("", "crash", f"has crashed the decoder {MAX_DEATHS} times: remove or convert it")
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((not is_urgent, next(self._order), _Request(data, preprocessing, future)))
        return await future

    async def _keep_one(self) -> None:
        """One process after another, for as long as the pool lives."""
        pause = 0.0
        while True:
            try:
                process = await self._spawn()
            except OSError:  # no descriptor or no memory left for it now
                pause = min(5.0, 2 * pause or 0.1)
                await asyncio.sleep(pause)
                continue
            pause = 0.0
            self.process_ids.add(process.pid)
            try:
                await self._feed(process)
            finally:
                self.process_ids.discard(process.pid)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                if process.stdin is not None:
                    process.stdin.close()
                await process.wait()
            self._counters.restarts.labels("decoder").inc()

    async def _spawn(self) -> asyncio.subprocess.Process:
        root = str(Path(reinception.__file__).parent.parent)
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "reinception.serve.decoder_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": paths},
        )

    async def _feed(self, process: asyncio.subprocess.Process) -> None:
        """Gives images to the process until it dies."""
        ended = asyncio.create_task(process.wait())
        try:
            while True:
                getting = asyncio.create_task(self._queue.get())
                try:
                    await asyncio.wait({getting, ended}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not getting.done():
                        getting.cancel()
                if not getting.done():
                    return
                item = getting.result()
                if ended.done():  # it died idle: no image is to blame
                    self._queue.put_nowait(item)
                    return
                request = item[2]
                if not request.future.done() and not await self._one(process, request):
                    return
        finally:
            ended.cancel()

    async def _one(self, process: asyncio.subprocess.Process, request: _Request) -> bool:
        """Decodes one image; whether the process is still there afterwards."""
        failure: Exception
        try:
            async with asyncio.timeout(DECODE_SECONDS):
                result = await self._ask(process, request)
        except TimeoutError:
            failure = BadImage("", "hang", f"keeps the decoder busy for more than {DECODE_SECONDS:g} seconds")
        except (asyncio.IncompleteReadError, OSError):
            key = hashlib.sha256(request.data).digest()
            self._deaths[key] = self._deaths.pop(key, 0) + 1
            if len(self._deaths) > _REMEMBERED:
                self._deaths.popitem(last=False)
            failure = Refusal.busy(503, "decoder_died", "the process that decoded the image died; try again")
        except asyncio.CancelledError:
            request.future.cancel()
            raise
        else:
            _finish(request.future, result)
            return True
        _finish(request.future, failure)
        return False

    async def _ask(self, process: asyncio.subprocess.Process, request: _Request) -> Decoded | BadImage:
        assert process.stdin is not None and process.stdout is not None
        document = json.dumps(request.preprocessing.to_json(), sort_keys=True).encode()
        process.stdin.write(ASK.pack(len(document), len(request.data), self._max_pixels) + document)
        process.stdin.write(request.data)
        await process.stdin.drain()
        is_good, width, height, size = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
        payload = await process.stdout.readexactly(size)
        if not is_good:
            return BadImage("", *json.loads(payload))
        side = request.preprocessing.input_size
        square = np.frombuffer(payload, dtype=np.uint8).reshape(side, side, 3)
        return Decoded(square=square, width=width, height=height)


def _finish(future: asyncio.Future[Decoded], result: Decoded | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
