"""Names for the outputs of a classifier, as far as their number tells which classes they are."""

from __future__ import annotations

from reinception.weights.downloads import imagenet_classes

IMAGENET_CLASSES = 1000
# The graph of 2015-12-05 has 1,008: ImageNet's in an order of its own, and some that were never trained.
FID_OUTPUTS = 1008
BACKGROUND = "background"


def class_names(num_classes: int, *, with_background: bool) -> tuple[tuple[str, ...], str]:
    """A name for each output, and where the names come from. `with_background` puts one more before ImageNet's."""
    background = (BACKGROUND,) if with_background else ()
    if num_classes - len(background) == IMAGENET_CLASSES:
        names, origin = imagenet_classes()
        if names:
            return background + names, f"1,000 classes are taken for ImageNet's; names from {origin}"
        note = "ImageNet's classes are numbered: install torchvision, or give names with --classes"
        return background + _numbered("imagenet", IMAGENET_CLASSES), note
    if num_classes == FID_OUTPUTS:
        note = "1,008 outputs in the order of the graph of 2015, which is not ImageNet's: numbered"
        return _numbered("output", num_classes), note
    note = f"{num_classes} classes without names: numbered; give names with --classes"
    return _numbered("class", num_classes), note


def _numbered(what: str, count: int) -> tuple[str, ...]:
    return tuple(f"{what}_{index:04d}" for index in range(count))
