"""Opens labelled images: class folders, a manifest, tar shards, an address, or the word `elpv`."""

from __future__ import annotations

from pathlib import Path

from reinception.data.sources.class_folders import open_class_folders
from reinception.data.sources.elpv import open_elpv
from reinception.data.sources.manifest import SUFFIXES as MANIFESTS
from reinception.data.sources.manifest import open_manifest
from reinception.data.sources.records import Source
from reinception.data.sources.remote import is_address
from reinception.data.sources.remote_shards import open_remote
from reinception.data.sources.shards import holds_shards, open_shards
from reinception.errors import ReinceptionError, UsageError


def open_source(data: str | Path, *, group_column: str | None = None) -> Source:
    """DATA as the command line takes it: a folder, a manifest (`.csv`, `.tsv`, `.jsonl`), the address of remote shards
    or of a remote manifest (remote_shards.py), or the word `elpv` (a folder of that name is `./elpv`).

    A folder holds tar shards (shards.py); or one folder per class, each with images at any depth; or `train/` and
    perhaps `val/` and `test/`, in any spelling of labels.py, which hold the class folders. Beside at least two class
    folders a tar file is left out. Class indices follow the sorted class names of all splits, so a class that is
    missing in one split never renumbers the others. Links are followed; hidden files, AppleDouble files (`._x.jpg`) and
    files that are not images are left out and counted. Nothing is decoded and nothing written.
    `understanding.understand` says what was taken for what. A manifest's `group_column` may be another than `group`.

    Raises `ReinceptionError` for: no such folder; no images; fewer than two classes; a class folder without images; a
    class that occurs in `val/` or `test/` but not in `train/`; class folders beside split folders; two spellings of one
    split; and for what manifest.py and shards.py refuse.
    """
    root = Path(data)
    is_remote = isinstance(data, str) and is_address(data)
    is_manifest = data != "elpv" and root.suffix.lower() in MANIFESTS and (is_remote or not root.is_dir())
    if group_column is not None and not is_manifest:
        raise UsageError(f"{data}: has no column {group_column!r}; only a .csv or .jsonl manifest has columns")
    if isinstance(data, str) and is_remote:
        return open_remote(data, group_column=group_column or "group")
    if data == "elpv":
        return open_elpv()
    if is_manifest:
        return open_manifest(root, group_column=group_column or "group")
    try:
        is_folder, exists = root.is_dir(), root.exists()
    except OSError as error:
        raise ReinceptionError(f"{root}: cannot be read ({error.strerror}): check the permissions") from error
    if not exists:
        raise ReinceptionError(f"{root}: there is no such folder: give a folder of class folders, or the word elpv")
    if not is_folder:
        raise ReinceptionError(
            f"{root}: is a file: give a folder that holds one folder of images per class, or a manifest "
            f"({', '.join(MANIFESTS)})"
        )
    return open_shards(root) if holds_shards(root) else open_class_folders(root)
