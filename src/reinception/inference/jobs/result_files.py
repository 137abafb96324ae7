"""The files a job writes: .csv and .jsonl grow line by line; .parquet and .npz are made of the finished rows."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, final

import numpy as np

from reinception.errors import ReinceptionError, UsageError
from reinception.files import json_text
from reinception.inference.jobs.npz import lines_of, write_npz
from reinception.inference.jobs.result_rows import Cell, Result, Rows
from reinception.metrics import csv_line

if TYPE_CHECKING:
    from types import ModuleType

GROUP_ROWS = 1 << 15
"""Rows of a row group of Parquet: a number of its own, so that the file does not depend on how the job went."""


class Format(Generic[Result]):
    """One kind of file: the streams that rows are appended to, and what is made of them in the end."""

    def __init__(self, rows: Rows[Result]) -> None:
        self.rows = rows

    @property
    @abstractmethod
    def streams(self) -> Mapping[str, bytes]:
        """The names of the streams, each with what it begins with."""

    @abstractmethod
    def parts(self, result: Result) -> Sequence[bytes]:
        """What a result adds to each stream."""

    @abstractmethod
    def finished(self, folder: Path) -> Path | None:
        """The finished file, in `folder`, in which the streams lie; None where there is nothing to write."""


@final
class Csv(Format[Result]):
    """One line for each image; the features or labels in columns of their own."""

    @property
    def streams(self) -> Mapping[str, bytes]:
        names = [name for name, _ in self.rows.columns]
        vector = [f"{self.rows.vector}_{index}" for index in range(self.rows.width)]
        return {"rows.csv": _line([*names, *(vector if self.rows.has_vector_column else [])])}

    def parts(self, result: Result) -> Sequence[bytes]:
        cells = ["" if cell is None else str(cell) for cell in self.rows.cells(result)]
        if not self.rows.has_vector_column:
            return (_line(cells),)
        values = self.rows.values(result)
        numbers = [""] * self.rows.width if values is None else map(str, values)
        return (_line(cells)[:-1] + f",{','.join(numbers)}\n".encode(),)

    def finished(self, folder: Path) -> Path:
        return folder / "rows.csv"


@final
class JsonLines(Format[Result]):
    """One JSON object for each image, as `--json` has them in a list."""

    @property
    def streams(self) -> Mapping[str, bytes]:
        return {"rows.jsonl": b""}

    def parts(self, result: Result) -> Sequence[bytes]:
        return (json_text(self.rows.document(result)).encode() + b"\n",)

    def finished(self, folder: Path) -> Path:
        return folder / "rows.jsonl"


class _Spooled(Format[Result]):
    """Rows as JSON lines and vectors as raw float32, until all are known."""

    @property
    def streams(self) -> Mapping[str, bytes]:
        return {"rows": b"", "values": b""}

    def parts(self, result: Result) -> Sequence[bytes]:
        values = self.rows.values(result) if self.keeps_vectors else None
        line = json.dumps([values is not None, *self.rows.cells(result)]).encode() + b"\n"
        return line, b"" if values is None else values.astype(np.float32, copy=False).tobytes()

    @property
    def keeps_vectors(self) -> bool:
        return True


@final
class Npz(_Spooled[Result]):
    """The vectors as one array beside `paths`; `failed` and `reasons` name the images that have none."""

    def finished(self, folder: Path) -> Path | None:
        rows, made = folder / "rows", folder / "result.npz"
        error = 1 + [name for name, _ in self.rows.columns].index("error")  # after whether there is a vector
        num = sum(has for has, *_ in lines_of(rows))
        texts = {
            "paths": lambda: (path for has, path, *_ in lines_of(rows) if has),
            "failed": lambda: (path for has, path, *_ in lines_of(rows) if not has),
            "reasons": lambda: (line[error] for line in lines_of(rows) if not line[0]),
        }
        with (folder / "values").open("rb") as values:
            write_npz(made, (self.rows.vector, num, self.rows.width, values), texts, self.rows.constants)
        return made if num else None


@final
class Parquet(_Spooled[Result]):
    """A table with the columns of the .csv; features are one column of lists. Needs pyarrow (extra `parquet`)."""

    @property
    def keeps_vectors(self) -> bool:
        return self.rows.has_vector_column

    def finished(self, folder: Path) -> Path:
        arrow, parquet = _pyarrow()
        kinds = {"text": arrow.string(), "number": arrow.float32()}
        fields = [(name, kinds[kind]) for name, kind in self.rows.columns]
        if self.rows.has_vector_column:
            fields.append((self.rows.vector, arrow.list_(arrow.float32())))
        schema, made = arrow.schema(fields), folder / "result.parquet"
        with (
            (folder / "rows").open("rb") as rows,
            (folder / "values").open("rb") as values,
            parquet.ParquetWriter(made, schema) as writer,
        ):
            while lines := [json.loads(line) for line in islice(rows, GROUP_ROWS)]:
                columns = [[_utf8(line[1 + number]) for line in lines] for number in range(len(self.rows.columns))]
                arrays = [arrow.array(column, kind) for column, (_, kind) in zip(columns, fields, strict=False)]
                if self.rows.has_vector_column:
                    arrays.append(self._vectors(arrow, [line[0] for line in lines], values))
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema), row_group_size=GROUP_ROWS)
        return made

    def _vectors(self, arrow: ModuleType, has: list[bool], values: IO[bytes]) -> Any:
        """The vectors of rows as an array of lists, null where a row has none."""
        width = self.rows.width
        numbers = np.frombuffer(values.read(4 * width * sum(has)), dtype=np.float32)
        offsets = np.concatenate([[0], np.cumsum(has)]).astype(np.int32) * width
        starts = arrow.array(offsets, mask=np.array([*(not one for one in has), False]))  # a row without one is null
        return arrow.ListArray.from_arrays(starts, arrow.array(numbers))


FORMATS = {".csv": Csv, ".jsonl": JsonLines, ".npz": Npz, ".parquet": Parquet}


def require_format(out: Path) -> None:
    """UsageError where the ending of `out` names no format; ReinceptionError where it needs pyarrow, which is not
    installed."""
    if (ending := out.suffix.lower()) not in FORMATS:
        raise UsageError(f"{out}: the ending of -o says what is written: {', '.join(FORMATS)}")
    if FORMATS[ending] is Parquet:
        _pyarrow()


def format_of(out: Path, rows: Rows[Result]) -> Format[Result]:
    """The format that the ending of `out` names, as `require_format`."""
    require_format(out)
    return FORMATS[out.suffix.lower()](rows)


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ReinceptionError(
            ".parquet needs pyarrow: pip install 'reinception[parquet]', or write .csv or .jsonl"
        ) from None
    return pyarrow, pyarrow.parquet


def _line(cells: Sequence[str]) -> bytes:
    return csv_line(cells).encode("utf-8", "surrogateescape")


def _utf8(cell: Cell) -> Cell:
    """A file name that is not UTF-8 with its bytes escaped, since Parquet knows no other text."""
    if isinstance(cell, str) and not cell.isascii():
        return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return cell
