"""The ELPV solar-cell dataset, read from the package `elpv-dataset`."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from reinception.data.sources.reading import Reading
from reinception.data.sources.records import Record, Source
from reinception.errors import ReinceptionError

CLASSES = ("functional", "defective")

# Most modules have 60 cells. The types do not show where the short module of a long run lies; it was found by moving
# the boundaries until they explained most of the variance of the file sizes (91 % against 87 to 89 %).
_MODULE_CELLS = 60
_SHORT_MODULES = {714: (9, 54), 530: (7, 50)}  # cells in the run -> (whole modules before the short one, its cells)


def open_elpv() -> Source:
    """2,624 electroluminescence images of solar cells, 300x300 grey, as `functional` (0) or `defective` (1).

    Experts gave every cell one of four probabilities of a defect; 1/2 and more means defective: 821 of 2,624. There is
    no official split. `stratum` is crystal type and probability; `group` is the solar module, inferred by `modules`.
    Deitsch et al., Solar Energy 185 (2019); the data are CC-BY-NC-SA-4.0.

    Raises `ReinceptionError` when the package is not installed or its label file cannot be read; does not import it.
    """
    spec = find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise ReinceptionError('elpv: the solar-cell data are not installed: pip install "reinception[demo]"')
    root = Path(spec.submodule_search_locations[0]) / "data"
    cells = _read_labels(root / "labels.csv")
    groups = modules([kind for _, _, kind in cells])
    records = [
        Record(
            path=root / name,
            name=name,
            target=int(probability >= 0.5),
            group=f"module {group:02d}",
            stratum=f"{kind} {probability:.2f}",
        )
        for (name, probability, kind), group in zip(cells, groups, strict=True)
    ]
    reading = Reading(layout="the ELPV solar cells", labels="the experts' probability of a defect, 1/2 and more")
    return Source(name="elpv", root=root, classes=CLASSES, records=tuple(records), reading=reading)


def modules(types: list[str]) -> list[int]:
    """The module number, from 0, of each cell, given the crystal types ("mono", "poly") in file order.

    Cells were cut from modules of 60 in file order, so a run of one type is cut into sixties; a rest shorter than a
    module closes the run, except in the two runs where it is known to lie elsewhere. Runs under 120 cells stay whole.
    On the published list this gives 44 modules, 18 mono and 26 poly: the published counts.
    """
    numbers: list[int] = []
    for _, run in groupby(types):
        length = len(list(run))
        for cells in _cells_per_module(length):
            numbers += [numbers[-1] + 1 if numbers else 0] * cells
    return numbers


def _cells_per_module(length: int) -> list[int]:
    if length < 2 * _MODULE_CELLS:
        return [length]
    num_whole, rest = divmod(length, _MODULE_CELLS)
    position, short = _SHORT_MODULES.get(length, (num_whole, rest))
    return [_MODULE_CELLS] * position + [short] * (short > 0) + [_MODULE_CELLS] * (num_whole - position)


def _read_labels(path: Path) -> list[tuple[str, float, str]]:
    """(file name, probability of a defect, crystal type) per line; columns separated by white space, no header."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReinceptionError(f"{path}: cannot be read: install elpv-dataset again") from error
    cells = []
    for number, line in enumerate(lines, start=1):
        try:
            name, probability, kind = line.split()
            cells.append((name, float(probability), kind))
        except ValueError as error:
            raise ReinceptionError(
                f"{path}, line {number}: is not `path probability type`: install it again"
            ) from error
    return cells
