"""Writes images into tar shards with an index and checksums: in parallel, resumable, verified by reading back."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from reinception.data.images.decode import decode
from reinception.data.images.resize import size_with_shorter_side
from reinception.data.loading.read import bytes_of, watched
from reinception.data.loading.watchdog import Progress, Watchdog
from reinception.data.loading.workers import ordered_map
from reinception.data.sources.records import Record, Source
from reinception.data.sources.shards import FORMAT, INDEX_NAME, ROW_FIELDS, ROWS_NAME
from reinception.data.sources.tar import members
from reinception.errors import BadImage, ReinceptionError
from reinception.files import new_text_file

PER_SHARD = 2000
JPEG_QUALITY = 95
_PLAN_NAME = "plan.json"


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was written: the folder, its shards, the images in them, and those that could not be read."""

    folder: Path
    num_shards: int
    num_images: int
    num_listed: int
    left_out: tuple[BadImage, ...]


def pack(
    source: Source,
    out: Path,
    *,
    shorter_side: int | None = None,
    per_shard: int = PER_SHARD,
    workers: int = 1,
    progress: Progress | None = None,
) -> Packed:
    """Tar shards of `per_shard` images in the source's order, as WebDataset reads them (`00000012.jpg` beside
    `00000012.cls`), with an index for `open_source`.

    Images are decoded, to know that they can be, and copied byte for byte. With `shorter_side` larger ones are decoded,
    resized (Lanczos) and saved as JPEG of quality 95. Every shard is written under a temporary name, read back, and
    then renamed; packing again into the same folder, after an interruption, keeps those whose checksum holds. An image
    that cannot be read is left out and named.
    `ReinceptionError` when the folder holds anything else, or a finished pack.
    """
    plan = {
        "format": FORMAT,
        "fingerprint": source.fingerprint,
        "splits": hashlib.sha256("\n".join(str(record.split) for record in source.records).encode()).hexdigest(),
        "shorter_side": shorter_side,
        "per_shard": per_shard,
    }
    _begin(out, plan)
    tasks = list(range(-(-len(source.records) // per_shard)))
    job = partial(_write_shard, source.records, _Options(out=out, shorter_side=shorter_side, per_shard=per_shard))
    shards: list[dict[str, Any]] = []
    for shard in ordered_map(job, tasks, max(workers, 1)):
        shards.append(shard)
        if progress is not None:
            progress(min(len(shards) * per_shard, len(source.records)), len(source.records))
    left_out = tuple(BadImage(*bad) for shard in shards for bad in shard["left_out"])
    num_images = sum(len(shard["rows"]) for shard in shards)
    if not num_images:
        raise ReinceptionError(f"{source.name}: none of its images can be read: run `reinception data check`")
    _write_rows(source, out / ROWS_NAME, shards)
    index = {
        "format": FORMAT,
        "classes": list(source.classes),
        "num_images": num_images,
        "num_listed": len(source.records),
        "left_out": [[bad.name, bad.reason] for bad in left_out],
        "made_from": plan,
        "shards": [{name: shard[name] for name in ("name", "size", "sha256")} for shard in shards if shard["rows"]],
    }
    with new_text_file(out / INDEX_NAME) as file:
        json.dump(index, file, indent=1)
    for path in (*out.glob("*.rows.json"), out / _PLAN_NAME):
        path.unlink()
    return Packed(
        folder=out,
        num_shards=len(index["shards"]),
        num_images=num_images,
        num_listed=len(source.records),
        left_out=left_out,
    )


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """The folder, new, empty, or begun with the same plan."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = {entry.name for entry in out.iterdir()}
        if found:
            if INDEX_NAME in found or _PLAN_NAME not in found:
                raise ReinceptionError(f"{out}: exists already and is not empty: name another folder")
            if json.loads((out / _PLAN_NAME).read_text(encoding="utf-8")) != plan:
                raise ReinceptionError(f"{out}: was begun from other data or with other options: name another folder")
            return
        with new_text_file(out / _PLAN_NAME) as file:
            json.dump(plan, file)
    except (OSError, ValueError) as error:
        raise ReinceptionError(f"{out}: cannot be used ({error}): name another folder") from error


@dataclass(frozen=True, kw_only=True)
class _Options:
    out: Path
    shorter_side: int | None
    per_shard: int


def _write_shard(records: Sequence[Record], options: _Options, number: int, watchdog: Watchdog) -> dict[str, Any]:
    """One shard: its name, size and sha256, (record, offset, size) of its images, and those that were left out."""
    name, out, per_shard = f"shard-{number:05d}.tar", options.out, options.per_shard
    rows_path = out / f"{name}.rows.json"
    if (done := _finished(out / name, rows_path)) is not None:
        return done
    part, rows, left_out = out / f".{name}.part", list[list[int]](), list[list[str]]()
    with part.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(number * per_shard, min((number + 1) * per_shard, len(records))):
            try:
                with watched(records[index], index, watchdog) as record:
                    data, suffix = _encoded(bytes_of(record, watchdog.pause), record.name, options.shorter_side)
            except BadImage as bad:
                left_out.append([bad.name, bad.kind, bad.reason])
                continue
            rows.append([index, tar.offset + tarfile.BLOCKSIZE, len(data)])
            _add(tar, f"{index:08d}{suffix}", data)
            _add(tar, f"{index:08d}.cls", str(records[index].target).encode())
    with part.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    places = {(member.offset, member.size) for member in members(part)}
    if not all((offset, size) in places for _, offset, size in rows):
        raise ReinceptionError(f"{part}: does not read back as it was written: check the disk")
    shard = {"name": name, "size": part.stat().st_size, "sha256": digest, "rows": rows, "left_out": left_out}
    with new_text_file(rows_path, replace=True) as text:
        json.dump(shard, text)
    if rows:
        part.rename(out / name)
    else:
        part.unlink()
    return shard


def _finished(path: Path, rows_path: Path) -> dict[str, Any] | None:
    """The shard as an earlier attempt described it, if its checksum still holds."""
    try:
        shard = json.loads(rows_path.read_text(encoding="utf-8"))
        if any(len(bad) != 3 for bad in shard["left_out"]):
            return None  # of an earlier version
        if not shard["rows"]:
            return shard
        with path.open("rb") as file:
            return shard if hashlib.file_digest(file, "sha256").hexdigest() == shard["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _encoded(data: bytes, name: str, shorter_side: int | None) -> tuple[bytes, str]:
    """The bytes that are packed, as they are or resized, and their file suffix."""
    suffix = PurePosixPath(name).suffix.lower() or ".img"
    pixels = decode(data, keep_grey=True, at_least=shorter_side)  # also what is copied: a damaged image is named
    height, width = pixels.shape[:2]
    if shorter_side is None or min(height, width) <= shorter_side:
        return data, suffix
    size = size_with_shorter_side(width, height, shorter_side)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue(), ".jpg"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member without date or owner: the same images give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def _write_rows(source: Source, path: Path, shards: Sequence[dict[str, Any]]) -> None:
    with new_text_file(path, replace=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ROW_FIELDS)
        for shard in shards:
            for index, offset, size in shard["rows"]:
                record = source.records[index]
                writer.writerow((record.name, *source.row(record), shard["name"], offset, size))
