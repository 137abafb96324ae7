"""--to web: a static folder in which a browser runs the model: the page, onnxruntime-web and one known answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from reinception.errors import ReinceptionError
from reinception.export.check_images import bundled
from reinception.files import cache_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
_SPEC = f"{PACKAGE}@{VERSION}"
# Both builds: WebGPU's needs a script of its own, and WebAssembly alone is smaller and works without it.
_RUNTIME_FILES = (
    "dist/ort.webgpu.min.mjs",
    "dist/ort-wasm-simd-threaded.asyncify.mjs",
    "dist/ort-wasm-simd-threaded.asyncify.wasm",
    "dist/ort.wasm.min.mjs",
    "dist/ort-wasm-simd-threaded.mjs",
    "dist/ort-wasm-simd-threaded.wasm",
)
_PAGE_FILES = ("index.html", "page.css", "page.js", "worker.js", "icon.svg")
_MOST_BYTES = 200 << 20
_NPM_SECONDS = 600


def write_page(folder: Path, metadata: Mapping[str, Any], runtime: Mapping[str, bytes]) -> None:
    """Adds to `folder`, which holds model.onnx, the page, `runtime` in ort/, model.json and the image it describes.

    The page classifies that image first, and does not use a device whose answer is off by more than 0.01 from that of
    the same file in ONNX Runtime.
    """
    page = files("reinception.export") / "web"
    for name in _PAGE_FILES:
        (folder / name).write_bytes((page / name).read_bytes())
    (folder / "ort").mkdir()
    for name, content in runtime.items():
        (folder / "ort" / Path(name).name).write_bytes(content)
    image = min(bundled().pixels, key=lambda pixels: pixels.size)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    probabilities = np.asarray(session.run(["probabilities"], {"images": image[None]})[0])[0]
    height, width = image.shape[:2]
    alpha = np.full((height, width, 1), 255, dtype=np.uint8)
    (folder / "check.rgba").write_bytes(np.concatenate([image, alpha], axis=2).tobytes())
    check = {"width": width, "height": height, "probabilities": probabilities.astype(float).tolist()}
    told = {name: value for name, value in metadata.items() if name != "classes"}
    document = {**told, "runtime": _SPEC, "check": check}
    (folder / "model.json").write_text(json.dumps(document), encoding="utf-8")


def web_runtime(where: str | None) -> dict[str, bytes]:
    """The files of onnxruntime-web that the page needs, by name.

    Args:
        where: the unpacked npm package or its .tgz; the word npm, which fetches it and keeps it in the cache folder;
            None for what is kept there.

    Raises:
        ReinceptionError: it is not there, another package or version, or npm cannot fetch it. One line says what to do.
    """
    kept = cache_folder() / f"{PACKAGE}-{VERSION}.tgz"
    if where == "npm":
        if not kept.is_file():
            _fetch(kept)
        where = str(kept)
    elif where is None:
        if not kept.is_file():
            raise ReinceptionError(
                f"export to web needs the npm package {_SPEC}: --web-runtime npm fetches it (npm pack), or give its "
                "folder or .tgz by --web-runtime PATH"
            )
        where = str(kept)
    path = Path(where)
    if not path.exists():
        raise ReinceptionError(f"{where}: there is no such folder or file; --web-runtime is {PACKAGE}'s")
    found = _of_folder(path) if path.is_dir() else _of_archive(path)
    try:
        described = json.loads(found.pop("package.json", b"{}"))
        name, version = described.get("name"), described.get("version")
    except (ValueError, AttributeError):
        name = version = None
    if (name, version) != (PACKAGE, VERSION):
        raise ReinceptionError(f"{where}: is {name} {version}; the page was made for {_SPEC}")
    if missing := [one for one in _RUNTIME_FILES if one not in found]:
        raise ReinceptionError(f"{where}: {missing[0]} is missing; get {_SPEC} again")
    return found


def _of_folder(path: Path) -> dict[str, bytes]:
    wanted = [*_RUNTIME_FILES, "package.json"]
    return {name: (path / name).read_bytes() for name in wanted if (path / name).is_file()}


def _of_archive(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("package/")
                if member.isfile() and name in (*_RUNTIME_FILES, "package.json") and member.size < _MOST_BYTES:
                    content = archive.extractfile(member)
                    found[name] = b"" if content is None else content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ReinceptionError(f"{path}: is no whole .tgz file ({error}); get {_SPEC} again") from None
    return found


def _fetch(kept: Path) -> None:
    """Asked for by name: npm fetches the package into the cache folder, and says so."""
    npm = shutil.which("npm")
    if npm is None:
        raise ReinceptionError(f"there is no npm here: fetch {_SPEC} elsewhere and give it by --web-runtime PATH")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = [npm, "pack", _SPEC, "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_NPM_SECONDS)
        except subprocess.TimeoutExpired:
            raise ReinceptionError(f"npm pack {_SPEC} did not end in {_NPM_SECONDS} s; try again") from None
        packed = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or len(packed) != 1:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
            raise ReinceptionError(f"npm pack {_SPEC} failed: {reason}")
        os.replace(packed[0], kept)
