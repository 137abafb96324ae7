"""`make pictures`: the screenshots and drawings of docs/images anew, from real runs on images that are drawn here."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import textures

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
WORK = ROOT / "build" / "pictures"
PORT = 8297
TRAINING = ("--width", "0.15", "--input-size", "96", "--recipe", "small_images", "--seed", "1")
TEACHER = ("--width", "0.5", "--input-size", "128", "--recipe", "small_images", "--seed", "1")
DRAWN = ("googlenet", "inception_v2", "inception_v3")
# Longer than this, a screenshot is cut: a page of documentation shows the beginning and links to the rest.
MOST_PIXELS = 2600
_LOAD_IMAGES = """Promise.all([...document.images].map(one => {
    one.loading = "eager"  // those out of sight would stay empty
    return one.decode()
}))"""


def reinception(*words: object, code: int = 0) -> None:
    """One command, as a user types it."""
    given = [sys.executable, "-m", "reinception", *map(str, words)]
    if subprocess.run(given, check=False, cwd=WORK).returncode not in (0, code):
        sys.exit(f"{given}: failed")


def train(epochs: int) -> None:
    """Two runs on the same images: `first`, a quarter as long, and `second`, which is compared with it."""
    textures.write(WORK / "textures", num_images=160)
    for name, num_epochs in (("first", max(1, epochs // 4)), ("second", epochs)):
        reinception("train", "textures", "-o", f"runs/{name}", "--epochs", num_epochs, *TRAINING)
    reinception("report", "runs/second", "--baseline", "runs/first")


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


def shoot(page: Any, name: str, *, top: int = 0, most: int = MOST_PIXELS) -> None:
    """The page from `top` on as docs/images/NAME.png, with few enough colours to be small."""
    from PIL import Image

    path = IMAGES / f"{name}.png"
    height = page.evaluate("document.documentElement.scrollHeight")
    width = page.viewport_size["width"]
    clip = {"x": 0, "y": top, "width": width, "height": max(1, min(most, height - top))}
    page.screenshot(path=str(path), full_page=True, clip=clip)
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def shoot_report() -> None:
    place = (WORK / "runs" / "second" / "report.html").as_uri()
    with browser() as chromium:
        for scheme, width, names in (
            ("light", 800, ("report-wide", "report", "report-slices")),
            ("dark", 800, ("report-dark",)),
            ("light", 430, ("report-phone",)),
        ):
            page = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
            page.goto(place)
            page.evaluate(_LOAD_IMAGES)
            for name in names:
                at = {"report-slices": "#slices", "report-dark": "#calibration"}.get(name)
                script = "id => document.querySelector(id)?.getBoundingClientRect().top - 40"
                top = int(page.evaluate(script, at) or 0) if at else 0
                shoot(page, name, top=top, most={"report": 1000, "report-slices": 1300}.get(name, MOST_PIXELS))


def views(chromium: Any, address: str, name: str) -> Iterator[tuple[Any, str]]:
    """The page at `address` on a wide screen, dark and on a phone, and a name for each picture."""
    for scheme, width, kind in (("light", 1200, "wide"), ("dark", 1200, "dark"), ("light", 390, "phone")):
        page = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
        page.goto(address)
        yield page, f"{name}-{kind}"


@contextmanager
def server(samples: Path) -> Iterator[str]:
    words = ["serve", "textures=runs/second", "--port", str(PORT), "--samples", str(samples)]
    process = subprocess.Popen([sys.executable, "-m", "reinception", *words], cwd=WORK)
    try:
        for _ in range(600):
            time.sleep(0.2)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5).close()
                break
            except OSError:
                continue
        yield f"http://127.0.0.1:{PORT}/"
    finally:
        process.terminate()
        process.wait(60)


def held_out(num: int) -> list[Path]:
    """Images that the run never trained on, of different classes."""
    lines = (WORK / "runs" / "second" / "predictions" / "test.csv").read_text(encoding="utf-8").splitlines()[1:]
    step = max(1, len(lines) // num)
    return [WORK / "textures" / line.split(",")[0] for line in lines[::step][:num]]


def shoot_serve() -> None:
    samples = WORK / "samples"
    samples.mkdir()
    for number, image in enumerate(held_out(6)):
        shutil.copy(image, samples / f"{number}-{image.parent.name}.png")
    files = [str(path) for path in sorted(samples.iterdir())]
    with server(samples) as address, browser() as chromium:
        for page, name in views(chromium, address, "serve"):
            page.wait_for_selector("#classes li", state="attached")
            page.locator("#files").set_input_files(files)
            page.get_by_text(f"{len(files)} images done").wait_for()
            page.wait_for_timeout(2000)  # the regions are drawn after the labels
            shoot(page, name, most=1500)


def shoot_web() -> None:
    """The page of `export --to web`, with images that the run never trained on."""
    shutil.rmtree(WORK / "web", ignore_errors=True)
    reinception("export", "runs/second", "--to", "web", "--precision", "fp16", "--web-runtime", "npm", "-o", "web")
    files = [str(path) for path in held_out(6)[1:4]]
    words = [sys.executable, "-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", str(WORK / "web")]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        with browser() as chromium:
            for page, name in views(chromium, f"http://127.0.0.1:{PORT}/", "web"):
                page.locator("#files").set_input_files(files)
                is_done = "() => / done[.;]/.test(document.querySelector('#status').textContent)"
                page.wait_for_function(is_done, timeout=120_000)
                shoot(page, name, most=1500)
    finally:
        process.terminate()
        process.wait(60)


def draw_networks() -> None:
    for name in DRAWN:
        path = IMAGES / f"{name}.svg"
        path.unlink(missing_ok=True)
        reinception("draw", name, "-o", path)


def front_of_shrink() -> None:
    """Accuracy and speed of smaller networks than one of half width, as `reinception shrink` draws them."""
    shutil.rmtree(WORK / "small", ignore_errors=True)
    if not (WORK / "runs" / "large").exists():
        reinception("train", "textures", "-o", "runs/large", "--time-budget", "3m", *TEACHER)
    goal = ("--speed-up", "5", "--num-students", "2", "--time-budget", "3m")
    reinception("shrink", "runs/large", "textures", "-o", "small", *goal)
    shutil.copy(WORK / "small" / "front.svg", IMAGES / "shrink.svg")


def chart_bench() -> None:
    """How fast the networks of several libraries are here, as `reinception bench` draws it, with its machine."""
    chart = IMAGES / "bench.svg"
    chart.unlink(missing_ok=True)
    reinception("bench", "--svg", chart, "--json", WORK / "bench.json")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python docs/site/pictures.py", description=__doc__)
    parser.add_argument("--epochs", type=int, default=60, help="of the second run (default: %(default)s)")
    parser.add_argument("--keep-runs", action="store_true", help="take the runs that are there")
    arguments = parser.parse_args(argv)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    if not arguments.keep_runs:
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        train(arguments.epochs)
    shutil.rmtree(WORK / "samples", ignore_errors=True)
    draw_networks()
    shoot_report()
    shoot_serve()
    shoot_web()
    from reinception.cli.parsing import VERBS

    if "shrink" in VERBS:
        front_of_shrink()
    if "bench" in VERBS:
        chart_bench()
    return 0


if __name__ == "__main__":
    sys.exit(main())
