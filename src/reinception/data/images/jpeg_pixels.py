"""From coefficients to pixels at an eighth and at a quarter, and from JFIF's colours to red, green and blue.

In libjpeg's integers (jidctred.c, jdcolor.c), so that the pixels are its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reinception.data.images.compiled import compiled, inlined, lean
from reinception.data.images.jpeg_header import ZIGZAG

# libjpeg's way to a block at a quarter (jidctred.c) leaves out its even rows and columns but the first: 25 coefficients
# count, row by row, and behind them is a place for all others. In units of 2^-13: sqrt(2) times sums of cosines.
KEPT = (0, 1, 3, 5, 7)
WEIGHTS = (1 << 15, 29692, -10426, 6967, -5906)
SLOTS = tuple(5 * KEPT.index(p // 8) + KEPT.index(p % 8) if {p // 8, p % 8} <= set(KEPT) else 25 for p in ZIGZAG)


@inlined
def limited(value: int) -> int:
    return min(max(value + 128, 0), 255)


@lean
def two_by_two(
    coefficients: NDArray[np.int64], factors: NDArray[np.int64], plane: NDArray[np.uint8], y: int, x: int
) -> None:
    """The block at a quarter, in libjpeg's integers; leaves `coefficients` zero, which has room for ten more numbers.

    `factors`, (25,), are what a coefficient is worth times its row's weight.
    """
    for column in range(5):
        odd = (
            coefficients[5 + column] * factors[5 + column]
            + coefficients[10 + column] * factors[10 + column]
            + coefficients[15 + column] * factors[15 + column]
            + coefficients[20 + column] * factors[20 + column]
        )
        even = coefficients[column] * factors[column] + (1 << 12)
        coefficients[26 + column] = (even + odd) >> 13
        coefficients[31 + column] = (even - odd) >> 13
    for row in range(2):
        first = 26 + 5 * row
        odd = 29692 * coefficients[first + 1] - 10426 * coefficients[first + 2]
        odd += 6967 * coefficients[first + 3] - 5906 * coefficients[first + 4]
        even = (coefficients[first] << 15) + (1 << 19)
        plane[y + row, x] = limited((even + odd) >> 20)
        plane[y + row, x + 1] = limited((even - odd) >> 20)
    for slot in range(25):
        coefficients[slot] = 0


@compiled()
def in_rgb(luma: NDArray[np.uint8], blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """JFIF's colours in libjpeg's integers: 1.402, 0.34414, 0.71414 and 1.772 in units of 2^-16; (h, w, 3)."""
    pixels = np.empty((luma.shape[0], luma.shape[1], 3), np.uint8)
    for y in range(luma.shape[0]):
        for x in range(luma.shape[1]):
            level, b, r = np.int32(luma[y, x]), np.int32(blue[y, x]) - 128, np.int32(red[y, x]) - 128
            pixels[y, x, 0] = min(max(level + ((91881 * r + 32768) >> 16), 0), 255)
            pixels[y, x, 1] = min(max(level + ((-22554 * b - 46802 * r + 32768) >> 16), 0), 255)
            pixels[y, x, 2] = min(max(level + ((116130 * b + 32768) >> 16), 0), 255)
    return pixels
