"""The run folder: every file of a run is written here, whole or not at all, and never over an older run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reinception.errors import ReinceptionError
from reinception.files import is_temporary, write_json
from reinception.metrics import PredictionTable, csv_line
from reinception.model.artifact import MODEL_NAME, Manifest, save
from reinception.model.build import Network
from reinception.train.run.checkpoint import KEPT

LAST_NAME = "last.safetensors"
FOLLOWED = ("metrics.jsonl", "results.csv")
# All that a run may have before its first checkpoint: its first steps make it again.
BEGINNINGS = {"config.json", "environment.json", "log.txt", "curves.svg", "state", "tensorboard", *FOLLOWED}
RESULT_COLUMNS = (
    "epoch",
    "step",
    "seconds",
    "learning_rate",
    "train_loss",
    "train_auxiliary_loss",
    "val_loss",
    "val_top1_error",
    "val_top5_error",
)
# The best model, the last one, and the temporary copy one of them is written through; a checkpoint holds the network,
# its average and two tensors of the optimizer's, and there are those that are kept and the one being written.
MODELS_AT_ONCE = 3 + 4 * (KEPT + 1)
# Configuration, metrics, predictions, report and log of an ordinary run.
ROOM_FOR_THE_REST = 16 << 20


def refuse_unusable(out: Path) -> None:
    """ReinceptionError where `out` holds anything or cannot be made, before any work is spent on it."""
    is_empty = _is_empty(out)
    if (out.exists() or out.is_symlink()) and not is_empty:
        how = ""
        if (out / "config.json").is_file():
            how = f"`{shlex.join(['reinception', 'train', '--resume', str(out)])}` goes on with the run in it; or "
        raise ReinceptionError(f"{out}: exists already; {how}choose another run folder or remove this one first")
    parent = out if is_empty else _nearest_existing(out)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ReinceptionError(f"{out}: cannot be made, because {parent} is not a folder one may write to")


def refuse_without_room(out: Path, *, model_bytes: int) -> None:
    """ReinceptionError where the disk that `out` would lie on has no room for a run with such a model."""
    parent = _nearest_existing(out)
    needed, free = MODELS_AT_ONCE * model_bytes + ROOM_FOR_THE_REST, shutil.disk_usage(parent).free
    if free < needed:
        raise ReinceptionError(
            f"{out}: the run needs about {needed / 1e6:,.0f} MB and {parent} has {free / 1e6:,.0f} MB free; "
            "make room or choose another disk"
        )


def is_barely_begun(out: Path) -> bool:
    """Whether the run in `out` ended before its first checkpoint, so that it has nothing but BEGINNINGS. A run whose
    checkpoints were removed is another case: it has a model."""
    names = {path.name for path in out.iterdir() if not is_temporary(path)}
    return "config.json" in names and names <= BEGINNINGS and not list((out / "state").glob("*.json"))


class RunFolder:
    """A new run folder at `path`, and what may be written into it. Every failure to write is one ReinceptionError.

    `config` becomes config.json, its first file: from then on a run that is killed can be resumed, and before that the
    folder is empty, so that the same command may use it. Lines of the log, the metrics and the results that cannot be
    written are kept and written as soon as there is room.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any] | None = None, new: bool = True) -> None:
        self.path = path
        self._waiting: dict[str, str] = {}
        if new:
            with self._named(path):
                path.mkdir(parents=True, exist_ok=_is_empty(path))
                for half in path.iterdir():
                    half.unlink()
            if config is not None:
                self.write_json("config.json", config)
            self.append("results.csv", csv_line(RESULT_COLUMNS))

    @staticmethod
    def reopened(path: Path, position: Mapping[str, Any]) -> RunFolder:
        """The folder of an earlier run, its metrics and results taken back to `position`."""
        folder = RunFolder(path, new=False)
        with folder._named(path):
            for name, length in position["lengths"].items():
                if length < _length(path / name):
                    os.truncate(path / name, length)
            for half in filter(is_temporary, path.rglob(".*.tmp")):  # of files that a kill left unfinished
                half.unlink()
        folder._waiting = dict(position["waiting"])
        return folder

    @staticmethod
    def begun_again(path: Path) -> RunFolder:
        """The folder of a run that `is_barely_begun`, as it was with nothing but its config.json and its log."""
        folder = RunFolder.reopened(path, {"lengths": dict.fromkeys(FOLLOWED, 0), "waiting": {}})
        with folder._named(path):
            (path / "environment.json").unlink(missing_ok=True)
        folder.append("results.csv", csv_line(RESULT_COLUMNS))
        return folder

    def position(self) -> dict[str, Any]:
        """How far metrics and results go, for `reopened`."""
        lengths = {name: _length(self.path / name) for name in FOLLOWED}
        return {"lengths": lengths, "waiting": {name: self._waiting.get(name, "") for name in FOLLOWED}}

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """A new file of JSON."""
        with self._named(self.path / name):
            write_json(value, self.path / name)

    def change_config(self, config: Mapping[str, Any]) -> None:
        """Replaces config.json, where the user has changed the run."""
        with self._named(self.path / "config.json"):
            write_json(config, self.path / "config.json", replace=True)

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        self.note("metrics.jsonl", json.dumps(line, allow_nan=False) + "\n")

    def add_result(self, row: Mapping[str, float | None]) -> None:
        """One more row of results.csv: a validation and the training that led to it."""
        cells = [row[column] for column in RESULT_COLUMNS]
        self.note("results.csv", csv_line(["" if cell is None else f"{cell:.6g}" for cell in cells]))

    def save_model(self, network: Network, manifest: Manifest, *, name: str = MODEL_NAME) -> None:
        """The model file `name`, in place of the one before."""
        with self._named(self.path / name):
            save(network, self.path / name, manifest)

    def save_predictions(self, split: str, table: PredictionTable) -> None:
        """The new file predictions/`split`.csv."""
        path = self.path / "predictions" / f"{split}.csv"
        with self._named(path):
            path.parent.mkdir(exist_ok=True)
            table.save_csv(path)

    def note(self, name: str, text: str) -> None:
        """Appends `text` to the file `name`, now or, where that fails, together with the next text."""
        text = self._waiting.pop(name, "") + text
        try:
            self.append(name, text)
        except ReinceptionError:
            self._waiting[name] = text

    def settle(self) -> None:
        """Writes what could not be written before. ReinceptionError where it still cannot."""
        for name in list(self._waiting):
            self.append(name, self._waiting.pop(name))

    def append(self, name: str, text: str) -> None:
        """Appends `text` to the file `name`, whole or not at all, also where the disk is full half-way."""
        path = self.path / name
        with self._named(path), path.open("ab", buffering=0) as file:
            before, content = file.tell(), text.encode(errors="surrogateescape")
            try:
                written = 0
                while written < len(content):
                    written += file.write(content[written:])
            except OSError:
                file.truncate(before)
                raise

    @contextmanager
    def _named(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise ReinceptionError(
                f"{path}: cannot write: {reason}; make room: what the run wrote before is whole, and "
                "`train --resume` goes on from it"
            ) from None


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_empty(path: Path) -> bool:
    """Whether `path` is a folder that holds nothing, or what a kill has left of the first file of a run."""
    return path.is_dir() and all(is_temporary(found, "config.json") for found in path.iterdir())


def _nearest_existing(path: Path) -> Path:
    """The folder `path` would be made in: its nearest ancestor that exists."""
    ancestors: Sequence[Path] = path.absolute().parents
    return next((ancestor for ancestor in ancestors if ancestor.exists()), Path("/"))
