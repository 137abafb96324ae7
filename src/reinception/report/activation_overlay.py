"""Class-activation overlays of mistaken images: which regions raise the predicted class over the actual one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels
from reinception.data.images.thumbnail import THUMBNAIL_SIDE, thumbnail
from reinception.data.loading.loader import normalise
from reinception.data.loading.read import pixels_of
from reinception.errors import BadImage
from reinception.inference.class_activation import class_activation
from reinception.inference.engine import evaluating
from reinception.metrics import PredictionTable
from reinception.model.artifact import MODEL_NAME, load
from reinception.report.read_run import Run

_BATCH = 8
_PREDICTED, _ACTUAL = np.array([214, 96, 32], dtype=np.float32), np.array([43, 108, 176], dtype=np.float32)
"""Orange where the predicted class's logit is higher, blue where the actual one's is."""

_OPACITY = 0.6
"""Of the colour where the difference is largest."""


def activation_overlays(run: Run, table: PredictionTable, rows: Sequence[int]) -> dict[int, str]:
    """By row, a data URI of the image in grey under the difference of two exact class-activation maps.

    Orange is where the logit of the predicted class exceeds that of the actual one, blue the reverse. Images that
    cannot be read are left out. Empty where the run has no model, and where its last grid is a single position.
    """
    model = run.folder / MODEL_NAME
    records = {row: record for row in rows if (record := run.records.get(table.names[row])) is not None}
    if not records or not model.is_file():
        return {}
    network, manifest = load(model, with_aux=False)
    network = network.to(memory_format=torch.channels_last)
    seen, how = dict[int, Pixels](), manifest.preprocessing
    for row, record in records.items():
        try:
            seen[row] = evaluation_pixels(pixels_of(record, preprocessing=how), how)
        except BadImage:
            continue
    position = [manifest.classes.index(name) for name in table.classes]
    found: dict[int, str] = {}
    with evaluating(network):
        for start in range(0, len(seen), _BATCH):
            batch = list(seen)[start : start + _BATCH]
            images = torch.from_numpy(np.stack([seen[row] for row in batch])).permute(0, 3, 1, 2)
            inputs = normalise(images, manifest.preprocessing)
            predicted, actual = (
                class_activation(network, inputs, torch.tensor([position[int(labels[row])] for row in batch]))
                for labels in (table.predicted, table.targets)
            )
            if predicted[0].numel() == 1:
                return {}
            for row, difference in zip(batch, (predicted - actual).numpy(), strict=True):
                found[row] = thumbnail(_overlay(seen[row], difference))
    return found


def _overlay(pixels: Pixels, difference: npt.NDArray[np.float32]) -> Pixels:
    """The image in grey at thumbnail size, tinted by the sign and strength of `difference` (h, w)."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.LANCZOS))
    smooth = np.asarray(Image.fromarray(difference).resize(size, Image.Resampling.BICUBIC))
    strength = smooth / max(float(np.abs(smooth).max()), 1e-12)
    opacity = (_OPACITY * np.abs(strength))[:, :, None]
    tint = np.where(strength[:, :, None] > 0, _PREDICTED, _ACTUAL)
    return (grey[:, :, None] * (1 - opacity) + tint * opacity).round().clip(0, 255).astype(np.uint8)
