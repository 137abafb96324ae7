"""Load on `reinception serve`, open loop: requests leave at a constant rate, whatever has become of those before.

Latency counts from the moment a request should have left, so a server that stalls cannot hide it. Printed for half the
capacity up to five times: what was answered in time, how late, and how soon the rest was refused; then how soon the
server is back after 80 % of its clients have left early; and the requests a second of the HTTP layer alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from reinception.cli.table import aligned

PORT = 8391


@dataclass
class Outcome:
    """Seconds from the intended moment to the answer, by what it was."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: int = 0
    steady: int = 0
    """Answers that came while requests were sent, less the first quarter of that time, in which the queue fills."""


async def request(head: str, body: bytes, *, leave_after: float | None = None) -> int:
    """The status of one request on a connection of its own; 0 where the client left or the connection broke."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    except OSError:
        return 0
    try:
        writer.write(
            f"{head}Host: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        return int((await asyncio.wait_for(reader.read(), leave_after)).split()[1])
    except (OSError, TimeoutError, IndexError):
        return 0
    finally:
        writer.close()


async def open_loop(rate: float, seconds: float, ask: Callable[[], Awaitable[int]]) -> Outcome:
    """Asks `rate` times a second for so many seconds."""
    outcome, start = Outcome(), time.monotonic() + 0.1

    async def one(intended: float) -> None:
        await asyncio.sleep(max(0.0, intended - time.monotonic()))
        status = await ask()
        late = time.monotonic() - intended
        if status == 200:
            outcome.answered.append(late)
            outcome.steady += start + seconds / 4 < intended + late < start + seconds
        elif status in (429, 503):
            outcome.refused.append(late)
        else:
            outcome.failed += 1

    await asyncio.gather(*(one(start + number / rate) for number in range(round(rate * seconds))))
    return outcome


async def closed_loop(clients: int, seconds: float, ask: Callable[[], Awaitable[int]]) -> float:
    """Answers a second with so many clients that ask without a pause."""
    end, num = time.monotonic() + seconds, 0

    async def one() -> None:
        nonlocal num
        while time.monotonic() < end:
            is_answered = await ask() == 200  # first: `num +=` would read num before the wait
            num += is_answered

    start = time.monotonic()
    await asyncio.gather(*(one() for _ in range(clients)))
    return num / (time.monotonic() - start)


def milliseconds(values: list[float], percentile: float) -> str:
    return f"{1000 * float(np.percentile(values, percentile)):,.0f}" if values else "-"


async def measure(seconds: float, body: bytes) -> None:
    post = "POST /v1/predict HTTP/1.1\r\nContent-Type: image/jpeg\r\n"

    def ask() -> Awaitable[int]:
        return request(post, body)

    while await request("GET /readyz HTTP/1.1\r\n", b"") != 200:
        await asyncio.sleep(0.2)
    layer = await closed_loop(32, seconds / 2, lambda: request("GET /healthz HTTP/1.1\r\n", b""))
    capacity = await closed_loop(64, seconds, ask)
    print(f"HTTP layer alone: {layer:,.0f} requests/s; images, 64 clients in a closed loop: {capacity:,.1f}/s")
    header = ["load", "sent/s", "answered/s", "p50 ms", "p99 ms", "refused/s", "refusal p50 ms", "p99 ms", "failed"]
    rows = []
    for factor in (0.5, 1, 2, 5):
        rate = factor * capacity
        got = await open_loop(rate, seconds, ask)
        rows.append(
            [
                f"{factor:g}x",
                f"{rate:.1f}",
                f"{got.steady / (0.75 * seconds):.1f}",
                milliseconds(got.answered, 50),
                milliseconds(got.answered, 99),
                f"{len(got.refused) / seconds:.1f}",
                milliseconds(got.refused, 50),
                milliseconds(got.refused, 99),
                str(got.failed),
            ]
        )
    print(aligned(header, rows, right=range(1, len(header))))
    number = iter(range(10**9))
    await open_loop(
        2 * capacity, seconds / 2, lambda: request(post, body, leave_after=0.05 if next(number) % 5 else None)
    )
    print(f"after 80 % left early: {await closed_loop(64, seconds, ask):,.1f} images per second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model file or run folder")
    parser.add_argument("--seconds", type=float, default=20, help="per rate (default: %(default)s)")
    parser.add_argument("--side", type=int, default=400, help="pixels per side of the JPEG sent (default: %(default)s)")
    arguments = parser.parse_args()
    image = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (arguments.side // 8, arguments.side // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((arguments.side, arguments.side), Image.Resampling.BICUBIC).save(image, "JPEG")
    words = [sys.executable, "-m", "reinception", "serve", arguments.model, "--port", str(PORT)]
    server = subprocess.Popen(words)
    try:
        # Clients have machines of their own elsewhere: here they must not wait for a core that the server computes on.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)
        asyncio.run(measure(arguments.seconds, image.getvalue()))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
