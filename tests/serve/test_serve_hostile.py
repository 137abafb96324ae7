"""Hostile HTTP over raw sockets: no crash, bounded memory, refusals that can be read, ready again at once."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image
from serve_helpers import RunningServer, everything

HEAD = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


@pytest.fixture(autouse=True)
def ready_again(server: RunningServer) -> object:
    """Whatever a test did, the server is ready at once."""
    yield None
    assert server.get("/readyz").status == 200


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def memory_mib(server: RunningServer) -> float:
    text = Path(f"/proc/{server.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def send_while_it_lasts(one: socket.socket, chunk: bytes, num: int) -> int:
    """How many of `num` chunks the server took before it closed."""
    for number in range(num):
        try:
            one.sendall(chunk)
        except OSError:
            return number
    return num


def test_a_body_over_the_limit_gets_a_whole_413_while_it_is_still_sent(
    server: RunningServer, images: list[bytes]
) -> None:
    for _ in range(5):
        with server.connect() as one:
            one.sendall(f"{HEAD}Content-Length: {20 << 20}\r\n\r\n".encode())
            send_while_it_lasts(one, bytes(1 << 20), 20)  # a client that does not read until it has sent everything
            answer = everything(one)
        assert status(answer) == 413
        assert b"connection: close" in answer.lower()
        assert answer.endswith(b"}}")
    assert server.post("/v1/predict", images[0]).status == 200


def test_a_body_without_an_end_is_cut_off(server: RunningServer) -> None:
    before = memory_mib(server)
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with server.connect() as one:
        one.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert send_while_it_lasts(one, chunk, 10_000) < 1000
    assert memory_mib(server) - before < 150


def test_a_refusal_before_the_body_waits_for_no_body(server: RunningServer) -> None:
    """With `Expect: 100-continue` nothing is sent at all."""
    start = time.monotonic()
    answer = server.raw(f"{HEAD}Content-Length: {20 << 20}\r\nExpect: 100-continue\r\n\r\n".encode())
    assert status(answer) == 413
    assert time.monotonic() - start < 1.5


def test_expect_is_answered_where_the_body_is_wanted(server: RunningServer, images: list[bytes]) -> None:
    with server.connect() as one:
        one.sendall(
            f"{HEAD}Content-Length: {len(images[0])}\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert one.recv(1000).startswith(b"HTTP/1.1 100")
        one.sendall(images[0])
        assert status(everything(one)) == 200


MALFORMED = {
    "both framings": f"{HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two lengths": f"{HEAD}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "negative length": f"{HEAD}Content-Length: -3\r\n\r\nabc",
    "length with a sign": f"{HEAD}Content-Length: +3\r\n\r\nabc",
    "chunk size 0x1": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "chunk size 0_0": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0_0\r\n\r\n",
    "chunk without its line end": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n",
    "two encodings": f"{HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "folded header": "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "NUL in a header": "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "no HTTP": "\x16\x03\x01\x02\0\r\n\r\n",
    "100,000 headers": "GET / HTTP/1.1\r\nHost: localhost\r\n" + "X: y\r\n" * 100_000 + "\r\n",
    "a header of 1 MB": f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {'y' * 1_000_000}\r\n\r\n",
    "a path of 1 MB": f"GET /{'a' * 1_000_000} HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_is_refused_and_the_connection_closed(server: RunningServer, what: str) -> None:
    with server.connect() as one:
        send_while_it_lasts(one, MALFORMED[what].encode("latin-1"), 1)
        answer = everything(one)
    assert not answer or status(answer) in (400, 501, 431), answer[:200]


def test_nothing_smuggled_behind_a_request_is_answered(server: RunningServer) -> None:
    inner = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = server.raw(
        f"{HEAD}Content-Length: {len(inner)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}".encode()
    )
    assert b'"models"' not in answer


def test_an_upgrade_to_h2c_with_a_body_gets_the_answer_for_the_body(server: RunningServer, images: list[bytes]) -> None:
    more = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings, close\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    answer = server.raw(f"{HEAD}{more}Content-Length: {len(images[0])}\r\n\r\n".encode() + images[0])
    assert status(answer) == 200
    assert b'"labels": [{' in answer


def test_chunks_of_one_byte_are_put_together(server: RunningServer, images: list[bytes]) -> None:
    image = io.BytesIO()
    Image.new("L", (8, 8)).save(image, "PNG")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in image.getvalue())
    assert (
        status(
            server.raw(
                f"{HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
            )
        )
        == 200
    )


def test_pipelined_requests_are_answered_in_order(server: RunningServer, images: list[bytes]) -> None:
    head = HEAD.replace("\r\nHost", "\r\nHost", 1)
    one = f"{head}Content-Length: {len(images[0])}\r\n\r\n".encode() + images[0]
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = server.raw(one + one + last)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.endswith(b'{"alive": true}')


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_bombs_and_damaged_images_are_refused_in_one_sentence(server: RunningServer, images: list[bytes]) -> None:
    before = memory_mib(server)
    bombs = {
        "60,000 x 60,000": png(60_000, 60_000, zlib.compress(bytes(1000))),
        "6,000 x 6,000": png(6_000, 6_000, zlib.compress(bytes(6_000 * 18_001))),
        "no pixels": png(0, 0, b""),
        "truncated": images[0][: len(images[0]) // 2],
        "flipped": images[0][:200] + bytes(100) + images[0][300:],
        "text": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "one byte": b"\x89",
        "page": b"<!doctype html><script>alert(1)</script>",
    }
    for what, data in bombs.items():
        answer = server.post("/v1/predict", data)
        assert answer.status in (400, 413), (what, answer.body)
        assert "\n" not in answer.json["error"]["message"]
    assert server.post("/v1/predict", b"").code == "empty"
    assert memory_mib(server) - before < 100


def test_an_image_of_one_pixel_is_answered(server: RunningServer) -> None:
    image = io.BytesIO()
    Image.new("L", (1, 1)).save(image, "PNG")
    assert server.post("/v1/predict", image.getvalue()).status == 200


def test_a_compressed_body_is_refused(server: RunningServer, images: list[bytes]) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    assert server.ask("POST", "/v1/predict", images[0], headers).status == 415


def test_clients_that_leave_free_their_places_and_are_counted(server: RunningServer, images: list[bytes]) -> None:
    before = server.metric("cancelled_total")
    request = f"{HEAD}Content-Length: {len(images[0])}\r\n\r\n".encode() + images[0]
    stay = threading.Thread(target=lambda: [server.post("/v1/predict", images[1]) for _ in range(20)])
    stay.start()
    answered = 0
    for _ in range(40):
        with server.connect() as one:
            one.sendall(request)
            # Leaves without reading; some answers may already be on their way.
    stay.join()
    end = time.monotonic() + 5
    while server.get("/readyz").json["waiting_images"] and time.monotonic() < end:
        time.sleep(0.05)
    assert server.get("/readyz").json["waiting_images"] == 0
    assert server.metric("cancelled_total") - before + answered > 0
    assert server.post("/v1/predict", images[0]).status == 200


def test_control_characters_do_not_reach_the_log(server: RunningServer) -> None:
    server.get("/%1b[2J%0aforged")
    server.get("/v2/models/%1b[2J%0aforged")
    assert "\x1b" not in server.said
    assert "forged" not in server.said


@pytest.mark.slow
def test_slow_heads_and_bodies_are_cut_off(server: RunningServer) -> None:
    """A head has 10 s, and a body may pause for 10 s."""
    connections = [server.connect() for _ in range(20)]
    for number, one in enumerate(connections):
        one.sendall(b"GET / HTTP/1.1\r\nHo" if number % 2 else f"{HEAD}Content-Length: 100\r\n\r\nabc".encode())
    start = time.monotonic()
    answers = [everything(one) for one in connections]
    assert 8 < time.monotonic() - start < 20
    assert [status(answer) for answer in answers[::2]] == [408] * 10
    assert answers[1::2] == [b""] * 10
