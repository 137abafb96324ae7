"""Finds the images behind a run's predictions where the run read them: in folders, by manifest, in tar files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reinception.data.sources.manifest import SUFFIXES
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.data.sources.shards import holds_shards
from reinception.errors import ReinceptionError


def find_records(config: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Record]:
    """By name the records of those of `names` that the data of a run's `config` still list; none where they moved.

    Only tar files and manifests are opened; in a folder the name is the path.
    """
    root = config.get("root")
    if not root:
        return {}
    data = str(config.get("data", ""))
    place: str | Path = "elpv" if data == "elpv" else manifest_of(config) or Path(root)
    if place == Path(root) and not holds_shards(Path(root)):
        return {name: Record(path=Path(root, name), name=name, target=0) for name in names}
    try:
        source = open_source(place)
    except ReinceptionError:
        return {}
    wanted = frozenset(names)
    return {record.name: record for record in source.records if record.name in wanted}


def manifest_of(config: Mapping[str, Any]) -> Path | None:
    """The CSV or JSON-lines file that lists the run's images, where it still is; None for other data."""
    path = Path(str(config.get("root", "")), Path(str(config.get("data", ""))).name)
    return path if path.suffix.lower() in SUFFIXES and path.is_file() else None
