"""The static page of `--to web` in a real Chromium: the same answers as `predict`, from any file server, alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.export.check_images import bundled
from reinception.export.deliver import Export, export
from reinception.export.web_page import PACKAGE, VERSION, web_runtime
from reinception.inference.predictor import Predictor
from reinception.model.artifact import Manifest, save
from reinception.preprocess import Preprocessing
from reinception.rewrite.check import random_network

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
CLASSES = ("temple", "flower", "<b>Ä</b>", "a", "A")
IMAGES = dict(zip(bundled().names, bundled().pixels, strict=True))
DROP = """(files) => {
  const data = new DataTransfer();
  for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
  const at = document.querySelector("#drop");
  for (const kind of ["dragenter", "dragover", "drop"])
    at.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
RESULTS = "() => [...document.querySelectorAll('article')].map((one) => one.result).filter(Boolean)"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """onnxruntime-web from npm, kept in the user's cache as the command keeps it."""
    try:
        web_runtime("npm")
    except ReinceptionError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("npm")
    for name, content in (
        web_runtime(None) | {"package.json": json.dumps({"name": PACKAGE, "version": VERSION}).encode()}
    ).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    yield folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = family.network("inception_v3", width=0.1, num_classes=len(CLASSES), input_size=139, aux="none")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    preprocessing = Preprocessing(input_size=139)
    save(random_network(arch), path, Manifest(arch=arch, classes=CLASSES, preprocessing=preprocessing))
    return path


@pytest.fixture(scope="module")
def folder(model: Path, runtime: Path) -> Path:
    out = model.with_name("web")
    parity = export(model, out, Export(to="web", precision="fp16", web_runtime=str(runtime)))
    assert parity.top1_agreement == 1.0
    return out


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _WrongTypes(_Quiet):
    """A server that knows neither .mjs nor .wasm would still have to send scripts as scripts."""

    extensions_map = {**_Quiet.extensions_map, ".wasm": "text/plain", ".onnx": "text/plain"}  # noqa: RUF012


class _SinglePage(_Quiet):
    """A host that answers unknown addresses with its index page, as those of single-page applications do."""

    def send_head(self) -> Any:
        if self.path.endswith(".wasm"):
            self.path = "/index.html"
        return super().send_head()


@contextlib.contextmanager
def serving(folder: Path, handler: type[http.server.SimpleHTTPRequestHandler] = _Quiet) -> Iterator[str]:
    """The address of a server of these files."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


class Visit:
    """A page and what it said on the console and asked for."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page = self.context.new_page()
        self.page.on("console", lambda one: self.said.append(one.text) if one.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(address)

    def drop(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        self.page.evaluate(DROP, [[name, list(content)] for name, content in files.items()])
        self.page.wait_for_function(
            "() => / done[.;]/.test(document.querySelector('#status').textContent)", timeout=120_000
        )
        return self.page.evaluate(RESULTS)


def encoded(pixels: np.ndarray, kind: str = "PNG", **how: Any) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def dropped() -> dict[str, bytes]:
    names = ("bundled china, whole", "bundled flower, odd", "bundled flower, turned")
    return {f"{name}.png": encoded(IMAGES[name]) for name in names}


@in_browser
@pytest.mark.parametrize("handler", [_Quiet, _WrongTypes], ids=["plain server", "wrong types"])
def test_three_images_get_the_answers_of_predict(
    folder: Path, model: Path, browser: Any, tmp_path: Path, handler: Any
) -> None:
    files = dropped()
    (tmp_path / "deeper").symlink_to(folder)  # an address below the root
    with serving(tmp_path, handler) as root:
        address = f"{root}deeper/"
        visit = Visit(browser, address)
        found = {one["name"]: one["probabilities"] for one in visit.drop(files)}
    predictor = Predictor(model, precision="fp32")
    for name, content in files.items():
        (wanted,) = predictor([content])
        assert wanted.probabilities is not None
        assert int(np.argmax(found[name])) == int(np.argmax(wanted.probabilities))
        assert np.abs(np.array(found[name]) - wanted.probabilities).max() < 1e-2
    assert visit.said == []
    assert len(visit.asked) > 8 and all(url.startswith((address, f"blob:{address[:20]}")) for url in visit.asked), (
        visit.asked
    )
    assert visit.page.locator("article h2").count() == 3
    assert visit.page.locator("article b").count() == 15
    print(visit.page.locator("#status").inner_text())
    visit.context.close()


@in_browser
def test_turned_grey_and_transparent_files_are_read_as_in_python(folder: Path, model: Path, browser: Any) -> None:
    pixels = IMAGES["bundled china, odd"]
    exif = Image.Exif()
    files = {"grey.png": encoded(pixels[:, :, 0])}
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        files[f"turned {orientation}.jpg"] = encoded(pixels, "JPEG", quality=95, exif=exif.tobytes())
    alpha = np.full((*pixels.shape[:2], 1), 255, dtype=np.uint8)
    alpha[: len(alpha) // 2] = 0
    files["transparent.png"] = encoded(np.concatenate([pixels, alpha], axis=2))
    with serving(folder) as address:
        visit = Visit(browser, address)
        found = {one["name"]: np.array(one["probabilities"]) for one in visit.drop(files)}
    predictor = Predictor(model, precision="fp32")
    for name, content in files.items():
        (wanted,) = predictor([content])
        assert wanted.probabilities is not None, wanted.error
        assert np.abs(found[name] - wanted.probabilities).max() < 1e-2, name
    assert visit.said == []
    visit.context.close()


@in_browser
def test_a_file_that_is_no_image_is_named_and_the_rest_counts(folder: Path, browser: Any) -> None:
    with serving(folder) as address:
        visit = Visit(browser, address)
        results = visit.drop({"text.png": b"no image", "one.png": encoded(IMAGES["bundled china, small"])})
    assert [one["name"] for one in results] == ["one.png"]
    assert "no image that the browser can read" in visit.page.locator("article.failed li").inner_text()
    visit.context.close()


@in_browser
def test_a_host_that_sends_its_index_page_for_the_runtime_is_explained(folder: Path, browser: Any) -> None:
    with serving(folder, _SinglePage) as address:
        visit = Visit(browser, address)
        visit.page.wait_for_selector("#status.bad")
    assert "is not WebAssembly: this server answers with another file" in visit.page.locator("#status").inner_text()
    visit.context.close()


@in_browser
def test_a_device_that_answers_wrongly_is_not_used(folder: Path, browser: Any, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    described = tmp_path / "copy" / "model.json"
    about = json.loads(described.read_text())
    about["check"]["probabilities"] = about["check"]["probabilities"][::-1]
    described.write_text(json.dumps(about))
    with serving(tmp_path / "copy") as address:
        visit = Visit(browser, address)
        visit.page.wait_for_selector("#status.bad")
    assert "the answer to a known image is off by" in visit.page.locator("#status").inner_text()
    visit.context.close()


# -- the runtime, which is fetched only when asked for ----------------------------------------------------------------


def test_nothing_is_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        ReinceptionError, match=f"needs the npm package {PACKAGE}@{VERSION}: --web-runtime npm fetches it"
    ):
        export(model, tmp_path / "out", Export(to="web", precision="fp16"))
    assert not list(tmp_path.iterdir())


def test_another_package_another_version_and_damage_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"name": PACKAGE, "version": "1.0.0"}))
    with pytest.raises(ReinceptionError, match=f"is {PACKAGE} 1.0.0; the page was made for {PACKAGE}@{VERSION}"):
        web_runtime(str(tmp_path))
    (tmp_path / "package.json").write_text(json.dumps({"name": PACKAGE, "version": VERSION}))
    with pytest.raises(ReinceptionError, match=r"ort\.webgpu\.min\.mjs is missing"):
        web_runtime(str(tmp_path))
    with tarfile.open(tmp_path / "some.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package.json", "package/package.json")
    with pytest.raises(ReinceptionError, match="is missing"):
        web_runtime(str(tmp_path / "some.tgz"))
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "some.tgz").read_bytes()[:60])
    with pytest.raises(ReinceptionError, match=r"no whole \.tgz file"):
        web_runtime(str(tmp_path / "cut.tgz"))
    with pytest.raises(ReinceptionError, match="no such folder or file"):
        web_runtime(str(tmp_path / "none"))


