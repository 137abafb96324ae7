"""Where labelled pictures come from: class folders, a manifest, tar shards, or the word `elpv`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reinception.data.images.formats import PICTURE_SUFFIXES, looks_like_image
from reinception.data.sources.elpv import open_elpv
from reinception.data.sources.manifest import SUFFIXES as MANIFESTS
from reinception.data.sources.manifest import open_manifest
from reinception.data.sources.records import SPLIT_WORDS, SPLITS, Record, Source, listed
from reinception.data.sources.remote import is_address
from reinception.data.sources.remote_shards import open_remote
from reinception.data.sources.shards import holds_shards, open_shards
from reinception.errors import ReinceptionError, UsageError

__all__ = ["Record", "Source", "open_source", "pictures"]

# What archives, file managers and network drives leave behind; names with a leading dot are ignored as well.
_LITTER = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})


def open_source(data: str | Path, *, group_column: str | None = None) -> Source:
    """DATA as the command line takes it: a folder, a manifest (`.csv`, `.jsonl`), the address of shards or a manifest
    elsewhere (remote_shards.py), or the word `elpv` (a folder of that name is `./elpv`).

    A folder holds tar shards (shards.py); or one folder per class, each with pictures at any depth; or `train/` and
    perhaps `val/` (also `valid/`, `validation/`) and `test/`, which hold the class folders. Class indices follow the
    sorted class names of all splits, so a class that is missing in one split never renumbers the others. Links are
    followed; hidden files, AppleDouble files (`._x.jpg`) and files that are no pictures are left out and counted.
    Nothing is decoded and nothing written. A manifest's `group_column` may be another than `group`.

    Raises `ReinceptionError` for: no such folder; no pictures; fewer than two classes; a class folder without pictures;
    a class that occurs in `val/` or `test/` but not in `train/`; class folders beside split folders; two spellings of
    one split; and for what manifest.py and shards.py refuse.
    """
    root = Path(data)
    is_elsewhere = isinstance(data, str) and is_address(data)
    is_manifest = data != "elpv" and root.suffix.lower() in MANIFESTS and (is_elsewhere or not root.is_dir())
    if group_column is not None and not is_manifest:
        raise UsageError(f"{data}: has no column {group_column!r}; only a .csv or .jsonl manifest has columns")
    if isinstance(data, str) and is_elsewhere:
        return open_remote(data, group_column=group_column or "group")
    if data == "elpv":
        return open_elpv()
    if is_manifest:
        return open_manifest(root, group_column=group_column or "group")
    try:
        is_folder, exists = root.is_dir(), root.exists()
    except OSError as error:
        raise ReinceptionError(f"{root}: can not be read ({error.strerror}): check the permissions") from error
    if not exists:
        raise ReinceptionError(f"{root}: there is no such folder: give a folder of class folders, or the word elpv")
    if not is_folder:
        raise ReinceptionError(f"{root}: is a file: give a folder that holds one folder of pictures per class")
    return open_shards(root) if holds_shards(root) else _open_folder(root)


def pictures(folder: Path) -> list[Path]:
    """Every picture in a folder at any depth, by name, under the same rules as in a class folder."""
    found: list[Path] = []
    _Scan(folder).collect(folder, found)
    return sorted(found)


@dataclass
class _Scan:
    """What one walk over a tree has found out."""

    root: Path
    num_ignored: int = 0
    num_loose: int = 0
    pictures: dict[tuple[str | None, str], list[Path]] = field(default_factory=dict)

    def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise ReinceptionError(f"{folder}: can not be listed ({error.strerror}): check the permissions") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _LITTER:
                self.num_ignored += 1
            else:
                yield entry

    def folders(self, folder: Path) -> list[Path]:
        """The folders directly in `folder`; files beside them have no class and are counted."""
        found = []
        for entry in self.entries(folder):
            if _is_folder(entry):
                found.append(Path(entry.path))
            else:
                self.num_ignored += 1
                self.num_loose += _is_picture(entry)
        return found

    def read_classes(self, split: str | None, folder: Path) -> None:
        for class_folder in self.folders(folder):
            self.pictures[split, class_folder.name] = pictures = list[Path]()
            self.collect(class_folder, pictures)

    def collect(self, folder: Path, pictures: list[Path], above: tuple[tuple[int, int], ...] = ()) -> None:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link that leads back up: everything below it is listed already
            self.num_ignored += 1
            return
        for entry in self.entries(folder):
            if _is_folder(entry):
                self.collect(Path(entry.path), pictures, (*above, here))
            elif _is_picture(entry):
                pictures.append(Path(entry.path))
            else:
                self.num_ignored += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere or in a circle
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return Path(entry.name).suffix.lower() in PICTURE_SUFFIXES or looks_like_image(Path(entry.path))


def _open_folder(root: Path) -> Source:
    scan = _Scan(root)
    folders = scan.folders(root)
    split_folders = {folder: SPLITS[SPLIT_WORDS[folder.name.lower()]] for folder in folders if _names_a_split(folder)}
    if split_folders:
        _require_clear_splits(root, folders, split_folders)
        for folder, split in split_folders.items():
            scan.read_classes(split, folder)
    else:
        scan = _Scan(root)
        scan.read_classes(None, root)
    classes = _require_sound_classes(scan)
    index = {name: target for target, name in enumerate(classes)}
    records = [
        Record(path=path, name=path.relative_to(root).as_posix(), target=index[class_name], split=split)
        for (split, class_name), pictures in scan.pictures.items()
        for path in pictures
    ]
    records.sort(key=lambda record: record.name)
    name = root.name or root.resolve().name
    return Source(name=name, root=root, classes=classes, records=tuple(records), num_ignored=scan.num_ignored)


def _names_a_split(folder: Path) -> bool:
    return folder.name.lower() in SPLIT_WORDS


def _require_clear_splits(root: Path, folders: list[Path], split_folders: dict[Path, str]) -> None:
    others = [folder.name for folder in folders if folder not in split_folders]
    if others:
        both = f"{listed([folder.name for folder in split_folders])} beside {listed(others)}"
        raise ReinceptionError(f"{root}: holds split folders and others ({both}): put every class folder into a split")
    for split, count in Counter(split_folders.values()).items():
        if count > 1:
            names = [folder.name for folder in split_folders if split_folders[folder] == split]
            raise ReinceptionError(f"{root}: {listed(names)} are all the {split} split: keep one of them")


def _require_sound_classes(scan: _Scan) -> tuple[str, ...]:
    """The sorted class names, or the first thing that makes them no classification task."""
    root = scan.root
    if not any(scan.pictures.values()):
        loose = f"; {scan.num_loose} pictures lie outside any class folder" if scan.num_loose else ""
        raise ReinceptionError(f"{root}: holds no pictures in class folders{loose}: make one folder per class")
    for (split, name), pictures in scan.pictures.items():
        if not pictures:
            where = f"{split}: {name!r}" if split else repr(name)
            raise ReinceptionError(f"{root}: class folder without pictures ({where}): fill it or remove it")
    classes = {name for _, name in scan.pictures}
    train_classes = {name for split, name in scan.pictures if split == "train"}
    if train_classes and (foreign := sorted(classes - train_classes)):
        where = sorted({split for split, name in scan.pictures if name in foreign and split is not None})
        raise ReinceptionError(
            f"{root}: class {listed(foreign)} occurs in {' and '.join(where)} but not in train: "
            "add training pictures or remove the folder"
        )
    if len(classes) == 1:
        raise ReinceptionError(f"{root}: only one class ({classes.pop()!r}): telling things apart takes at least two")
    return tuple(sorted(classes))
