"""/v1: answers equal those of `predict`, each client gets its own, and what is wrong is said in one sentence."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import PNG, RunningServer, multipart

import reinception as ri
from reinception.inference.features import ImageFeatures


@pytest.fixture(scope="module")
def expected(served_file: Path, solar_cells: Path) -> list[dict[str, float]]:
    """What `predict` says of each image with as many images as the server may get: probability by label."""
    answers = ri.Predictor(served_file, precision="fp32")(sorted(solar_cells.rglob("*.png")))
    return [{one.label: one.probability for one in answer.labels} for answer in answers]


def probabilities(labels: list[dict[str, Any]]) -> dict[str, float]:
    return {one["label"]: one["probability"] for one in labels}


def test_answers_equal_those_of_predict_under_32_clients(
    server: RunningServer, images: list[bytes], expected: list[dict[str, float]]
) -> None:
    assert len({tuple(one.values()) for one in expected}) == len(images)  # so that a swapped answer is seen

    def ask(number: int) -> tuple[int, Any]:
        return number, server.post("/v1/predict?top=3", images[number % 32])

    with ThreadPoolExecutor(32) as clients:
        for number, answer in clients.map(ask, range(200)):
            assert answer.status == 200, answer.body
            (one,) = answer.json["predictions"]
            assert probabilities(one["labels"]) == pytest.approx(expected[number % 32], abs=1e-6)
    assert server.metric("batch_images_sum") > server.metric("batch_images_count")  # some were computed together


def test_several_images_come_as_multipart_and_a_bad_one_costs_only_itself(
    server: RunningServer, images: list[bytes], expected: list[dict[str, float]]
) -> None:
    body, headers = multipart(*images[:15], b"not an image", images[15])
    answer = server.ask("POST", "/v1/predict?top=3", body, headers)
    assert answer.status == 200
    found = answer.json["predictions"]
    assert [one["name"] for one in found] == [f"{i}.png" for i in range(17)]
    assert found[15]["error"]["code"] == "not_an_image"
    good = [one for i, one in enumerate(found) if i != 15]
    for one, right in zip(good, expected, strict=False):
        assert one["error"] is None
        assert probabilities(one["labels"]) == pytest.approx(right, abs=1e-6)


def test_fifteen_clients_are_answered_beside_one_with_a_bad_image(server: RunningServer, images: list[bytes]) -> None:
    bodies = [*images[:15], images[0][:2000]]
    with ThreadPoolExecutor(16) as clients:
        statuses = list(clients.map(lambda body: server.post("/v1/predict", body).status, bodies))
    assert statuses == [200] * 15 + [400]


def test_features_equal_those_of_the_library(server: RunningServer, served_file: Path, images: list[bytes]) -> None:
    (one,) = server.post("/v1/features", images[0]).json["features"]
    answer = ri.Predictor(served_file, precision="fp32").features(images[0])
    assert isinstance(answer, ImageFeatures)
    right = answer.values
    assert right is not None
    assert one["values"] == pytest.approx(right.tolist(), abs=1e-5)


def test_an_answer_names_the_model_and_its_file(server: RunningServer, images: list[bytes], served_file: Path) -> None:
    import hashlib

    digest = hashlib.sha256(served_file.read_bytes()).hexdigest()[:12]
    assert server.post("/v1/predict", images[0]).json["model"] == {"name": "cells", "hash": digest}
    (model,) = server.get("/v1/models").json["models"]
    assert model["hash"] == digest
    assert model["classes"] == ["cat", "dog", "<b>bird</b>"]


def test_below_the_threshold_the_answer_is_marked(server: RunningServer, images: list[bytes]) -> None:
    for threshold, abstained in ((0, False), (1, True)):
        (one,) = server.post(f"/v1/predict?threshold={threshold}", images[0]).json["predictions"]
        assert one["abstained"] is abstained


def test_a_map_covers_what_the_network_sees(server: RunningServer, images: list[bytes]) -> None:
    (one,) = server.post("/v1/predict?map=1", images[0]).json["predictions"]
    assert one["map"]["box"] == [0.0625, 0.0625, 0.9375, 0.9375]
    assert len(one["map"]["values"]) == len(one["map"]["values"][0]) == 3


BAD_QUERIES = (
    "top=0",
    "top=-1",
    "top=x",
    "top=1e3",
    "threshold=2",
    "threshold=nan",
    "threshold=x",
    "map=2",
    "url=http://x/",
)


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_query_that_makes_no_sense_is_refused(server: RunningServer, images: list[bytes], query: str) -> None:
    answer = server.post(f"/v1/predict?{query}", images[0])
    assert answer.status == 400
    assert set(answer.json["error"]) == {"code", "message"}


NAME = 'Content-Disposition: form-data; name="a"'
BAD_FORMS = {
    "no boundary": ("multipart/form-data", "--x\r\n\r\n\r\nabc\r\n--x--\r\n"),
    "empty boundary": ("multipart/form-data; boundary=", "--\r\n\r\nabc\r\n----\r\n"),
    "boundary of 71": (
        f"multipart/form-data; boundary={'b' * 71}",
        f"--{'b' * 71}\r\n{NAME}\r\n\r\nx\r\n--{'b' * 71}--\r\n",
    ),
    "part without name": (
        "multipart/form-data; boundary=x",
        "--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n",
    ),
    "empty name": (
        "multipart/form-data; boundary=x",
        '--x\r\nContent-Disposition: form-data; name=""\r\n\r\nabc\r\n--x--\r\n',
    ),
    "unknown charset": ("multipart/form-data; boundary=x; charset=klingon", f"--x\r\n{NAME}\r\n\r\n"),
    "truncated": ("multipart/form-data; boundary=x", f"--x\r\n{NAME}\r\n\r\nabc"),
    "header without colon": ("multipart/form-data; boundary=x", "--x\r\nno colon here\r\n\r\nabc\r\n--x--\r\n"),
    "empty": ("multipart/form-data; boundary=x", "--x--\r\n"),
    "another boundary": ("multipart/form-data; boundary=x", f"--y\r\n{NAME}\r\n\r\nabc\r\n--y--\r\n"),
}


@pytest.mark.parametrize("what", BAD_FORMS)
def test_a_broken_form_is_a_400_in_one_sentence(server: RunningServer, what: str) -> None:
    kind, body = BAD_FORMS[what]
    answer = server.ask("POST", "/v1/predict", body.encode(), {"Content-Type": kind})
    assert answer.status == 400, answer.body
    assert answer.code == "multipart"


def test_more_images_than_allowed_are_refused(server: RunningServer, images: list[bytes]) -> None:
    body, headers = multipart(*[b"x"] * 65)
    assert server.ask("POST", "/v1/predict", body, headers).status == 413


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/mixed; boundary=x"])
def test_what_a_foreign_form_could_send_is_refused(server: RunningServer, images: list[bytes], kind: str) -> None:
    assert server.ask("POST", "/v1/predict", images[0], {"Content-Type": kind}).status == 415


def test_a_name_is_not_repeated_by_an_error(server: RunningServer, images: list[bytes]) -> None:
    for path in ("/v1/predict?model=%3Cscript%3E", "/v2/models/%3Cscript%3E", "/%3Cscript%3E"):
        answer = server.post(path, images[0]) if "v1" in path else server.get(path)
        assert answer.status == 404
        assert b"script" not in answer.body


def test_head_answers_as_get_without_a_body(server: RunningServer) -> None:
    for path in ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        get, head = server.get(path), server.ask("HEAD", path)
        assert (head.status, head.body) == (get.status, b"")
        varying = {"date"}
        assert {k: v for k, v in head.headers.items() if k not in varying} == {
            k: v for k, v in get.headers.items() if k not in varying
        }


def test_unknown_paths_methods_and_models_make_no_new_series(server: RunningServer) -> None:
    for method in ("BREW", "DELETE"):
        server.ask(method, "/nothing")
    lines = len(server.get("/metrics").body.splitlines())
    for number in range(200):
        server.ask(f"M{number}" if number % 3 == 0 else "GET", f"/{number}")
        server.get(f"/v2/models/{number}")
    assert len(server.get("/metrics").body.splitlines()) <= lines + 4  # a status seen for the first time


def test_every_route_is_documented_and_every_example_of_the_document_works(server: RunningServer) -> None:
    document = server.get("/openapi.json").json
    for path, methods in document["paths"].items():
        for method in set(methods) - {"parameters"}:
            real = path.replace("{name}", "cells")
            status = server.ask(method.upper(), real, b"" if method == "post" else None).status
            assert status not in (404, 405, 500), (method, path)
    assert json.dumps(document).count("summary") >= 13


def test_the_commands_of_the_guide_work(server: RunningServer, images: list[bytes], tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "serve.md").read_text()
    commands = re.findall(r"^curl .*$", guide, re.MULTILINE)
    assert len(commands) == 4
    for name in ("photo.png", "a.png", "b.png"):
        (tmp_path / name).write_bytes(images[0])
    for line in commands:
        words = shlex.split(line.replace("127.0.0.1:8299", f"127.0.0.1:{server.port}"))
        result = subprocess.run([*words, "-sSf"], cwd=tmp_path, capture_output=True, check=False)
        assert result.returncode == 0, (line, result.stderr)
        assert json.loads(result.stdout)


def test_the_page_asks_nobody_else_and_names_no_absolute_path(server: RunningServer) -> None:
    for name in ("", "api", "page/page.css", "page/page.js", "page/api.js", "page/icon.svg"):
        answer = server.get(f"/{name}")
        assert answer.status == 200
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.findall(r"https?://|(?:src|href)=\"/|fetch\(\"/|url\(", text)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_only_files_of_the_page_are_served(server: RunningServer) -> None:
    for path in ("/page/../app.py", "/page/%2e%2e%2fapp.py", "/page/app.py", "/page/", "/v1/samples/99"):
        assert server.get(path).status == 404
    assert server.get("/v1/samples/0").headers["content-type"] == "image/png"


def test_reload_needs_a_token(server: RunningServer) -> None:
    assert server.ask("POST", "/v1/reload", b"", PNG).code == "no_token"
