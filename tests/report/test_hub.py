"""push and pull against a small server that speaks the hub's protocol: what is sent is what comes back."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import Command
from processes import READ_ONLY, SOAK, surrounded
from reinception.model.artifact import load
from reinception.report.hub import manifest_card

pytest.importorskip("huggingface_hub")
COMMIT = "c0ffee0123456789c0ffee0123456789c0ffee01"
TOKEN = "hf_of_the_test"


class _Hub(http.server.BaseHTTPRequestHandler):
    """Repositories in memory; each file is sent with the commit itself."""

    repositories: dict[str, dict[str, bytes]]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, document: Any = None, status: int = 200, **headers: str) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, kind: str) -> None:
        self._answer({"error": kind}, 404, X_Error_Code=kind, X_Error_Message=kind)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.strip("/").split("/")
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer({"error": "no"}, 401)
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}" if told.get("organization") else f"me/{told['name']}"
            self.repositories.setdefault(name, {})
            self._answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif parts[4] == "preupload":
            files = [one["path"] for one in json.loads(body)["files"]]
            self._answer({"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in files]})
        elif parts[4] == "commit":
            files = self.repositories["/".join(parts[2:4])]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{COMMIT}"
            self._answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        else:
            self._missing("EntryNotFound")

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[0] == "api"
        name = "/".join(parts[2:4] if is_api else parts[:2])
        files = self.repositories.get(name)
        revision = parts[-1] if is_api and len(parts) > 5 else parts[3] if not is_api and len(parts) > 3 else "main"
        if files is None:
            self._missing("RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._missing("RevisionNotFound")
        elif is_api:
            self._answer(
                {
                    "_id": "1",
                    "id": name,
                    "modelId": name,
                    "sha": COMMIT,
                    "private": False,
                    "siblings": [],
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                }
            )
        elif (content := files.get(parts[-1])) is None:
            self._missing("EntryNotFound")
        else:
            self.send_response(200)
            etag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, dict[str, bytes]]]:
    """What the repositories of a running hub hold; commands of the test use that hub."""
    _Hub.repositories = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield _Hub.repositories
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_comes_back_as_it_was_sent(
    hub: dict[str, dict[str, bytes]], command: Command, place: Path, tmp_path: Path
) -> None:
    model = place / "model.safetensors"
    sent = command("push", model, "me/cells")
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout.strip().endswith(f"/me/cells/commit/{COMMIT}")
    assert set(hub["me/cells"]) == {"model.safetensors", "README.md"}
    assert hub["me/cells"]["model.safetensors"] == model.read_bytes()
    back = command("pull", "me/cells", "-o", tmp_path / "back.safetensors")
    assert back.returncode == 0, back.stderr
    assert back.stdout.strip() == f"{tmp_path / 'back.safetensors'}: me/cells at {COMMIT}"
    assert (tmp_path / "back.safetensors").read_bytes() == model.read_bytes()
    again = command("pull", "me/cells", "-o", tmp_path / "back.safetensors")
    assert again.returncode == 1 and "back.safetensors" in again.stderr


def test_a_run_is_sent_with_its_card_and_never_over_another_unasked(
    hub: dict[str, dict[str, bytes]], command: Command, small_run: Path
) -> None:
    assert command("push", small_run, "me/cells", "--private").returncode == 0
    assert hub["me/cells"]["README.md"].decode() == (small_run / "MODEL_CARD.md").read_text()
    refused = command("push", small_run, "me/cells")
    assert refused.returncode == 1 and "--replace sends a newer revision" in refused.stderr
    assert command("push", small_run, "me/cells", "--replace").returncode == 0


def test_what_goes_wrong_is_one_line(
    hub: dict[str, dict[str, bytes]], command: Command, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = place / "model.safetensors", tmp_path / "out.safetensors"
    hub["me/other"] = {"model.safetensors": b"something else"}
    hub["me/empty"] = {}
    shutil.copy(model, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:-100])
    cases: list[tuple[tuple[object, ...], int, str]] = [
        (("pull", "me/none", "-o", out), 1, "no such repository"),
        (("pull", "me/empty", "-o", out), 1, "holds no model.safetensors"),
        (("pull", "me/other", "-o", out), 1, "its model.safetensors cannot be used"),
        (("pull", "me/other", "--revision", "v9", "-o", out), 1, "no such revision"),
        (("pull", "other", "-o", out), 2, "a repository is OWNER/NAME"),
        (("push", tmp_path / "cut.safetensors", "me/cells"), 1, "cut.safetensors"),
    ]
    for words, code, said in cases:
        done = command(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert said in done.stderr
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    refused = command("push", model, "me/cells")
    assert refused.returncode == 1 and "token" in refused.stderr
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    unreachable = command("pull", "me/cells", "-o", out)
    assert unreachable.returncode == 1 and "cannot be reached" in unreachable.stderr
    assert set(hub) == {"me/other", "me/empty"}
    assert not out.exists() and not [one for one in tmp_path.iterdir() if one.name.startswith("tmp")]


def test_the_card_of_a_lone_file_says_what_its_manifest_does(place: Path) -> None:
    text = manifest_card(load(place / "model.safetensors").manifest)
    assert text.startswith("---\nlibrary_name: reinception\n") and "- defective\n- functional\n" in text


@SOAK
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_push_and_pull_work_where_everything_but_the_result_is_read_only(
    hub: dict[str, dict[str, bytes]], place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    script = (
        'export HF_HOME="$HOME/hf"; '
        '"$3" -m reinception push "$2" me/cells && "$3" -m reinception pull me/cells -o /mnt/back.safetensors'
    )
    words = (out, place / "model.safetensors", sys.executable)
    done = surrounded(READ_ONLY, script, *words, environment={"HOME": "/srv"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "back.safetensors").read_bytes() == (place / "model.safetensors").read_bytes()
