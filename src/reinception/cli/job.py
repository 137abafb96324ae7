"""Flags of a job over many images, and how a verb does one: one file for all rows, parts, going on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reinception.cli.counter import job_counter, say
from reinception.cli.ranks import is_first
from reinception.errors import ReinceptionError
from reinception.files import refuse_existing
from reinception.inference.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable

    from reinception.inference.compute import Compute
    from reinception.inference.engine import Engine
    from reinception.inference.jobs.result_rows import Result
    from reinception.inference.jobs.run_job import ImageJob, JobDone


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of a verb that writes one row for each of many images."""

    out: Path | None = None
    """write one row per image, a bad one with its reason, to a .csv, .jsonl, .parquet or .npz file, never over another
    file; until it is whole, what is done is kept beside it, in PATH.job"""

    shard: Shard | None = None
    """only part I of N equal parts of the list of images; the parts one after another are the whole (needs -o)"""

    resume: bool = False
    """continue the job of -o where it was interrupted; begins one that has not begun, leaves a finished one alone"""

    def counter(self, paths: tuple[str, ...]) -> Callable[[int, int | None], None]:
        """A counter of the images of this job, which are counted beside the work."""

        def count() -> int:
            from reinception.inference.stream import num_items

            num = num_items(paths)
            return num if self.shard is None else len(self.shard.range(num))

        return job_counter("images", count)

    def is_done(self) -> bool:
        """Whether a finished job is to be left alone, which is then said. ReinceptionError for an existing file."""
        assert self.out is not None
        if not self.resume:
            refuse_existing(self.out)
        elif self.out.exists():
            from reinception.inference.jobs.journal import tidy

            tidy(self.out)
            print(f"{self.out}: is there already, whole; nothing to do")
            return True
        return False


def do_job(job: ImageJob[Result], engine: Engine, compute: Compute) -> JobDone:
    """Do the job, name its bad images, and say what was written: the first of several processes does, for all."""
    from reinception.inference.jobs.run_job import run_job

    def notice(one: Result) -> None:
        if one.error is not None:
            say(f"{one.path}: {one.error}")

    done = run_job(job, engine, compute, notice)
    if is_first(compute) and job.out.exists():
        print(f"{job.out}: {done.rows:,} rows" + (f", {done.failed:,} of them without a result" * bool(done.failed)))
    return done


def require_all(done: JobDone) -> None:
    """ReinceptionError where there were bad images. To be called when all processes are through: one that ends earlier
    is taken for dead by the others."""
    if done.failed:
        rest = done.rows - done.failed
        raise ReinceptionError(f"{done.failed:,} could not be read; the other {rest:,} are done")
