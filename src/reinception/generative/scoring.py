"""REAL and GENERATED, whatever they are, to every score asked for: what `reinception score` prints and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reinception import machine
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.generative.classifier_score import inception_score
from reinception.generative.extract import features_of_records, records_of
from reinception.generative.extractor import Extractor, load_extractor
from reinception.generative.feature_set import gaussian
from reinception.generative.frechet import FrechetResult, compare_fid, fid, fid_of
from reinception.generative.kernel import kid
from reinception.generative.moments import moments_of
from reinception.generative.neighbours import precision_recall
from reinception.generative.score_config import ScoreConfig
from reinception.generative.statistics_file import FeatureRows, Statistics, read_file, save_statistics
from reinception.inference.compute import Compute

# What the scores are called with features of another network than FID's: they cannot be compared with published ones.
_OTHER_NAMES = {"fid": "frechet_distance", "kid": "kernel_distance", "is": "classifier_score"}
_FULL_RANGE_FRACTION, _FULL_RANGE_LEAST = 0.95, 20


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreReport:
    """`scores` by name, each with `value` and `interval`; what was scored, with what; `contents` are the two sets'
    features or statistics.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> np.savez("real.npz", features=draw(size=(60, 2)))
        >>> np.savez("new.npz", features=draw(2, size=(60, 2)))
        >>> config = ri.generative.ScoreConfig(metrics="fid,kid")
        >>> sorted(ri.generative.score("real.npz", "new.npz", config).scores)
        ['frechet_distance', 'kernel_distance']
    """

    scores: Mapping[str, Mapping[str, Any]]
    sets: Mapping[str, Mapping[str, Any]]
    extractor: Mapping[str, Any]
    compute: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    contents: Mapping[str, FeatureRows | Statistics] = field(default_factory=dict, repr=False)

    def save_statistics(self, name: Literal["real", "generated"], path: str | Path) -> Path:
        """Writes the statistics of one of the sets to a new .npz, which can stand for its images from then on."""
        content = self.contents[name]
        if isinstance(content, Statistics):
            raise ReinceptionError(f"{self.sets[name]['path']}: is a statistics file already")
        told = {**content.provenance, "num_distinct": self.sets[name].get("num_distinct"), "versions": _versions()}
        return save_statistics(path, moments_of(content.features), told)

    def to_json(self) -> dict[str, Any]:
        """The scores by name beside `real`, `generated`, `extractor`, `compute`, `versions` and `warnings`."""
        return {
            **{name: dict(score) for name, score in self.scores.items()},
            **{name: dict(told) for name, told in self.sets.items()},
            "extractor": dict(self.extractor),
            "compute": dict(self.compute),
            "versions": _versions(),
            "warnings": list(self.warnings),
        }

    def lines(self) -> tuple[str, ...]:
        """For people: one line for each score, each set, the extractor, each warning."""
        scores = [_line(name, score) for name, score in self.scores.items()]
        sets = []
        for name, told in self.sets.items():
            parts = [f"{told['num_images']} images" if told["num_images"] is not None else "statistics"]
            if told.get("num_distinct") not in (None, told["num_images"]):
                parts.append(f"{told['num_distinct']} of them different")
            if told.get("errors"):
                parts.append(f"{len(told['errors'])} could not be used, first {told['errors'][0]['path']}")
            if told.get("cached"):
                parts.append(f"cached on {told['cached']['date']} from {told['cached']['num_images']} images")
            sets.append(f"{name}: {told['path']}: {', '.join(parts)}")
        known = [f"{key} {str(self.extractor[key])[:12]}" for key in ("mode", "extractor") if key in self.extractor]
        return (*scores, *sets, *([", ".join(known)] if known else []), *(f"warning: {one}" for one in self.warnings))


def score(
    real: str | Path,
    generated: str | Path,
    config: ScoreConfig | None = None,
    compute: Compute | None = None,
    *,
    against: str | Path | None = None,
) -> ScoreReport:
    """The scores of GENERATED against REAL: folders, manifests, shards, or .npz of statistics or features.

    With `against`, another generator's images, also which of the two has the smaller FID, with an interval.

    ReinceptionError, one line, for what cannot be scored: a set without images, statistics where features are needed,
    sets of different extractors or modes, and what the metrics refuse.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> np.savez("first.npz", features=draw(size=(60, 2)))
        >>> np.savez("second.npz", features=draw(size=(60, 2)))
        >>> len(ri.generative.score("first.npz", "second.npz", ri.generative.ScoreConfig(metrics="kid")).scores)
        1
    """
    chosen, how = config or ScoreConfig(), compute or Compute()
    if against is not None and "fid" not in chosen.names:
        raise UsageError("against: two generators are compared by fid, which is not among the metrics")
    opened = _Sets(chosen, how)
    sides = {"real": opened.open(real, "real"), "generated": opened.open(generated, "generated")}
    if against is not None:
        sides["against"] = opened.open(against, "against")
    known = _same_origin(sides)
    scores: dict[str, Mapping[str, Any]] = {}
    is_fid = any(side.provenance.get("is_fid") for side in sides.values())
    common = {"mode": known.get("mode")}
    for metric in chosen.names:
        name = metric if is_fid else _OTHER_NAMES.get(metric, metric)
        for key, values in _METRICS[metric](sides["real"], sides["generated"], chosen).items():
            scores[key or name] = {**values, **common}
    if against is not None:
        name = "fid" if is_fid else _OTHER_NAMES["fid"]
        scores[f"{name}_difference"] = {**_difference(sides, chosen), **common}
    return ScoreReport(
        scores=scores,
        sets={name: side.told for name, side in sides.items()},
        extractor=known,
        compute=opened.told,
        warnings=tuple(warning for side in sides.values() for warning in side.warnings),
        contents={name: side.content for name, side in sides.items()},
    )


# -- the two sets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """One set: features or statistics, where they come from, and what the result says of it."""

    path: str
    content: FeatureRows | Statistics
    extractor: Extractor | None = None
    told: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.content.provenance

    def rows(self, metric: str) -> FeatureRows:
        """The features. ReinceptionError where only statistics are given."""
        if isinstance(self.content, FeatureRows):
            return self.content
        raise ReinceptionError(f"{self.path}: {metric} needs the images or their features; these are statistics")


@dataclass(eq=False)
class _Sets:
    """Opens the sets, with one extractor, loaded when the first images need it."""

    config: ScoreConfig
    compute: Compute
    extractor: Extractor | None = None
    told: dict[str, Any] = field(default_factory=dict)

    def open(self, data: str | Path, name: str) -> _Side:
        if Path(data).suffix.lower() in (".npz", ".npy"):
            content = read_file(data)
            if isinstance(content, Statistics):
                return _Side(path=str(data), content=content, told=_told(data, content.num_images))
            return _Side(path=str(data), content=content, told=_told(data, len(content.features)))
        records = records_of(data)
        if self.extractor is None:
            self.extractor = load_extractor(self.config.weights, self.config.mode)
        found = features_of_records(self.extractor, records, self.compute, self.config.cache)
        self.told = {
            "device": found.device,
            "precision": found.precision,
            "backend": found.backend,
            "batch_size": self.compute.batch_size,
        }
        cached = {"date": found.cached_on, "num_images": found.num_cached} if found.num_cached else None
        if not len(found.features):
            first = f", first {found.errors[0]}" if found.errors else ""
            raise ReinceptionError(f"{data}: none of {found.num_found} images can be used{first}")
        told = _told(data, len(found.features)) | {
            "num_found": found.num_found,
            "num_distinct": found.num_distinct,
            "errors": [_error(one) for one in found.errors],
            "cached": cached,
        }
        content = FeatureRows(features=found.features, provenance=self.extractor.provenance())
        warnings = _warnings(name, len(found.features), found.num_full_range)
        return _Side(path=str(data), content=content, extractor=self.extractor, told=told, warnings=warnings)


def _told(data: str | Path, num: int | None) -> dict[str, Any]:
    return {"path": str(data), "num_images": num}


def _error(why: BadImage) -> dict[str, str | None]:
    return {"path": why.name, "kind": why.kind, "reason": why.reason}


def _warnings(name: str, num: int, num_full_range: int) -> tuple[str, ...]:
    if num < _FULL_RANGE_LEAST or num_full_range < _FULL_RANGE_FRACTION * num:
        return ()
    return (
        f"{name}: {num_full_range:,} of {num:,} images span exactly 0 to 255: if each was stretched to its own minimum "
        "and maximum, the scores are not comparable",
    )


def _same_origin(sides: Mapping[str, _Side]) -> Mapping[str, Any]:
    """What is known of the extractor and the mode. ReinceptionError where the sets differ in either."""
    known: dict[str, Any] = {}
    for side in sides.values():
        for key in ("extractor", "mode"):
            own = side.provenance.get(key)
            if own is not None and known.get(key, own) != own:
                both = f"{str(own)[:12]}, the other of {str(known[key])[:12]}"
                raise ReinceptionError(f"{side.path}: is of another {key} ({both}): compute both alike")
        known = {**side.provenance, **known}
    return known


# -- the metrics: {name, or "" for the metric's own: values} -----------------------------------------------------------

_Found = dict[str, dict[str, Any]]


def _counts(real: _Side, generated: _Side) -> dict[str, Any]:
    return {"num_real": real.told["num_images"], "num_generated": generated.told["num_images"]}


def _fid(real: _Side, generated: _Side, config: ScoreConfig) -> _Found:
    a, b = real.content, generated.content
    notes: list[str] = []
    if isinstance(a, FeatureRows) and isinstance(b, FeatureRows):
        found = fid(real=a.features, generated=b.features, seed=config.seed)
    else:
        sides = [
            moments_of(one.features) if isinstance(one, FeatureRows) else gaussian(one.mu, one.sigma, side.path)
            for one, side in ((a, real), (b, generated))
        ]
        found = fid_of(sides[0], sides[1], num=(real.told["num_images"], generated.told["num_images"]))
    unknown = [side.path for side in (real, generated) if not side.provenance.get("extractor")]
    if unknown and len(unknown) < 2:
        notes.append(f"{unknown[0]} does not say of which extractor and mode it is: taken for the same")
    return {"": frechet_json(found) | {"notes": [*found.notes, *notes]} | _counts(real, generated)}


def _difference(sides: Mapping[str, _Side], config: ScoreConfig) -> dict[str, Any]:
    """The distance of `generated` less that of `against`, what both say of the real images cancelled."""
    rows = [sides[name].rows("a comparison of generators").features for name in ("real", "generated", "against")]
    found = compare_fid(real=rows[0], a=rows[1], b=rows[2], seed=config.seed)
    words = {"A": "GENERATED is nearer to the real images", "B": "the other is nearer to the real images"}
    better = {"A": "generated", "B": "against", None: None}[found.better]
    return {
        "value": found.value,
        "interval": list(found.interval),
        "standard_error": found.standard_error,
        "better": better,
        "against": frechet_json(found.b),
        "seed": config.seed,
        "notes": [words.get(found.better or "", "no difference is shown")],
    }


def frechet_json(found: FrechetResult) -> dict[str, Any]:
    """A FrechetResult as JSON values."""
    return {
        "value": found.value,
        "interval": _pair(found.interval),
        "infinite": found.infinite,
        "bias": found.bias,
        "standard_error": found.standard_error,
        "seed": found.seed,
        "notes": list(found.notes),
    }


def _kid(real: _Side, generated: _Side, config: ScoreConfig) -> _Found:
    found = kid(
        real=real.rows("kid").features,
        generated=generated.rows("kid").features,
        num_subsets=config.subsets,
        subset_size=config.subset_size,
        seed=config.seed,
    )
    values = {
        "value": found.value,
        "interval": _pair(found.interval),
        "contains_zero": found.contains_zero,
        "standard_error": found.standard_error,
        "spread": found.spread,
        "full": found.full,
        "subset_size": found.subset_size,
        "num_subsets": found.num_subsets,
        "seed": found.seed,
        "notes": list(found.notes),
    }
    return {"": values | _counts(real, generated)}


def _is(real: _Side, generated: _Side, config: ScoreConfig) -> _Found:
    rows = generated.rows("is")
    logits = rows.logits if generated.extractor is None else generated.extractor.logits(rows.features)
    if logits is None:
        raise ReinceptionError(f"{generated.path}: is needs the images, or a file of features that has logits too")
    found = inception_score(logits, splits=min(config.splits, len(logits)), logits=True)
    values = {
        "value": found.value,
        "interval": _pair(found.interval),
        "standard_error": found.standard_error,
        "spread": found.spread,
        "whole": found.whole,
        "splits": found.splits,
    }
    return {"": values | {"num_generated": found.num_generated}}


def _prdc(real: _Side, generated: _Side, config: ScoreConfig) -> _Found:
    found = precision_recall(
        real=real.rows("prdc").features, generated=generated.rows("prdc").features, k=config.neighbours
    )
    names = ("precision", "recall", "density", "coverage")
    return {
        name: {"value": getattr(found, name), "interval": _pair(found.interval(name)), "k": found.k}
        | _counts(real, generated)
        for name in names
    }


_METRICS = {"fid": _fid, "kid": _kid, "is": _is, "prdc": _prdc}


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _line(name: str, score: Mapping[str, Any]) -> str:
    interval = score["interval"]
    text = f"{name}: {score['value']:.6g}"
    if score.get("infinite") is not None:
        text += f"; for infinitely many images {score['infinite']:.6g}"
    if interval is not None:
        text += f" (95 % {interval[0]:.6g} to {interval[1]:.6g})"
    if score.get("contains_zero"):
        text += ", contains 0"
    return "; ".join([text, *score.get("notes", [])])


def _versions() -> Mapping[str, object]:
    versions = machine.examine()["versions"]
    assert isinstance(versions, Mapping)
    return versions
