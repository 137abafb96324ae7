"""From pixels to the network's input, as values: preprocessing, single and many crops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from reinception.documents import Documents
from reinception.errors import ReinceptionError

ResizeRule = Literal["central_crop", "shorter_side", "whole"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
Scaling = Literal["fixed", "per_image"]

_NUM_CHANNELS = 3
_MAX_INPUT_SIZE = 8192
_DEEPEST = 65535
_VALUE_RANGE = [0.0, 1.0]
_DOCUMENTS = Documents()


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the network's input: everything that belongs with the weights.

    `resize`: how an image of any size becomes a square of `input_size` pixels per side:

    - `central_crop`: keep the central `crop_fraction` of each side and resize that box to the square; the aspect ratio
      is not kept. This is what the original TensorFlow system does (tensorflow/models, research/inception).
    - `shorter_side`: resize so that the shorter side is `resized_side` pixels, then cut the central square. This is
      what torchvision and timm do with the released weights.
    - `whole`: resize the whole image to the square; nothing is cut away. For images without a "scene".

    `scaling`: how its values become numbers:

    - `fixed`: `mean` and `std` (red, green, blue) apply to values scaled to [0, 1]: the network sees
      (value / 255 - mean) / std. The default is the released network's range, [-1, 1].
    - `per_image`: each image less its own mean, divided by its own standard deviation (TensorFlow's
      `per_image_standardization`). Exposure then carries no information, which is right where the camera chose it.

    `interpolation`: how a resize computes values between pixels; with antialias, as Pillow does.

    `background` (red, green, blue, 0 to 255) is what transparent parts are put on. `deep_range` is for grey images of
    more than 8 bits: the values in the file that become 0 and 255, as (0, 4095) for 12 bits stored in 16; values
    outside are cut off. Without it the range that the file declares is scaled. Both are kept with the model.

    Args: each is a field: `input_size` in pixels, `crop_fraction` from 0 to 1, `mean` and `std` of values from 0 to 1.

    Raises:
        ReinceptionError: a field that makes no sense, by name.

    Source: the defaults are those of the released network (tensorflow/models, research/inception).

    Example:
        >>> import reinception as ri
        >>> ri.Preprocessing(input_size=75, resize="whole").to_json()["std"]
        [0.5, 0.5, 0.5]
    """

    input_size: int = 299
    resize: ResizeRule = "central_crop"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    scaling: Scaling = "fixed"
    background: tuple[int, int, int] = (255, 255, 255)
    deep_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _require(1 <= self.input_size <= _MAX_INPUT_SIZE, "input_size", self.input_size)
        _require(0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction)
        for name, rules in (("resize", ResizeRule), ("interpolation", Interpolation), ("scaling", Scaling)):
            _require(getattr(self, name) in get_args(rules), name, getattr(self, name), get_args(rules))
        for name, values in (("mean", self.mean), ("std", self.std)):
            _require(isinstance(values, tuple) and len(values) == _NUM_CHANNELS, name, values)
        _require(all(value > 0 for value in self.std), "std", self.std)
        _require(all(0 <= value <= 255 for value in self.background), "background", self.background)
        if self.deep_range is not None:
            low, high = self.deep_range
            _require(0 <= low < high <= _DEEPEST, "deep_range", self.deep_range)

    @property
    def resized_side(self) -> int:
        """Pixels of the shorter side before the central square is cut (`shorter_side` only): 342 for 299 at 0.875."""
        return round(self.input_size / self.crop_fraction)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values, and `value_range`, the range that `mean` and `std` refer to."""
        return {**_DOCUMENTS.encode(self), "value_range": _VALUE_RANGE}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing of `to_json`, also of an earlier version, which had one background and scale for all.

        Raises ReinceptionError that names the first field that does not fit.
        """
        if isinstance(document, Mapping):
            value_range = document.get("value_range", _VALUE_RANGE)
            _require(value_range == _VALUE_RANGE, "value_range", value_range, (_VALUE_RANGE,))
            older = {"background": list(Preprocessing.background), "deep_range": Preprocessing.deep_range}
            document = older | {name: value for name, value in document.items() if name != "value_range"}
        return _DOCUMENTS.decode(document, Preprocessing, "preprocessing")


# -- named single-crop rules -------------------------------------------------------------------------------------------

SingleCrop = Literal["tf", "torchvision", "timm"]


