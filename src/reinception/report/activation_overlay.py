"""What in a mistaken image spoke for the wrong class and what for the right one, as small pictures."""

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
_FOR, _AGAINST = np.array([214, 96, 32], dtype=np.float32), np.array([43, 108, 176], dtype=np.float32)
_STRONGEST = 0.6
"""How much of the picture the colour hides where the evidence is strongest."""


def evidence(run: Run, table: PredictionTable, rows: Sequence[int]) -> dict[int, str]:
    """For each row whose image can be read: what the network saw of it, grey, under the two classes' evidence.

    Orange is where the logit of the class it was called exceeds that of the class it is, blue where it is the other way
    round; the map is the difference of two exact class-activation maps. Empty where the run holds no model, and where
    its last grid is a single position, so that there is no where to show.
    """
    model = run.folder / MODEL_NAME
    records = {row: record for row in rows if (record := run.originals.get(table.names[row])) is not None}
    if not records or not model.is_file():
        return {}
    network, manifest = load(model, with_aux=False)
    network = network.to(memory_format=torch.channels_last)
    seen: dict[int, Pixels] = {}
    for row, record in records.items():
        try:
            seen[row] = evaluation_pixels(pixels_of(record), manifest.preprocessing)
        except BadImage:
            continue
    position = [manifest.classes.index(name) for name in table.classes]
    found: dict[int, str] = {}
    with evaluating(network):
        for start in range(0, len(seen), _BATCH):
            batch = list(seen)[start : start + _BATCH]
            images = torch.from_numpy(np.stack([seen[row] for row in batch])).permute(0, 3, 1, 2)
            inputs = normalise(images, manifest.preprocessing)
            called, true = (
                class_activation(network, inputs, torch.tensor([position[int(labels[row])] for row in batch]))
                for labels in (table.predicted, table.targets)
            )
            if called[0].numel() == 1:
                return {}
            for row, difference in zip(batch, (called - true).numpy(), strict=True):
                found[row] = thumbnail(_coloured(seen[row], difference))
    return found


def _coloured(pixels: Pixels, difference: npt.NDArray[np.float32]) -> Pixels:
    """The picture in grey at thumbnail size, tinted by the sign and strength of `difference` (h, w)."""
    grey = np.asarray(
        Image.fromarray(pixels).convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    )
    smooth = np.asarray(Image.fromarray(difference).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC))
    strength = smooth / max(float(np.abs(smooth).max()), 1e-12)
    share = (_STRONGEST * np.abs(strength))[:, :, None]
    tint = np.where(strength[:, :, None] > 0, _FOR, _AGAINST)
    return (grey[:, :, None] * (1 - share) + tint * share).round().clip(0, 255).astype(np.uint8)
