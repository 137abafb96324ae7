"""A rewritten network with its preprocessing as a torch module that `torch.export` takes, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reinception.data.loading.loader import normalise
from reinception.export.resize_graph import begins_with_columns_sometimes
from reinception.preprocess import Preprocessing
from reinception.rewrite.program import Program

BITS = 22  # of Pillow's weights


class FromPixels(nn.Module):
    """`images` (n, h, w, 3) uint8 to probabilities (n, classes), or to pooled features (n, num_features), float32.

    The resize is Pillow's to the bit: the products are sums of whole numbers below 2^53, in float64.
    """

    def __init__(self, program: Program, preprocessing: Preprocessing, dtype: torch.dtype, *, features: bool) -> None:
        super().__init__()
        self.network = program.network(dtype).to(memory_format=torch.channels_last)
        self.preprocessing = preprocessing
        self.dtype, self.features = dtype, features
        self.mean, self.std = program.mean, program.std
        self.columns_first = begins_with_columns_sometimes()

    def forward(self, images: Tensor) -> Tensor:
        pixels = self._resized(images.permute(0, 3, 1, 2).to(torch.float64))
        values = self._scaled(pixels.to(torch.float32)).to(self.dtype)
        if self.features:
            return self.network.features(values).float()
        return self.network(values).float().softmax(dim=1)

    def _scaled(self, pixels: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return normalise(pixels, self.preprocessing)
        mean, std = (torch.tensor(one, dtype=torch.float32).mul(255)[:, None, None] for one in (self.mean, self.std))
        return (pixels - mean) / std

    def _resized(self, images: Tensor) -> Tensor:
        height, width = (torch.scalar_tensor(extent, dtype=torch.int64) for extent in images.shape[2:])
        columns, new_height = self._weights(height, torch.minimum(height, width), images.shape[2])
        rows, new_width = self._weights(width, torch.minimum(height, width), images.shape[3])

        def rows_first(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            return _rounded(columns @ _rounded(images @ rows.T))

        def columns_first(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            return _rounded(_rounded(columns @ images) @ rows.T)

        if not self.columns_first:
            return rows_first(images, rows, columns)
        less = height - new_height
        chosen = (less > 0) & (less > 2 * (width - new_width))
        return torch.cond(chosen, columns_first, rows_first, (images, rows, columns))

    def _weights(self, extent: Tensor, shorter: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Pillow's weights (size, num) in units of 2^-22, and the length that the whole axis is resized to."""
        how = self.preprocessing
        side, offset = (
            torch.scalar_tensor(how.input_size, dtype=torch.int64),
            torch.scalar_tensor(0.0, dtype=torch.float64),
        )
        fraction = how.crop_fraction if how.resize == "central_crop" else 1.0
        whole = extent.to(torch.float64)
        first = ((whole - whole * fraction) / 2).floor()
        if how.resize == "shorter_side":
            first = torch.zeros_like(first)
            side = how.resized_side * extent // shorter
            offset = ((side - how.input_size).to(torch.float64) / 2).round()
        length = whole - 2 * first
        centres = first + (torch.arange(how.input_size, dtype=torch.float64) + offset + 0.5) * length / side
        far = (
            (torch.arange(num, dtype=torch.float64) + 0.5 - centres[:, None])
            * side
            / torch.maximum(length, side.to(torch.float64))
        )
        weights = _bilinear(far.abs()) if how.interpolation == "bilinear" else _bicubic(far.abs())
        weights = weights / weights.sum(1, keepdim=True) * 2**BITS
        return weights.sign() * (weights.abs() + 0.5).floor(), side


def _rounded(sums: Tensor) -> Tensor:
    return ((sums + 2 ** (BITS - 1)) / 2**BITS).floor().clamp(0, 255)


def _bilinear(far: Tensor) -> Tensor:
    return (1 - far).clamp(min=0)


def _bicubic(far: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, which is Pillow's."""
    near = (1.5 * far - 2.5) * far * far + 1
    beyond = (((far - 5) * far + 8) * far - 4) * -0.5
    return torch.where(far < 1, near, torch.where(far < 2, beyond, 0.0))


def exported(
    program: Program, preprocessing: Preprocessing, dtype: torch.dtype, *, features: bool
) -> torch.export.ExportedProgram:
    """The module as a graph of torch's own operators: any number of images of any one size."""
    module = FromPixels(program, preprocessing, dtype, features=features).eval()
    side = preprocessing.input_size
    example = torch.zeros(2, side + 7, side + 3, 3, dtype=torch.uint8)
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=(sizes,), strict=False)
