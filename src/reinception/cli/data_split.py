"""`reinception data split`: a manifest whose splits do not leak."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.cli.counter import counter
from reinception.cli.flags import Common
from reinception.errors import UsageError
from reinception.files import refuse_existing
from reinception.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    data: str

    out: Path
    """the .csv manifest to write, DATA for train; never over a file"""

    group_by: str | None = None
    """what stays together: a column of a manifest, folder, regex:PATTERN on the names, or group (of elpv, the solar
    module)"""

    folds: int | None = None
    """write N manifests that test on another part each"""

    val_fraction: float = TrainConfig.val_fraction
    """fraction of the images for val"""

    test_fraction: float = TrainConfig.test_fraction
    """fraction of the images for test"""

    no_compare: bool = False
    """read no image, and so do not look for those that are the same: seconds for a million"""

    seed: int = TrainConfig.seed
    """another seed, another split"""

    workers: int = Common.workers


def run(options: SplitOptions) -> None:
    """Write a manifest with train, val and test that do not leak.

    The splits are stratified by class. Images of one group, and images that are the same, stay in one split.

    Example: reinception data split photos -o photos.csv --group-by folder
    """
    from reinception.data.prepare.audit import same_images
    from reinception.data.prepare.group_split import group_split, grouped, write_manifest
    from reinception.data.sources.open_source import open_source
    from reinception.data.sources.understanding import understand

    out = options.out
    if out.suffix.lower() != ".csv":
        raise UsageError(f"-o {out}: name a .csv file")
    folds = options.folds
    outs = [out] if folds is None else [out.with_name(f"{out.stem}.fold{fold}.csv") for fold in range(folds)]
    for path in outs:
        refuse_existing(path)
    by = options.group_by
    is_column = by is not None and by not in ("group", "folder") and not by.startswith("regex:")
    source = open_source(options.data, group_column=by if is_column else None)
    source = source if is_column else grouped(source, by)
    same = None
    if not options.no_compare:
        same = same_images(source.records, workers=options.workers, progress=counter("images"))
    divisions = group_split(
        source,
        same,
        seed=options.seed,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        folds=folds,
    )
    print(understand(source))
    if source.splits:
        print(f"the splits that {source.name} had ({', '.join(source.splits)}) are not kept")
    for path, division in zip(outs, divisions, strict=True):
        write_manifest(division.source, path)
        print(f"{path}\n{division.summary()}")
