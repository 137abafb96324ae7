"""Scans class folders for images: one folder per class, perhaps below split folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reinception.data.images.formats import IMAGE_SUFFIXES, looks_like_image
from reinception.data.sources.labels import (
    NO_SPLIT,
    SPLITS,
    BadValueError,
    label_of,
    listed,
    shown,
    split_code,
    split_names,
)
from reinception.data.sources.reading import IgnoredEntries, Reading
from reinception.data.sources.records import Source
from reinception.data.sources.table_builder import TableBuilder
from reinception.errors import ReinceptionError

# What archives, file managers and network drives leave behind; names with a leading dot are ignored as well.
_LITTER = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})
_TOOL_FOLDERS = frozenset({".git", ".ipynb_checkpoints", ".cache", ".venv", ".idea", ".vscode", ".Trashes"})
_LOOSE = "images outside any class folder"
_KINDS = {
    **dict.fromkeys((".tar", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"), "archives"),
    **dict.fromkeys((".csv", ".tsv", ".jsonl"), "manifests"),
}


def open_class_folders(root: Path) -> Source:
    """The images of a folder that holds one folder per class, or split folders that do.

    Class indices follow the sorted class names of all splits. Links are followed; hidden files, AppleDouble files
    (`._x.jpg`) and files that are not images are left out and counted. ReinceptionError where the folders make no
    classification task (`open_source` lists the reasons).
    """
    walk = _FolderWalk(root)
    top = walk.inner(root)
    folders = walk.folders(top)
    for folder, code in _split_folders(walk, top, folders).items():
        inner = walk.inner(folder)
        walk.splits.append(f"{inner.relative_to(top).as_posix()}/ is {SPLITS[code]}")
        for class_folder in walk.folders(inner):
            walk.read_class(code, class_folder)
    if not walk.splits:
        for folder in folders:
            walk.read_class(NO_SPLIT, folder)
    return walk.source(root.name or root.resolve().name)


def holds_class_folders(root: Path) -> bool:
    """Whether at least two class folders with images are there, perhaps below split folders."""
    walk, found = _FolderWalk(root), set[str]()
    folders = walk.folders(walk.inner(root))
    splits = split_names([folder.name for folder in folders])
    for folder in folders:
        inside = walk.folders(walk.inner(folder)) if folder.name in splits else []
        for class_folder in inside or [folder]:
            if class_folder.name not in found and next(walk.images(class_folder), None) is not None:
                found.add(class_folder.name)
        if len(found) > 1:
            return True
    return False


def image_files(folder: Path) -> Iterator[Path]:
    """Every image file in a folder at any depth, by name, under the same rules as in a class folder.

    One folder is listed at a time, when its turn comes.
    """
    return map(Path, _FolderWalk(folder).images(folder))


@dataclass
class _FolderWalk:
    """What one walk over a tree has found."""

    root: Path
    found: list[tuple[str, str, int]] = field(default_factory=list)
    ignored: IgnoredEntries = field(default_factory=IgnoredEntries)
    splits: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    num_loose: int = 0
    empty: list[tuple[int, Path]] = field(default_factory=list)
    spellings: dict[str, set[str]] = field(default_factory=dict)
    inside: dict[str, set[str]] = field(default_factory=dict)
    _listed: dict[str, list[os.DirEntry[str]]] = field(default_factory=dict)

    def entries(self, folder: Path | str) -> list[os.DirEntry[str]]:
        """What lies in a folder and is not ignored, by name; asked for again, nothing is counted twice."""
        if (known := self._listed.get(str(folder))) is not None:
            return known
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise ReinceptionError(f"{folder}: cannot be listed ({error.strerror}): check the permissions") from error
        visible = []
        for entry in entries:
            if entry.name in _LITTER or entry.name in _TOOL_FOLDERS or entry.name.startswith("._"):
                self.ignore("files and folders of systems and tools", entry)
            elif entry.name.startswith("."):
                self.ignore("hidden (the name begins with a dot)", entry)
                if _is_folder(entry) and (num := _num_images(entry.path)):
                    self.remarks.append(
                        f"the folder {shown(self.name(entry.path))} is hidden, for its name begins with a dot, and its "
                        f"{num:,} images are left out: rename it if they are meant"
                    )
            else:
                visible.append(entry)
        self._listed[str(folder)] = visible
        return visible

    def name(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def ignore(self, kind: str, entry: os.DirEntry[str]) -> None:
        self.ignored.add(kind, self.name(entry.path))

    def ignore_file(self, entry: os.DirEntry[str]) -> None:
        suffix = os.path.splitext(entry.name)[1].lower()
        self.ignore(_KINDS.get(suffix) or (f"{suffix} files" if suffix else "files without an ending"), entry)

    def inner(self, folder: Path) -> Path:
        """The folder, or the one of the same name in it where it holds nothing else (`train/train`)."""
        own = split_code(folder.name), folder.resolve().name.lower()
        while True:
            entries = self.entries(folder)
            inside = [entry for entry in entries if _is_folder(entry)]
            if len(inside) != 1 or any(_is_image(entry) for entry in entries if entry not in inside):
                return folder
            name, code = inside[0].name, split_code(inside[0].name)
            is_same = name.lower() == own[1] or (own[0] is not None and code == own[0])
            if not is_same or not any(_is_folder(entry) for entry in self.entries(inside[0].path)):
                return folder
            self.folders(folder)  # counts the files beside it
            folder = Path(inside[0].path)

    def folders(self, folder: Path) -> list[Path]:
        """The folders directly in `folder`; files beside them have no class and are counted."""
        entries = self.entries(folder)
        found = [Path(entry.path) for entry in entries if _is_folder(entry)]
        for entry in entries if len(found) < len(entries) else ():
            if not _is_folder(entry):
                if _is_image(entry):
                    self.num_loose += 1
                    self.ignore(_LOOSE, entry)
                else:
                    self.ignore_file(entry)
        return found

    def read_class(self, split: int, folder: Path) -> None:
        try:
            label = label_of(folder.name)
        except BadValueError as error:
            raise ReinceptionError(f"{folder}: the name of a class {error}") from None
        self.spellings.setdefault(label, set()).add(folder.name)
        self.inside[folder.name] = {entry.name for entry in self.entries(folder) if _is_folder(entry)}
        num, start = len(self.found), len(str(self.root / "x")) - 1
        self.found += [(path[start:], label, split) for path in self.images(folder)]
        if len(self.found) == num:
            self.empty.append((split, folder))

    def images(self, folder: Path | str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
        """The paths of the images in a folder, at any depth."""
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link back to a folder above: what is below it is listed already
            self.ignored.add("links in a circle", self.name(str(folder)))
            return
        entries = self.entries(folder)
        del self._listed[str(folder)]  # a million entries are not kept
        for entry in entries:
            if _is_folder(entry):
                yield from self.images(entry.path, (*above, here))
            elif _is_image(entry):
                yield entry.path
            else:
                self.ignore_file(entry)

    def source(self, name: str) -> Source:
        """ReinceptionError for the first thing that makes the folders no classification task."""
        ignored = self.ignored.counted()
        others = [one for one in ignored[-3:] if one.kind != _LOOSE]
        left_out = "".join(f"; {one.count:,} {one.kind} are left out ({shown(one.example)})" for one in others)
        if not self.found:
            loose = f"; {self.num_loose} images lie outside any class folder" if self.num_loose else ""
            manifest = next((one.example for one in ignored if one.kind == "manifests"), None)
            way = "make one folder per class" if manifest is None else f"name the manifest, {self.root / manifest}"
            raise ReinceptionError(f"{self.root}: holds no images in class folders{loose}{left_out}: {way}")
        for split, folder in self.empty:
            where = f"{SPLITS[split]}: {shown(folder.name)}" if split != NO_SPLIT else shown(folder.name)
            raise ReinceptionError(
                f"{self.root}: class folder without images ({where}){left_out}: fill it or remove it"
            )
        for label, spellings in self.spellings.items():
            if len(spellings) > 1:
                self.remarks.append(f"the folders {listed(sorted(spellings))} are one class, {shown(label)}")
        self._doubt_classes()
        reading = Reading(
            layout="split folders of class folders" if self.splits else "class folders",
            labels="the names of the class folders",
            splits=tuple(self.splits),
            ignored=ignored,
            remarks=tuple(self.remarks),
        )
        table = TableBuilder()
        for path, label, split in sorted(self.found):
            table.add(path, label, split)
        return table.source(self.root, name=name, root=self.root, reading=reading)

    def _doubt_classes(self) -> None:
        """A remark where every class folder holds the same folders: then those may be the classes."""
        common = set.intersection(*self.inside.values()) if len(self.inside) > 1 and not self.splits else set[str]()
        if len(common) > 1 and all(inside == common for inside in self.inside.values()):
            self.remarks.append(
                f"every class folder holds the same folders ({listed(sorted(common))}): if those are the classes, call "
                "the folders above train, val and test"
            )
        if len(self.inside) == 1 and not self.splits and len(found := sorted(*self.inside.values())) > 1:
            name = next(iter(self.inside))
            raise ReinceptionError(
                f"{self.root}: only one class ({shown(name)}): classification takes at least two; if its folders "
                f"({listed(found)}) are the classes, name {self.root / name}"
            )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere or in a circle
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES or looks_like_image(Path(entry.path))


def _num_images(folder: str) -> int:
    """The files with the suffix of an image, hidden or not."""
    return sum(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for *_, names in os.walk(folder) for name in names)


def _split_folders(walk: _FolderWalk, top: Path, folders: list[Path]) -> dict[Path, int]:
    """The folders that are splits. ReinceptionError where it is not clear which are.

    Split folders hold class folders. One that holds images and no folder, beside folders of other names, is a class
    that is called like a split.
    """
    inside = {folder: [entry.name for entry in walk.entries(folder) if _is_folder(entry)] for folder in folders}
    codes = split_names([folder.name for folder in folders])
    found = {folder: codes[folder.name] for folder in folders if folder.name in codes}
    if any(split_code(name) is None for name in codes):  # such as seg_train: they have to hold the same classes
        shared = set.intersection(*(set(inside[folder]) for folder in found)) if found else set()
        return found if shared else {}
    if len(found) < len(folders) and (classes := [folder for folder in found if not inside[folder]]):
        walk.remarks.append(
            f"the folder {listed([folder.name for folder in classes])} is taken for a class, not a split, for it holds "
            "images and no class folders, beside other folders"
        )
        found = {folder: code for folder, code in found.items() if inside[folder]}
    others = [folder.name for folder in folders if folder not in found]
    if found and others:
        both = f"{listed([folder.name for folder in found])} beside {listed(others)}"
        raise ReinceptionError(
            f"{top}: holds split folders and others ({both}): put every class folder into a split, or rename what is "
            "no split"
        )
    for split in set(found.values()):
        names = [folder.name for folder in found if found[folder] == split]
        if len(names) > 1:
            raise ReinceptionError(f"{top}: {listed(names)} are all the {SPLITS[split]} split: keep one of them")
    return found
