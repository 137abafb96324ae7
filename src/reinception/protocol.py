"""How a picture becomes the network's input when the network is scored, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from reinception.errors import ReinceptionError

ResizeRule = Literal["central_crop", "shorter_side", "whole"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
Scaling = Literal["fixed", "per_image"]

_NUM_CHANNELS = 3
_MAX_INPUT_SIZE = 8192


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Pixels in, network input out: everything that must travel with the weights.

    `resize` says how a picture of any size becomes a square of `input_size` pixels per side:

    - `central_crop`: keep the central `crop_fraction` of each side and resize that box to the square; the aspect ratio
      is not kept. This is what the original TensorFlow system does (tensorflow/models, research/inception).
    - `shorter_side`: resize so that the shorter side is `resized_side` pixels, then cut the central square. This is
      what torchvision and timm do with the released weights.
    - `whole`: resize the whole picture to the square; nothing is cut away. For pictures without a "scene".

    `scaling` says how its values become numbers:

    - `fixed`: `mean` and `std` (red, green, blue) apply to values scaled to [0, 1]: the network sees
      (value / 255 - mean) / std. The default is the released network's range, [-1, 1].
    - `per_image`: each picture less its own mean, divided by its own standard deviation (TensorFlow's
      `per_image_standardization`). Exposure then says nothing, as it should where the camera chose it.

    A field that makes no sense is a `ReinceptionError`.
    """

    input_size: int = 299
    resize: ResizeRule = "central_crop"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    scaling: Scaling = "fixed"

    def __post_init__(self) -> None:
        _require(_is_int(self.input_size) and 1 <= self.input_size <= _MAX_INPUT_SIZE, "input_size", self.input_size)
        _require(self.resize in get_args(ResizeRule), "resize", self.resize, get_args(ResizeRule))
        _require(_is_number(self.crop_fraction) and 0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction)
        _require(
            self.interpolation in get_args(Interpolation),
            "interpolation",
            self.interpolation,
            get_args(Interpolation),
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            triple = isinstance(values, tuple) and len(values) == _NUM_CHANNELS and all(map(_is_number, values))
            _require(triple, name, values)
        _require(all(value > 0 for value in self.std), "std", self.std)
        _require(self.scaling in get_args(Scaling), "scaling", self.scaling, get_args(Scaling))

    @property
    def resized_side(self) -> int:
        """Pixels of the shorter side before the central square is cut (`shorter_side` only): 342 for 299 at 0.875."""
        return round(self.input_size / self.crop_fraction)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values, and `value_range`, the range that `mean` and `std` refer to."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "value_range": [0.0, 1.0]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_json`. A missing, unknown or senseless field is a `ReinceptionError` that names it."""
        if not isinstance(values, Mapping):
            raise ReinceptionError(f"preprocessing must be a JSON object, not {type(values).__name__}")
        known = {field.name for field in fields(cls)}
        if missing := sorted(known - values.keys()):
            raise ReinceptionError(f"preprocessing lacks {', '.join(missing)}: the file was not written by reinception")
        if unknown := sorted(values.keys() - known - {"value_range"}):
            raise ReinceptionError(
                f"preprocessing has unknown fields {', '.join(map(repr, unknown))}: update reinception"
            )
        value_range = values.get("value_range", [0.0, 1.0])
        _require(value_range == [0.0, 1.0], "value_range", value_range, ([0.0, 1.0],))
        read = {name: values[name] for name in known}
        for name in ("mean", "std"):
            if isinstance(read[name], list):
                read[name] = tuple(read[name])
        return cls(**read)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _require(holds: bool, name: str, value: object, choices: tuple[object, ...] = ()) -> None:
    if not holds:
        hint = f"; it is one of {', '.join(map(str, choices))}" if choices else ""
        raise ReinceptionError(f"preprocessing: {name} can not be {value!r}{hint}")
