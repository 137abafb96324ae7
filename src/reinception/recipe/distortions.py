"""The distortions of training images by name: whole sets, and single ones that are joined by a plus sign."""

from __future__ import annotations

from collections.abc import Mapping

from reinception.recipe.parts import require

SETS: Mapping[str, str] = {
    "inception": "a random crop, mirrored, its colours distorted: images of a scene",
    "crop": "a random crop, mirrored",
    "gentle": "flips, quarter turns, a box of 94 to 100 % of each side, a little light",
    "none": "the whole image",
}
"""What stands alone, with what it does."""

PARTS: Mapping[str, str] = {
    "mirror": "left and right exchanged in half of the cases",
    "flips": "left and right, and top and bottom, each exchanged in half of the cases",
    "half_turns": "turned by 180 degrees in half of the cases",
    "quarter_turns": "turned by 0, 90, 180 or 270 degrees",
    "shifts": "a box of 92 to 100 % of each side at a random place",
    "light": "brightness and contrast changed by up to 15 %",
}
"""What can be joined, as `flips+shifts+light`, with what it does; in whatever order they are named, shifts come first
and light comes last."""


def distortions(augmentation: str) -> tuple[str, ...]:
    """The names in `flips+shifts+light`, in the order they were given. RecipeError for an unknown or repeated one."""
    names = tuple(augmentation.split("+"))
    if len(names) == 1 and names[0] in SETS:
        return names
    for name in names:
        alone = f"augmentation {name!r} stands alone: it cannot be joined with others"
        require(name not in SETS, alone)
        known = f"unknown augmentation {name!r}: {', '.join(SETS)}, or some of {', '.join(PARTS)} joined by +"
        require(name in PARTS, known)
    require(len(set(names)) == len(names), f"augmentation {augmentation!r} names a distortion twice")
    return names
