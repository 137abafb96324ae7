"""The page in a real Chromium: images in, labels and maps out, nothing from elsewhere, nothing for elsewhere."""

from __future__ import annotations

import csv
import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import RunningServer

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DROP = """([files, target]) => {
  const data = new DataTransfer();
  for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
  const at = document.querySelector(target);
  for (const kind of ["dragenter", "dragover", "drop"])
    at.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
PASTE = """(bytes) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""
Page = Any


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield chromium
    chromium.close()


@pytest.fixture
def page(browser: Any, server: RunningServer) -> Iterator[Page]:
    """The page, which says nothing on the console and asks nobody but this server."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#classes li", state="attached")
    page.asked = asked
    yield page
    context.close()
    # The browser itself notes a refused image on its console.
    assert not [line for line in said if "status of 400" not in line]
    assert all(url.startswith((f"http://127.0.0.1:{server.port}/", "blob:")) for url in asked), asked


def drop(page: Page, files: list[tuple[str, bytes]], target: str = "#drop") -> None:
    page.evaluate(DROP, [[[name, list(data)] for name, data in files], target])


def wait_for_done(page: Page, num: int) -> None:
    until(lambda: page.locator("#status").inner_text().startswith(f"{num} image"), page)


def until(holds: Callable[[], bool], page: Page) -> None:
    """The page's policy forbids playwright's own waiting for a function, which it would evaluate there."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        page.wait_for_timeout(50)


