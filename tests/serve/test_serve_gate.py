"""Who may ask: Host names, origins, tokens, and a page behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_helpers import RunningServer


def status(server: RunningServer, *headers: str, line: str = "GET /v1/models HTTP/1.1") -> int:
    """The status for exactly these header lines."""
    answer = server.raw("\r\n".join([line, *headers, "Connection: close", "", ""]).encode("utf-8"))
    return int(answer.split()[1])


ALLOWED = ("[::1]", "[::1]:8000", "LOCALHOST:8000", "localhost", "127.0.0.1", "127.0.0.1:80")
REFUSED = (
    *(
        "[::1]evil",
        "[::1]]x",
        "[::1]:²",
        "[::1][:80",
        "localhost:8000:1",
        "",
        "localhost.",
        "evil.example",
        "localhost.evil.example",
    ),
    *("127.0.0.1.evil.example", "10.0.0.1", "localhost:99999", "localhost@evil.example", "0x7f.1", "2130706433"),
)


@pytest.mark.parametrize("host", ALLOWED)
def test_a_name_of_this_machine_is_answered(server: RunningServer, host: str) -> None:
    assert status(server, f"Host: {host}") == 200


@pytest.mark.parametrize("host", REFUSED)
def test_any_other_name_is_refused(server: RunningServer, host: str) -> None:
    assert status(server, f"Host: {host}") in (400, 421)


def test_a_request_names_its_host_once(server: RunningServer) -> None:
    assert status(server, "Host: localhost", "Host: localhost") == 400
    assert status(server, "X-Nothing: 1") == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost", "http://localhost:1", "file://", "\x01"]
)
def test_a_page_of_another_origin_is_refused_and_told_why(server: RunningServer, origin: str) -> None:
    assert status(server, "Host: localhost", f"Origin: {origin}") in (400, 403)


def test_the_page_itself_is_answered(server: RunningServer) -> None:
    own = f"localhost:{server.port}"
    assert status(server, f"Host: {own}", f"Origin: http://{own}", "Sec-Fetch-Site: same-origin") == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_foreign_page_embeds_is_refused_but_a_link_to_the_page_works(server: RunningServer, site: str) -> None:
    base = ("Host: localhost", f"Sec-Fetch-Site: {site}")
    for kind in ("image", "iframe", "empty", "script"):
        assert status(server, *base, f"Sec-Fetch-Dest: {kind}") == 403
    assert status(server, *base, "Sec-Fetch-Dest: document", line="GET / HTTP/1.1") == 200


def test_forwarded_headers_change_nothing(server: RunningServer) -> None:
    forged = ("X-Forwarded-For: 1.2.3.4:1024, ::1", "X-Forwarded-Proto: https", "Forwarded: for=_x;host=evil")
    assert status(server, "Host: localhost", *forged) == 200
    assert status(server, "Host: evil.example", "X-Forwarded-Host: localhost") == 421


SECRET = "s3cret-of-the-test"


@pytest.fixture(scope="module")
def guarded(served_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With a token, behind a proxy at /tools/x of https://tools.example, and metrics elsewhere."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(SECRET + "\n")
    words = ("--token-file", folder / "token", "--root-path", "/tools/x", "--origin", "https://tools.example")
    words = (served_file, *words, "--allowed-hosts", "tools.example")
    running = RunningServer(words, folder / "log").wait_until_ready()
    yield running
    assert running.stop() == 0


def test_without_the_token_there_is_only_the_page_and_its_health(guarded: RunningServer, images: list[bytes]) -> None:
    for path in ("/", "/healthz", "/readyz", "/page/page.css", "/openapi.json"):
        assert guarded.get(path).status == 200
    for path in ("/v1/models", "/metrics", "/v2", "/v2/models/cells", "/nothing"):
        assert guarded.get(path).status == 401
    for wrong in (
        "",
        "Bearer",
        "Bearer x",
        f"bearer {SECRET}",
        f"Bearer {SECRET}x",
        f"Bearer {SECRET} ",
        "Bearer \xff",
    ):
        answer = guarded.ask("POST", "/v1/predict", images[0], {"Content-Type": "image/png", "Authorization": wrong})
        assert answer.status == 401 or wrong.endswith(" ")
    right = {"Content-Type": "image/png", "Authorization": f"Bearer {SECRET}"}
    assert guarded.ask("POST", "/v1/predict", images[0], right).status == 200
    assert guarded.ask("POST", "/v1/reload", b"", right).json["models"][0]["status"] == "unchanged"
    assert SECRET not in guarded.said


def test_behind_a_proxy_the_path_may_be_stripped_or_not(guarded: RunningServer) -> None:
    for path in ("/tools/x/", "/", "/tools/x/page/page.js", "/page/page.js", "/tools/x/healthz"):
        assert guarded.get(path).status == 200
    assert guarded.get("/tools/x").headers["location"] == "/tools/x/"
    assert guarded.get("/tools/xy/").status == 401


def test_https_outside_and_http_inside_needs_the_public_origin(guarded: RunningServer, server: RunningServer) -> None:
    token = f"Authorization: Bearer {SECRET}"
    assert status(guarded, "Host: tools.example", "Origin: https://tools.example", token) == 200
    assert status(guarded, "Host: tools.example", "Origin: https://other.example", token) == 403
    answer = server.get("/v1/models", {"Origin": "https://localhost"}).json["error"]["message"]
    assert "https://localhost" in answer
    assert f"http://127.0.0.1:{server.port}" in answer
