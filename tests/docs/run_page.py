"""Runs what a page asks its reader to type, in order, in the current folder: `python run_page.py PAGE PORT`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

from page_blocks import ROOT, Block, blocks

sys.path.insert(0, str(ROOT / "tests"))
from command import SMALLEST

# Times and sizes of the pages are for real work; the same words with these values take seconds.
SMALLER = {"--time-budget": "1s", "--budget": "1s", "--epochs": "1"}
_PORT_OF_PAGES = "8299"
READY_SECONDS = 60


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, port: str) -> None:
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.port = port
        self.servers: list[subprocess.Popen[bytes]] = []

    def type(self, block: Block) -> None:
        """Run a block; an exception says what did not work."""
        if block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                self.shell(line.strip(), block.code_expected)
        else:
            code = block.code.replace(_PORT_OF_PAGES, self.port)
            exec(compile("\n" * block.line + code, block.where, "exec"), self.names)

    def shell(self, line: str, expected: int) -> None:
        line = line.replace(_PORT_OF_PAGES, self.port)
        words = shlex.split(line, comments=True)
        if not words:
            return
        print(f"$ {line}", flush=True)
        if words[0] == "pip":
            check_extras(words)
        elif words[:2] == ["reinception", "serve"]:
            self.serve(words)
        elif words[0] == "reinception" and not set(words) & {"|", ">", "&", ";", "&&"}:
            self.verb(words[1:], expected)
        else:
            python = shlex.quote(sys.executable)
            shims = f'reinception() {{ {python} -m reinception "$@"; }}\n'
            shims += f'torchrun() {{ {python} -m torch.distributed.run "$@"; }}\n'
            code = subprocess.run(["bash", "-e", "-c", shims + line], check=False, timeout=120).returncode
            assert code == expected, f"{line}: exit code {code}"

    def verb(self, words: list[str], expected: int) -> None:
        """In this process: starting one for each line would be most of the work."""
        from reinception.cli import main

        given = smallest(words) if words[0] == "train" and "--resume" not in words else words
        given = [file for word in given for file in expanded(word)]
        code = main(given)
        assert code == expected, f"{shlex.join(given)}: exit code {code}"

    def serve(self, words: list[str]) -> None:
        given = [sys.executable, "-m", *words, "--workers", "1"]
        given += [] if self.port in words else ["--port", self.port]
        self.servers.append(subprocess.Popen(given))
        end = time.monotonic() + READY_SECONDS
        while True:
            assert self.servers[-1].poll() is None, "the server has ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < end, "the server is not ready"
                time.sleep(0.2)

    def leave(self) -> None:
        """Stop the servers."""
        for server in self.servers:
            server.terminate()
            server.wait(timeout=READY_SECONDS)


def smallest(words: list[str]) -> list[str]:
    """A training command for the shortest time, with the smallest network unless it names a size of its own."""
    kept, rest = [], iter(words)
    for word in rest:
        kept += [word, SMALLER.get(word, next(rest))] if word in SMALLER else [word]
    if not set(SMALLER) & set(kept):
        kept += ["--epochs", "1"]
    flags = dict(zip(SMALLEST[::2], SMALLEST[1::2], strict=True))
    has_size = set(kept) & {"--width", "--input-size", "--weights", "--teacher"}
    wanted = {name: value for name, value in flags.items() if not has_size or name not in ("--width", "--input-size")}
    return [*kept, *(word for name, value in wanted.items() if name not in kept for word in (name, value))]


def expanded(word: str) -> list[str]:
    """A pattern as the shell expands it."""
    return sorted(map(str, Path().glob(word))) or [word] if re.search(r"[*?]", word) else [word]


def check_extras(words: list[str]) -> None:
    """Every extra that a line of pip names is one of ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        for extra in re.findall(r"reinception\[(.*?)\]", word):
            assert set(extra.split(",")) <= set(project["optional-dependencies"]), word


def main() -> int:
    page, port = Path(sys.argv[1]), sys.argv[2]
    os.environ["COLUMNS"] = "100"
    reader = Reader(port)
    try:
        for block in blocks(page):
            if not block.reason:
                print(f"# {block.where}", flush=True)
                reader.type(block)
    finally:
        reader.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
