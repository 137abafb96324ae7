"""Images that may be shown: five kinds of texture drawn with a seed, learned in minutes and not quite easy."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SIZE = 128
CLASSES = ("checks", "clouds", "dots", "stripes", "waves")


def write(folder: Path, *, num_images: int, seed: int = 0) -> None:
    """`num_images` of each class as PNG files in class folders, the same ones for the same seed."""
    chance = random.Random(seed)
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for number in range(num_images):
            one(label, chance).save(folder / label / f"{label}-{number:03}.png")


def one(label: str, chance: random.Random) -> Image.Image:
    """One image (128, 128): a texture, mostly light on dark, at any scale and turn, under noise."""
    mask = Image.fromarray((255 * pattern(label, chance)).astype(np.uint8))
    mask = mask.filter(ImageFilter.GaussianBlur(chance.uniform(0.5, 3)))
    first, second = (Image.new("RGB", (SIZE, SIZE), colour(chance, *limits)) for limits in ((130, 255), (0, 150)))
    noise = np.random.default_rng(chance.randrange(1 << 32)).normal(0, chance.uniform(5, 45), (SIZE, SIZE, 3))
    pixels = np.asarray(Image.composite(first, second, mask)) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def pattern(label: str, chance: random.Random) -> np.ndarray:
    """How much of the first colour each pixel has, from 0 to 1 (128, 128)."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    turn, period = chance.uniform(0, np.pi), chance.uniform(10, 34)
    u = (x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / period + chance.uniform(0, 6)
    v = (y * np.cos(turn) - x * np.sin(turn)) * 2 * np.pi / period + chance.uniform(0, 6)
    if label == "clouds":
        noise = np.random.default_rng(chance.randrange(1 << 32)).normal(size=(SIZE, SIZE))
        grey = Image.fromarray(np.clip(noise * 200 + 128, 0, 255).astype(np.uint8))
        smooth = np.asarray(grey.filter(ImageFilter.GaussianBlur(period / 5)), dtype=float)
        return np.clip((smooth - smooth.mean()) / smooth.std() / 2 + 0.5, 0, 1)
    patterns = {
        "checks": np.sin(u) * np.sin(v) > 0,
        "dots": np.cos(u) + np.cos(v) > chance.uniform(0.4, 1.2),
        "stripes": np.sin(u) > chance.uniform(-0.4, 0.4),
        "waves": np.sin(u + 1.6 * np.sin(v / 1.5)) > chance.uniform(-0.3, 0.3),
    }
    return patterns[label].astype(float)


def colour(chance: random.Random, least: int, most: int) -> tuple[int, int, int]:
    """Any colour whose red, green and blue lie between two values."""
    red, green, blue = (chance.randint(least, most) for _ in range(3))
    return red, green, blue