def test_dropped_and_pasted_images_get_labels_maps_and_a_table(
    page: Page, server: RunningServer, images: list[bytes], tmp_path: Path
) -> None:
    drop(page, [(f"{i}.png", images[i]) for i in range(3)])
    wait_for_done(page, 3)
    page.evaluate(PASTE, list(images[3]))
    wait_for_done(page, 4)
    assert sum("v1/predict" in url for url in page.asked) == 4
    assert page.locator("#rows tr").count() == 4
    page.locator("#threshold").fill("0")
    until(lambda: page.evaluate("document.getElementById('image').width") > 1, page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["0.png", "1.png", "2.png", "image.png"]
    for row, data in zip(rows, images, strict=False):
        (best,) = server.post("/v1/predict?top=1", data).json["predictions"][0]["labels"]
        assert row["label"] == best["label"]
        assert float(row["probability"]) == pytest.approx(best["probability"], abs=1e-6)
    page.get_by_role("button", name="Probability", exact=True).click()
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Probability")


def test_the_map_changes_the_image(page: Page, images: list[bytes]) -> None:
    drop(page, [("one.png", images[0])])
    wait_for_done(page, 1)
    reading = "document.getElementById('image').toDataURL()"
    until(lambda: page.evaluate("document.getElementById('image').width") > 100, page)
    page.wait_for_timeout(200)
    with_map = page.evaluate(reading)
    page.get_by_label("Show where it looks").uncheck()
    until(lambda: page.evaluate(reading) != with_map, page)


def test_below_the_threshold_the_page_is_not_sure(page: Page, images: list[bytes]) -> None:
    drop(page, [("one.png", images[0])])
    wait_for_done(page, 1)
    page.locator("#threshold").fill("100")
    assert page.locator("#verdict").inner_text() == "Not sure"
    assert "below 100" in page.locator("#words").inner_text()


def test_a_drop_beside_the_zone_and_on_a_result_stays_on_the_page(page: Page, images: list[bytes]) -> None:
    drop(page, [("one.png", images[0])], "header")
    wait_for_done(page, 1)
    drop(page, [("two.png", images[1])], "#verdict")
    wait_for_done(page, 2)
    assert page.url.endswith("/")


def test_the_same_file_chosen_twice_is_answered_twice(page: Page, images: list[bytes]) -> None:
    file = {"name": "same.png", "mimeType": "image/png", "buffer": images[0]}
    page.locator("#files").set_input_files(file)
    wait_for_done(page, 1)
    page.locator("#files").set_input_files(file)
    wait_for_done(page, 2)


def test_a_sample_is_one_click_away(page: Page) -> None:
    page.get_by_role("button", name="Sample 2").click()
    wait_for_done(page, 1)


def test_a_file_that_is_no_image_is_said_so(page: Page) -> None:
    drop(page, [("<img src=x onerror=alert(1)>.png", b"not an image")])
    page.wait_for_selector(".failed #verdict")
    assert "not an image" in page.locator("#words").inner_text()


def test_names_of_classes_and_files_run_nothing(page: Page, images: list[bytes]) -> None:
    drop(page, [("<img src=x onerror=document.title='run'>", images[0])])
    wait_for_done(page, 1)
    assert page.title() == "reinception"
    assert page.locator("#classes b, #caption img").count() == 0


def test_axe_finds_nothing_serious(page: Page, images: list[bytes]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text()
    for theme in ("light", "dark"):
        drop(page, [(f"{i}.png", images[i]) for i in range(2)])
        page.wait_for_selector("#rows tr:nth-child(2)")
        page.evaluate(script)
        page.wait_for_timeout(400)  # colours change in a transition
        found = page.evaluate("axe.run().then(result => result.violations)")
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, [(theme, one["id"], [node["html"] for node in one["nodes"]]) for one in serious]
        page.locator("#theme").click()


def test_the_api_page_lists_every_route(page: Page, server: RunningServer) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/api")
    page.wait_for_selector("section")
    assert page.locator("section").count() == sum(
        len(set(methods) - {"parameters"}) for methods in server.get("/openapi.json").json["paths"].values()
    )


ATTACKS = """async (target) => {
  const got = [];
  const attempt = async (name, options) => {
    try { const answer = await fetch(target + "/v1/predict", options); if (answer.status) got.push(name + answer.status); } catch {}
  };
  const body = new Uint8Array(100);
  await attempt("cors", { method: "POST", body });
  await attempt("image", { method: "POST", body, headers: { "Content-Type": "image/png" } });
  await fetch(target + "/v1/predict", { method: "POST", body: "x", mode: "no-cors" }).catch(() => {});
  await fetch(target + "/v1/models", { mode: "no-cors" }).then(() => {}, () => {});
  const frame = document.createElement("iframe");
  frame.src = target + "/";
  await new Promise((done) => { frame.onload = done; document.body.append(frame); setTimeout(done, 2000); });
  try { if (frame.contentDocument && frame.contentDocument.getElementById("drop")) got.push("iframe"); } catch {}
  const form = Object.assign(document.createElement("form"), { method: "POST", action: target + "/v1/reload", target: "hidden", enctype: "text/plain" });
  document.body.append(Object.assign(document.createElement("iframe"), { name: "hidden" }), form);
  form.submit();
  await new Promise((done) => setTimeout(done, 500));
  return got;
}"""


def test_a_page_of_another_origin_gets_no_answer_and_has_no_effect(
    browser: Any, server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>foreign</title><body>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    foreign = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=foreign.serve_forever, daemon=True).start()
    statuses: dict[str, list[int]] = {}
    context = browser.new_context()
    page = context.new_page()
    page.on("response", lambda response: statuses.setdefault(response.url, []).append(response.status))
    try:
        # Another port of the same name is another origin, although the same site.
        page.goto(f"http://localhost:{foreign.server_port}/")
        assert page.evaluate(ATTACKS, f"http://127.0.0.1:{server.port}") == []
        assert page.evaluate(ATTACKS, f"http://localhost:{server.port}") == []
    finally:
        context.close()
        foreign.shutdown()
        foreign.server_close()
    answers = [status for url, found in statuses.items() if f":{server.port}" in url for status in found]
    assert answers
    assert set(answers) <= {403}


def test_a_foreign_name_for_our_address_gets_nothing(playwright: Any, server: RunningServer) -> None:
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, rules])
    answer = chromium.new_page().goto(f"http://evil.example:{server.port}/")
    assert answer is not None
    assert answer.status == 421
    chromium.close()
