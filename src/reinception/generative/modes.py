"""From an image to what the FID network reads, as each of four tools does it: resizing and normalisation as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError, UsageError

if TYPE_CHECKING:
    import torch

Resize = Literal["tf1_bilinear", "torch_bilinear", "pillow_bicubic", "torch_bilinear_antialias"]
Normalisation = Literal["(x-128)/128", "2x/255-1"]
Quantisation = Literal["before"]

INPUT_SIZE = 299


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How pixels become the network's input; every tool that prints an FID has its own, and the values differ.

    - `resize` to 299 x 299: `tf1_bilinear` samples at i * size / 299 without moving to pixel centres, as TensorFlow 1
      did; `torch_bilinear` at pixel centres, without antialias, as torch's `interpolate`; `torch_bilinear_antialias`
      the same with antialias; `pillow_bicubic` with antialias on floats, channel by channel, limited to 0..255.
    - `normalisation` of values 0..255: (x-128)/128, or 2x/255-1.
    - `quantisation`: `before`, pixels are rounded to the 256 levels of a file before they are resized and never after.

    Example:
        >>> import reinception as ri
        >>> ri.generative.MODES["clean"].resize
        'pillow_bicubic'
    """

    name: str
    resize: Resize
    normalisation: Normalisation
    quantisation: Quantisation = "before"
    like: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            name="tf",
            resize="tf1_bilinear",
            normalisation="(x-128)/128",
            like="the original TensorFlow code; torch-fidelity; torchmetrics with antialias=False",
        ),
        Mode(name="pytorch_fid", resize="torch_bilinear", normalisation="2x/255-1", like="pytorch-fid"),
        Mode(name="clean", resize="pillow_bicubic", normalisation="(x-128)/128", like="clean-fid, mode clean"),
        Mode(
            name="torchmetrics",
            resize="torch_bilinear_antialias",
            normalisation="(x-128)/128",
            like="torchmetrics with its default antialias=True",
        ),
    )
}


def mode_named(name: str) -> Mode:
    """The mode called `name`; UsageError names what there is."""
    if name not in MODES:
        raise UsageError(f"unknown mode {name!r}; it is one of {', '.join(MODES)}")
    return MODES[name]


def network_input(pixels: npt.NDArray[np.uint8], mode: Mode) -> npt.NDArray[np.float32]:
    """What the network reads of one image (h, w, 3) or (h, w) of bytes: float32 (3, 299, 299), by channel."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return normalised(resized(pixels, mode.resize), mode.normalisation)


def normalised(values: npt.NDArray[np.float32], rule: Normalisation) -> npt.NDArray[np.float32]:
    """Values 0..255 as the network reads them: 0, 128, 255 become -1, 0, 0.9921875 or -1, 0.00392157, 1."""
    if rule == "(x-128)/128":
        return (values - np.float32(128)) / np.float32(128)
    return np.float32(2) * (values / np.float32(255)) - np.float32(1)


def resized(pixels: npt.NDArray[np.uint8], rule: Resize) -> npt.NDArray[np.float32]:
    """(h, w, 3) bytes as float32 (3, 299, 299) with values 0..255."""
    if rule == "pillow_bicubic":
        from PIL import Image

        planes = [Image.fromarray(pixels[:, :, channel].astype(np.float32)) for channel in range(3)]
        small = [plane.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC) for plane in planes]
        return np.stack([np.asarray(plane) for plane in small]).clip(0, 255)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
    if rule == "tf1_bilinear":
        return tf1_bilinear(planes, INPUT_SIZE, INPUT_SIZE)
    import torch
    from torch.nn.functional import interpolate

    size, antialias = (INPUT_SIZE, INPUT_SIZE), rule == "torch_bilinear_antialias"
    found: torch.Tensor = interpolate(
        torch.from_numpy(planes)[None], size=size, mode="bilinear", align_corners=False, antialias=antialias
    )
    return found[0].numpy()


def tf1_bilinear(planes: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """(channels, h, w) as (channels, height, width): TensorFlow 1's bilinear, whose source is i * in / out, clamped.

    [0, 1, 2, 3] becomes 0, .5, 1, 1.5, 2, 2.5, 3, 3 at eight pixels. Sums are taken along rows first, as there.
    """
    top, bottom, down = _samples(planes.shape[1], height)
    left, right, across = _samples(planes.shape[2], width)
    used = np.union1d(top, bottom)  # of a large image most rows are not looked at
    rows = planes[:, used]
    start = rows[:, :, left]
    wide = start + (rows[:, :, right] - start) * across
    upper = wide[:, np.searchsorted(used, top)]
    found = upper + (wide[:, np.searchsorted(used, bottom)] - upper) * down[:, None]
    return found.astype(np.float32, copy=False)


def _samples(source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each target pixel the source pixel below, the one above, and how far between them it lies."""
    place = np.arange(target, dtype=np.float32) * np.float32(source / target)
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, source - 1), place - low.astype(np.float32)


def as_bytes(images: Any, value_range: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """A batch (n, 3, h, w) of bytes, from bytes or from floats of a stated range, an array or a tensor.

    Floats are rounded to the 256 levels that a file would hold. ReinceptionError for another shape, for floats whose
    range is not given, and for values outside it, with the range that was found.
    """
    import torch

    values = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise ReinceptionError(f"images: must have the shape (n, 3, height, width), got {tuple(values.shape)}")
    if values.dtype.kind == "f":
        values = _levels(values, value_range)
    elif values.dtype != np.uint8:
        raise ReinceptionError(f"images: must be uint8, or floats with their value_range, got {values.dtype}")
    return values if values.shape[1] == 3 else values.repeat(3, axis=1)


def _levels(values: npt.NDArray[Any], value_range: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    low, high = (float(values.min(initial=np.inf)), float(values.max(initial=-np.inf)))
    found = f"found {low:g} to {high:g}"
    if value_range is None:
        raise ReinceptionError(f"images: floats need their value_range, (0, 1), (-1, 1) or (0, 255); {found}")
    black, white = value_range
    slack = (white - black) / 1000
    if values.size and not (low >= black - slack and high <= white + slack):  # also where one is NaN
        raise ReinceptionError(f"images: values outside the value_range {black:g} to {white:g}: {found}")
    scaled = (values.astype(np.float64) - black) * (255 / (white - black))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
