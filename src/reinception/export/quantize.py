"""int8: an ONNX file whose convolutions run on 8-bit values, with ranges calibrated on the user's own images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from reinception.data.images.decode import Pixels
from reinception.export.onnx_graph import INPUT
from reinception.machine import cpu_flags

KINDS = ["Conv", "Gemm"]


def quantized(model: ModelProto, images: Sequence[Pixels], *, per_channel: bool = True) -> ModelProto:
    """`model` with weights and inputs of its convolutions in 8 bits (QDQ), the preprocessing left as it is.

    Where the processor has no VNNI the weights keep 7 bits, since products of 8 would overflow 16 bits there.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, Any] | None:  # pyrefly: ignore[bad-override]
            image = next(self.rest, None)
            return None if image is None else {INPUT: np.ascontiguousarray(image)[None]}

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(model, before)
        quantize_static(
            before,
            after,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=KINDS,
            per_channel=per_channel,
            reduce_range="avx512_vnni" not in cpu_flags() and "avx_vnni" not in cpu_flags(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibTensorRangeSymmetric": False},
        )
        return onnx.load(after)
