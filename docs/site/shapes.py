"""Images that may be shown: shapes on cloudy grounds, drawn with a seed, hard enough that a short training errs."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("cross", "disc", "ring", "star")
SIZE = 160


def write(folder: Path, *, num_images: int, seed: int = 0) -> None:
    """`num_images` of each class as PNG files in class folders, the same ones for the same seed."""
    chance = random.Random(seed)
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for number in range(num_images):
            one(label, chance).save(folder / label / f"{label}-{number:03}.png")


def one(label: str, chance: random.Random) -> Image.Image:
    """One image (160, 160): a shape of any colour, size and turn, with a bar across it now and then."""
    image = ground(chance)
    shape = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(shape)
    r = chance.randint(16, 44)
    x, y = (chance.randint(r + 8, SIZE - r - 8) for _ in range(2))
    if label in ("disc", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if label == "ring":
            hole = int(r * chance.uniform(0.45, 0.7))
            draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    elif label == "cross":
        bar = r // 3
        draw.rectangle((x - r, y - bar, x + r, y + bar), fill=255)
        draw.rectangle((x - bar, y - r, x + bar, y + r), fill=255)
    else:
        angles = np.arange(10) * np.pi / 5
        reach = np.where(np.arange(10) % 2, 0.45 * r, r)
        draw.polygon([(x + a, y + b) for a, b in zip(reach * np.cos(angles), reach * np.sin(angles), strict=True)], 255)
    shape = shape.rotate(chance.uniform(0, 360), resample=Image.Resampling.BICUBIC, center=(x, y))
    image.paste(colour(chance), mask=shape.point(lambda value: value * 0.8))
    if chance.random() < 0.3:
        ends = [(chance.randint(0, SIZE), chance.randint(0, SIZE)) for _ in range(2)]
        ImageDraw.Draw(image).line(ends, fill=colour(chance), width=chance.randint(4, 14))
    return image.filter(ImageFilter.GaussianBlur(chance.uniform(0.4, 1.6)))


def colour(chance: random.Random) -> tuple[int, int, int]:
    red, green, blue = (chance.randint(40, 255) for _ in range(3))
    return red, green, blue


def ground(chance: random.Random) -> Image.Image:
    """Clouds in two colours."""
    noise = np.random.default_rng(chance.randrange(1 << 32)).normal(size=(SIZE, SIZE)) * 255
    clouds = Image.fromarray(np.clip(noise + 128, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(9))
    spread = clouds.point(lambda value: max(0, min(255, (value - 128) * 8 + 128)))
    first, second = (Image.new("RGB", (SIZE, SIZE), colour(chance)) for _ in range(2))
    return Image.composite(first, second, spread)