def single_crop(rule: SingleCrop, preprocessing: Preprocessing) -> Preprocessing:
    """`preprocessing` with the resize rule of one of the well-known evaluations of Inception-v3; its colours are kept.

    - `tf`: the central 0.875 of each side, resized to the square, bilinear (tensorflow/models, research/inception).
    - `torchvision`: shorter side to 342 for 299, bilinear, central square (Inception_V3_Weights.IMAGENET1K_V1).
    - `timm`: shorter side to 341 for 299, as 299 / 0.875 is rounded down, bicubic, central square (inception_v3).
    """
    size = preprocessing.input_size
    if rule == "tf":
        return replace(preprocessing, resize="central_crop", crop_fraction=0.875, interpolation="bilinear")
    if rule == "torchvision":
        return replace(preprocessing, resize="shorter_side", crop_fraction=0.875, interpolation="bilinear")
    if rule == "timm":
        fraction = size / int(size / 0.875)
        return replace(preprocessing, resize="shorter_side", crop_fraction=fraction, interpolation="bicubic")
    raise ReinceptionError(f"single crop: unknown rule {rule!r}; it is one of {', '.join(get_args(SingleCrop))}")


# -- many crops --------------------------------------------------------------------------------------------------------

NumCrops = Literal[10, 12, 144]

_GOOGLENET_SCALES, _GOOGLENET_CROP = (256, 288, 320, 352), 224


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Which crops of an image are scored; their probabilities are averaged.

    For each of `scales` (pixels of the shorter side) the image is resized; of that, `num_squares` squares are taken:
    the central one (1), or the two at the ends as well (3: left, centre, right; top, centre, bottom of a portrait). Of
    each square come the four corners and the centre, `input_size` pixels per side, and with `whole` the square itself,
    resized; everything also mirrored. GoogLeNet's 144 (arXiv 1409.4842, section 7) are 4 scales of 3 squares of 6.
    """

    input_size: int
    scales: tuple[int, ...]
    num_squares: Literal[1, 3]
    whole: bool

    def __post_init__(self) -> None:
        if not self.scales or len(set(self.scales)) != len(self.scales) or min(self.scales) < self.input_size:
            raise ReinceptionError(
                f"crops: scales must be distinct and at least the input size {self.input_size}, "
                f"got {', '.join(map(str, self.scales)) or 'none'}"
            )

    @property
    def num(self) -> int:
        """Crops per image, counting those that coincide."""
        return len(self.scales) * self.num_squares * (5 + self.whole) * 2

    @property
    def words(self) -> str:
        """For a result: `144 crops (scales 342, 384, 427, 470)`."""
        plural = "s" if len(self.scales) > 1 else ""
        return f"{self.num} crops (scale{plural} {', '.join(map(str, self.scales))})"

    def to_json(self) -> dict[str, Any]:
        return {"num_crops": self.num, "scales": list(self.scales), "num_squares": self.num_squares}


def default_scales(input_size: int) -> tuple[int, ...]:
    """GoogLeNet's 256, 288, 320 and 352 for crops of 224, in proportion: 342, 384, 427 and 470 for 299.

    No paper gives the scales Inception-v3 was scored at; this is the usual reading.
    """
    return tuple(round(scale * input_size / _GOOGLENET_CROP) for scale in _GOOGLENET_SCALES)


def many_crops(num: int, input_size: int, scales: tuple[int, ...] | None = None) -> Crops:
    """The 10, 12 or 144 crops of an image, at `default_scales` of which 10 and 12 crops take the first.

    10: the four corners and the centre of the central square, mirrored (Krizhevsky et al. 2012). 12: and the square
    itself. The papers do not define 12; it is 144 with one scale and one square. ReinceptionError where `scales` are
    not as many as `num` needs.
    """
    if num not in get_args(NumCrops):
        raise ReinceptionError(f"crops: {num} is not defined; choose 1, {', '.join(map(str, get_args(NumCrops)))}")
    wanted = 4 if num == 144 else 1
    chosen = default_scales(input_size)[:wanted] if scales is None else scales
    if len(chosen) != wanted:
        raise ReinceptionError(f"crops: {num} crops take {wanted} scale{'s'[: wanted - 1]}, got {len(chosen)}")
    return Crops(input_size=input_size, scales=chosen, num_squares=3 if num == 144 else 1, whole=num != 10)


def _require(holds: bool, name: str, value: object, choices: tuple[object, ...] = ()) -> None:
    hint = f"; it is one of {', '.join(map(str, choices))}" if choices else ""
    ReinceptionError.require(holds, f"preprocessing: {name} cannot be {value!r}{hint}")