def test_what_a_page_cannot_do_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="leave --features out"):
        Export(to="web", features=True)
    with pytest.raises(UsageError, match="browsers have no bf16"):
        Export(to="web", precision="bf16")
    with pytest.raises(UsageError, match="only --to web takes --web-runtime"):
        Export(web_runtime="npm")


def test_the_map_is_that_of_the_library(folder: Path, model: Path) -> None:
    import onnxruntime
    import torch

    from reinception.inference.class_activation import class_activation
    from reinception.model.artifact import load

    loaded = load(model)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    image = np.ascontiguousarray(IMAGES["bundled china, whole"][:139, :139])
    whole = dataclasses.replace(loaded.preprocessing, resize="central_crop", crop_fraction=0.875)
    assert loaded.preprocessing == whole
    probabilities, found = (np.asarray(one) for one in session.run(None, {"images": image[None]}))
    from reinception.data.images.crops import evaluation_pixels

    pixels = torch.from_numpy(evaluation_pixels(image, whole)).permute(2, 0, 1)[None].float() / 255
    inputs = (pixels - torch.tensor(whole.mean).view(3, 1, 1)) / torch.tensor(whole.std).view(3, 1, 1)
    wanted = class_activation(loaded.network.eval(), inputs, torch.tensor([int(probabilities[0].argmax())]))
    assert found.shape == tuple(wanted.shape)
    wanted = wanted.detach()
    assert np.abs(found - wanted.numpy()).max() < 0.02 * float(wanted.abs().max())
