"""Scans class folders for images: one folder per class, perhaps below split folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reinception.data.images.formats import IMAGE_SUFFIXES, looks_like_image
from reinception.data.sources.records import SPLIT_WORDS, SPLITS, Record, Source, listed
from reinception.errors import ReinceptionError

# What archives, file managers and network drives leave behind; names with a leading dot are ignored as well.
_LITTER = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})


def open_class_folders(root: Path) -> Source:
    """The images of a folder that holds one folder per class, or split folders that do.

    Class indices follow the sorted class names of all splits. Links are followed; hidden files, AppleDouble files
    (`._x.jpg`) and files that are not images are left out and counted. ReinceptionError where the folders make no
    classification task (`open_source` lists the reasons).
    """
    walk = _FolderWalk(root)
    folders = walk.folders(root)
    split_folders = {folder: SPLITS[SPLIT_WORDS[folder.name.lower()]] for folder in folders if _names_a_split(folder)}
    if split_folders:
        _require_clear_splits(root, folders, split_folders)
        for folder, split in split_folders.items():
            walk.read_classes(split, folder)
    else:
        walk = _FolderWalk(root)
        walk.read_classes(None, root)
    classes = _require_sound_classes(walk)
    index = {name: target for target, name in enumerate(classes)}
    records = [
        Record(path=path, name=path.relative_to(root).as_posix(), target=index[class_name], split=split)
        for (split, class_name), images in walk.images.items()
        for path in images
    ]
    records.sort(key=lambda record: record.name)
    name = root.name or root.resolve().name
    return Source(name=name, root=root, classes=classes, records=tuple(records), num_ignored=walk.num_ignored)


def image_files(folder: Path) -> Iterator[Path]:
    """Every image file in a folder at any depth, by name, under the same rules as in a class folder.

    One folder is listed at a time, when its turn comes.
    """
    return _FolderWalk(folder).files(folder)


@dataclass
class _FolderWalk:
    """What one walk over a tree has found: images by (split, class folder), and how many entries have no place."""

    root: Path
    num_ignored: int = 0
    num_loose: int = 0
    images: dict[tuple[str | None, str], list[Path]] = field(default_factory=dict)

    def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise ReinceptionError(f"{folder}: cannot be listed ({error.strerror}): check the permissions") from error
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
                self.num_loose += _is_image(entry)
        return found

    def read_classes(self, split: str | None, folder: Path) -> None:
        for class_folder in self.folders(folder):
            self.images[split, class_folder.name] = list(self.files(class_folder))

    def files(self, folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link back to a folder above: what is below it is listed already
            self.num_ignored += 1
            return
        for entry in self.entries(folder):
            if _is_folder(entry):
                yield from self.files(Path(entry.path), (*above, here))
            elif _is_image(entry):
                yield Path(entry.path)
            else:
                self.num_ignored += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere or in a circle
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    return Path(entry.name).suffix.lower() in IMAGE_SUFFIXES or looks_like_image(Path(entry.path))


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


def _require_sound_classes(walk: _FolderWalk) -> tuple[str, ...]:
    """The sorted class names. ReinceptionError for the first thing that makes them no classification task."""
    root = walk.root
    if not any(walk.images.values()):
        loose = f"; {walk.num_loose} images lie outside any class folder" if walk.num_loose else ""
        raise ReinceptionError(f"{root}: holds no images in class folders{loose}: make one folder per class")
    for (split, name), images in walk.images.items():
        if not images:
            where = f"{split}: {name!r}" if split else repr(name)
            raise ReinceptionError(f"{root}: class folder without images ({where}): fill it or remove it")
    classes = {name for _, name in walk.images}
    train_classes = {name for split, name in walk.images if split == "train"}
    if train_classes and (foreign := sorted(classes - train_classes)):
        where = sorted({split for split, name in walk.images if name in foreign and split is not None})
        raise ReinceptionError(
            f"{root}: class {listed(foreign)} occurs in {' and '.join(where)} but not in train: "
            "add training images or remove the folder"
        )
    if len(classes) == 1:
        raise ReinceptionError(f"{root}: only one class ({classes.pop()!r}): classification takes at least two")
    return tuple(sorted(classes))
