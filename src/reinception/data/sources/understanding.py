"""What was understood of a source, on one screen: classes and splits with counts, what was left out, what is odd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reinception.data.sources.labels import are_numbers, listed, missing_words, shown, twins
from reinception.data.sources.reading import Ignored
from reinception.data.sources.records import Source

MOST_CLASSES = 20
"""Classes in the text; the odd ones first. `to_json` has all."""
_FEW = 2


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """`classes` maps each class to its number of images in each split ("" where it has none); `odd` are sentences."""

    name: str
    layout: str
    labels: str
    splits: tuple[str, ...]
    classes: dict[str, dict[str, int]]
    ignored: tuple[Ignored, ...]
    odd: tuple[str, ...]

    @property
    def totals(self) -> dict[str, int]:
        """The number of images in each split."""
        totals: dict[str, int] = {}
        for counts in self.classes.values():
            for split, num in counts.items():
                totals[split] = totals.get(split, 0) + num
        return {split: totals[split] for split in ("train", "val", "test", "") if split in totals}

    def to_json(self) -> dict[str, Any]:
        ignored = [{"kind": one.kind, "count": one.count, "example": one.example} for one in self.ignored]
        return {
            "layout": self.layout,
            "labels": self.labels,
            "splits_from": list(self.splits),
            "splits": {split or "no split": num for split, num in self.totals.items()},
            "classes_by_split": self.classes,
            "ignored": ignored,
            "odd": list(self.odd),
        }

    def __str__(self) -> str:
        """At most one screen: doubts first, then splits, what was left out, and the classes, the smallest first."""
        totals = self.totals
        lines = [f"{self.name}: {sum(totals.values()):,} images of {len(self.classes):,} classes; {self.layout}"]
        lines += [f"  NOTE: {sentence}" for sentence in self.odd]
        lines.append(f"  labels: {self.labels or 'as given'}")
        by_split = ", ".join(f"{split or 'without a split'} {num:,}" for split, num in totals.items())
        lines.append(f"  splits: {by_split}" + (f" ({'; '.join(self.splits)})" if self.splits else ""))
        lines += [f"  left out: {one.count:,} {one.kind}, such as {shown(one.example)}" for one in self.ignored]
        columns = list(totals)
        order = sorted(self.classes, key=lambda label: (min(self.classes[label].get(one, 0) for one in columns), label))
        for label in order[:MOST_CLASSES]:
            counts = ", ".join(f"{split} {self.classes[label].get(split, 0):,}".strip() for split in columns)
            lines.append(f"  class {shown(label)[1:-1]}: {counts}")
        if len(order) > MOST_CLASSES:
            lines.append(f"  and {len(order) - MOST_CLASSES:,} more classes with as many images or more")
        return "\n".join(lines)


def understand(source: Source) -> Understanding:
    """What was understood of a source, with the splits that it has now."""
    classes: dict[str, dict[str, int]] = {label: {} for label in source.classes}
    for (target, split), num in sorted(source.counts().items(), key=lambda item: (item[0][0], item[0][1] or "~")):
        classes[source.classes[target]][split or ""] = num
    reading = source.reading
    return Understanding(
        name=source.name,
        layout=reading.layout,
        labels=reading.labels,
        splits=reading.splits,
        classes=classes,
        ignored=reading.ignored,
        odd=(*reading.remarks, *_odd_labels(source.classes), *_odd_splits(source.splits, classes)),
    )


def _odd_labels(labels: tuple[str, ...]) -> Iterator[str]:
    for group in twins(labels)[:_FEW]:
        yield f"the classes {listed(group)} differ only in case, spaces or how a number is written: are they one?"
    if (missing := missing_words(labels)) and len(missing) < len(labels):
        rest = [label for label in labels if label not in missing]
        among = " among numbers" if are_numbers(rest) else ""
        yield f"the class {listed(missing)}{among} is what programs write where a label is missing: is it meant?"
    if odd := [label for label in labels if shown(label)[1:-1].replace("\\'", "'").replace("\\\\", "\\") != label]:
        yield f"the names of classes hold characters that cannot be seen or are not UTF-8: {listed(odd)}"


def _odd_splits(splits: tuple[str, ...], classes: dict[str, dict[str, int]]) -> Iterator[str]:
    """Once images are divided: what is not held out, or cannot be learned."""
    if "train" not in splits or any("" in counts for counts in classes.values()):
        return
    if "val" not in splits:
        yield "no image is in val: training takes a part of train for it, where classes have enough images"
    if "test" not in splits:
        yield "no image is held out for test: nothing will say how good the model is on new images"
    for split in ("val", "test"):
        without = [label for label, counts in classes.items() if not counts.get(split)]
        if len(without) == len(classes):
            continue
        if without:
            yield f"{len(without):,} of {len(classes):,} classes have no image in {split}: {listed(without)}"
