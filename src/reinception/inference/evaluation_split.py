"""The split to evaluate a model on: the one its own training held out, where the data are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reinception.data.sources.records import Record, Source
from reinception.data.sources.split import assign_fold, assign_splits
from reinception.errors import ReinceptionError
from reinception.model.artifact import Manifest


@dataclass(frozen=True, kw_only=True)
class EvaluationSplit:
    """The records to evaluate on, their split (None: every record), whether it is the split of the training, and the
    reason why it was chosen."""

    records: Sequence[Record]
    split: str | None
    as_in_training: bool
    reason: str = "as asked"


def select(source: Source, manifests: Sequence[Manifest], split: str | None = None) -> EvaluationSplit:
    """The records of `split`; without a name those of test, else of val, or every record where the data are not split.

    Training images are evaluated on only where `split` is "train": data that have nothing else are refused.

    A model file holds the fingerprint of its training data and how they were split, so the held-out images are found
    again. ReinceptionError where the data have no such split, and where the models of an ensemble held out different
    images: one of them would be evaluated on its training images.
    """
    again = [one for manifest in manifests if (one := split_as_in_training(source, manifest)) is not None]
    known = again[0] if again else source
    wanted, reason = split, "as asked"
    if wanted is None:
        wanted = next((one for one in ("test", "val") if one in known.splits), None)
        reason = "the default"
        if wanted == "val":
            also = "; val also chose the best weights" if again else ""
            reason = f"the data have no test images, and training images are left out{also}"
    if wanted is None and known.splits:
        raise ReinceptionError(
            f"{source.name}: holds training images only, and a model knows those: name other images, or --split train"
        )
    if wanted is None:
        reason = "the data are not split, and are not those of the training"
        return EvaluationSplit(records=known.records, split=None, as_in_training=False, reason=reason)
    if wanted not in known.splits and not again:
        raise ReinceptionError(
            f"{source.name} has no split {wanted!r}, and the model was trained on other images; "
            "leave --split out to use every image, or put the images into train/, val/ and test/"
        )
    records = known.split(wanted)
    for other in again[1:]:
        if other.split(wanted) != records:
            raise ReinceptionError(
                f"the models split {source.name} differently, so the {wanted} images of one were training images of "
                "another; train them with the same --seed and fractions, or evaluate them on other images"
            )
    return EvaluationSplit(records=records, split=wanted, as_in_training=bool(again), reason=reason)


def split_as_in_training(source: Source, manifest: Manifest) -> Source | None:
    """`source` with the splits of the model's training, or None where the model was trained on other images."""
    data, split = manifest.training.get("data"), manifest.training.get("split")
    if not isinstance(data, Mapping) or not isinstance(split, Mapping):
        return None
    if data.get("fingerprint") != source.fingerprint:
        return None
    seed, val_fraction = split["seed"], split["val_fraction"]
    if split.get("folds") is not None:
        return assign_fold(source, folds=split["folds"], fold=split["fold"], seed=seed, val_fraction=val_fraction)
    return assign_splits(source, seed=seed, val_fraction=val_fraction, test_fraction=split["test_fraction"])
