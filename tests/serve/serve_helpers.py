"""A real server in a process of its own, and the ways of asking it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import reinception as ri
from processes import Before, ends, free_port, start

PNG = {"Content-Type": "image/png"}


def write_model(
    path: Path, images: Path, *, seed: int = 0, classes: tuple[str, ...] = ("cat", "dog", "<b>bird</b>")
) -> Path:
    """A small network with random weights whose answers differ from image to image: its statistics are those of
    real images, and its last layer is scaled so that probabilities differ too."""
    torch.manual_seed(seed)
    network = ri.create("inception_v3", num_classes=len(classes), width=0.1, input_size=139, aux="none")
    preprocessing = ri.Preprocessing(input_size=139)
    from PIL import Image

    from reinception.data.loading.loader import normalise

    shown = [Image.open(one).convert("RGB").resize((139, 139)) for one in sorted(images.rglob("*.png"))[:16]]
    batch = torch.stack([torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8) for one in shown])
    inputs = normalise(batch.view(-1, 139, 139, 3).permute(0, 3, 1, 2), preprocessing)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the average over all batches seen
    with torch.no_grad():
        network.train()(inputs)
        features = network.eval().features(inputs)
        spread = features.std(dim=0).mean()
        network.classifier.weight.mul_(0.3 / (spread * network.classifier.weight.norm(dim=1, keepdim=True)))
        network.classifier.bias.copy_(-(features.mean(dim=0) @ network.classifier.weight.T))
    ri.save(network, path, ri.Manifest(arch=network.arch, classes=classes, preprocessing=preprocessing))
    return path


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


@dataclass
class RunningServer:
    """`reinception serve` on a free port of this machine."""

    words: tuple[object, ...]
    log: Path
    before: Before | None = None
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.process = start(["serve", *self.words, "--port", self.port], self.log, before=self.before)

    def wait_until_ready(self, seconds: float = 120) -> RunningServer:
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.is_alive():
            try:
                if self.get("/readyz").status == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"the server is not ready: {self.said}")

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def decoders(self) -> list[int]:
        """The processes that decode."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(one) for one in children if b"decoder_process" in Path(f"/proc/{one}/cmdline").read_bytes()]

    def metric(self, name: str) -> float:
        text = self.get("/metrics").body.decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"reinception_{name}"))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 60,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] = PNG) -> Answer:
        return self.ask("POST", path, body, headers)

    def connect(self, seconds: float = 30) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def raw(self, data: bytes, seconds: float = 30) -> bytes:
        """All that comes back for these bytes, until the server closes."""
        with self.connect(seconds) as one:
            one.sendall(data)
            return everything(one)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, seconds: float = 60) -> int | None:
        if self.process.is_alive():
            self.signal(signal.SIGTERM)
        return ends(self.process, timeout=seconds)[0]


def everything(one: socket.socket) -> bytes:
    found = b""
    try:
        while part := one.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found


def multipart(*images: bytes, boundary: str = "xyz") -> tuple[bytes, dict[str, str]]:
    """A multipart body and its header."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{i}.png"\r\n\r\n'.encode()
        + one
        + b"\r\n"
        for i, one in enumerate(images)
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


Start = Callable[..., RunningServer]
"""What the fixture `starting` gives: words of the command, `before`, `model`."""
