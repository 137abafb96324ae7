"""One job from a list of images to one file: it can be killed at any moment, and continued to the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic

from reinception.errors import Interrupted
from reinception.inference.compute import Compute, Progress
from reinception.inference.engine import Engine
from reinception.inference.jobs.journal import Journal
from reinception.inference.jobs.result_files import format_of
from reinception.inference.jobs.result_rows import Result, Rows
from reinception.inference.shard import Shard
from reinception.inference.stream import Item, expand, num_items


@dataclass(frozen=True, kw_only=True)
class ImageJob(Generic[Result]):
    """What is to be done: the `results` of items as `rows` of the file `out`.

    `asked` is what determines the results beside the engine and the images, as texts by name.
    """

    out: Path
    paths: tuple[str | Path, ...]
    rows: Rows[Result]
    results: Callable[[Iterator[Item]], Iterator[Result]]
    asked: Mapping[str, str]
    shard: Shard | None = None
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class JobDone:
    """How many rows a job has written, and how many of them have a reason in place of a result."""

    rows: int
    failed: int


def run_job(job: ImageJob[Result], engine: Engine, compute: Compute, notice: Callable[[Result], None]) -> JobDone:
    """Do or continue a job; `notice` is called with each result that is new.

    `compute` has the ranks and the progress, which counts the rows of an earlier start, too; that of the engine has no
    progress of its own.

    Rows are committed only where the images before them have filled whole blocks: what is computed together then does
    not depend on where the job was interrupted. With ranks all call this, and the first writes.

    Raises:
        ReinceptionError: as `Journal`, or the list of images is no longer the same.
        Interrupted: on Ctrl-C, in order; what has been committed is kept.
    """
    how = {"precision": engine.precision, "backend": engine.backend.name}
    items, asked = expand(job.paths), dict(job.asked) | how
    if job.shard is not None:
        total = num_items(job.paths)
        part = job.shard.range(total)
        items = islice(items, part.start, part.stop)
        asked |= {"shard": str(job.shard), "images": str(total)}
    if compute.ranks is not None and not compute.ranks.is_first:
        for _ in job.results(islice(items, int(compute.ranks.from_first(0)), None)):
            pass
        return JobDone(rows=0, failed=0)
    kind = format_of(job.out, job.rows)
    with Journal(job.out, asked, kind.streams, resume=job.resume) as journal:
        journal.skip(item.name for item in islice(items, journal.rows))
        if compute.ranks is not None:
            compute.ranks.from_first(journal.rows)
        try:
            _append(journal, kind.parts, job.results(items), engine.block_size, (notice, compute.progress))
            journal.commit()
            journal.finish(kind.finished(journal.folder))
        except Interrupted:
            raise
        except KeyboardInterrupt:
            raise Interrupted("", again=("--resume",)) from None
        return JobDone(rows=journal.rows, failed=journal.failed)


def _append(
    journal: Journal,
    parts: Callable[[Result], Sequence[bytes]],
    results: Iterator[Result],
    block: int,
    told: tuple[Callable[[Result], None], Progress | None],
) -> None:
    notice, progress = told
    for result in results:
        is_bad = result.error is not None
        journal.append(result.path, parts(result), failed=is_bad)
        notice(result)
        if progress is not None:
            progress(journal.rows, None)
        if journal.is_due and not is_bad and (journal.rows - journal.failed) % block == 0:
            journal.commit()
    if progress is not None:
        progress(journal.rows, journal.rows)


def fingerprint(file: Path) -> str:
    """The sha256 of a model file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
