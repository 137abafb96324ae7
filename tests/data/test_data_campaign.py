"""Generated folders, manifests and shards are read as an independent reading of them expects, or refused in a line."""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from reinception.data.prepare.group_split import write_manifest
from reinception.data.sources.exclusions import read_exclusions, write_exclusions
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Source
from reinception.data.sources.split import assign_splits
from reinception.data.sources.understanding import understand
from reinception.errors import ReinceptionError

# Names as people give them; what a person reads is the composed text without spaces at its ends.
CLASSES = [
    "cat", "dog", "Cat", "cafe\u0301", "café", " pear", "pear ", "c++", ".net", "#1", "a b", "a  b", "日本", "naïve",
    "it's", 'say "hi"', "x,y", "a;b", "007", "7", "-1", "nan", "None", "v1.0", "a\nb", "tab\there", "\u200bzero",
    "train_station", "test tube", "K\udce4se", "👩‍🔬", "back\\slash", "sep=,",
]  # fmt: skip
STEMS = [
    "1",
    "22.00",
    "image #1",
    " lead",
    "trail ",
    "naïve",
    "nai\u0308ve",
    "a,b",
    'q"q',
    "a;b",
    "#x",
    "p\udce4",
    "x\ny",
    "17",
]
SUFFIXES = [".png", ".PNG", ".jpg", ".ppm", ".tga", ".webp"]
TRAIN, VAL, TEST = (
    ["train", "Training", "train_set", "TRAIN"],
    ["val", "Valid", "validation", "dev"],
    ["test", "Testing", "eval"],
)
SPLITS = {**dict.fromkeys(TRAIN, "train"), **dict.fromkeys(VAL, "val"), **dict.fromkeys(TEST, "test"), "": None}


def image_bytes() -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), 9).save(file, "PNG")
    return file.getvalue()


PNG = image_bytes()


def person(label: str) -> str:
    """The class that a person reads in a name."""
    return unicodedata.normalize("NFC", label).strip().strip("\u200b")


@dataclass
class Expected:
    """What is there: name -> (label, split), entries of no use, and phrases of which a refusal has to hold one."""

    images: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    num_useless: int = 0
    refusals: list[str] = field(default_factory=list)
    prefix: str = ""

    def may_be_refused(self) -> list[str]:
        found = list(self.refusals)
        labels = {label for label, _ in self.images.values()}
        learned = {label for label, split in self.images.values() if split in ("train", None)}
        if len(labels) < 2:
            found += ["only one class", "holds no images", "lists no images", "hold no images"]
        if learned and labels - learned:
            found.append("but not in train")
        return found


def put(path: Path, data: bytes = PNG) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def folders(root: Path, rng: random.Random) -> tuple[Path, Expected]:
    expected = Expected()
    splits = [""] if rng.random() < 0.5 else [rng.choice(TRAIN), rng.choice(VAL), rng.choice(TEST)][: rng.randint(1, 3)]
    classes = rng.sample(CLASSES, rng.randint(2, 5))
    prefix = "seg_" if len(splits) > 1 and rng.random() < 0.2 else ""
    if rng.random() < 0.1:  # unpacked into a folder of its own name
        root, above = root / root.name, root
        expected.prefix = f"{above.name}/"
    for split in splits:
        inner = f"{prefix}{split}/{split}" if split and not prefix and rng.random() < 0.2 else f"{prefix}{split}"
        for name in classes:
            deep = "deep/er/" if rng.random() < 0.2 else ""
            stems = rng.sample(STEMS, rng.randint(1, 4))
            if name.startswith("."):
                put(root / inner / name / "1.png")
                expected.num_useless += 1
                continue
            for stem in stems:
                path = f"{inner}/{name}/{deep}{stem}{rng.choice(SUFFIXES)}".lstrip("/")
                put(root / path)
                expected.images[expected.prefix + path] = (person(name), SPLITS[split])
            for junk in rng.sample(
                ["._1.png", "Thumbs.db", "notes.txt", ".hidden", "a.zip", "x.npy"], rng.randint(0, 2)
            ):
                put(root / inner / name / junk, b"no image")
                expected.num_useless += 1
    for junk in rng.sample(["README.md", "old.tar", "labels.csv", ".DS_Store"], rng.randint(0, 2)):
        put(root / junk, b"nothing")
        expected.num_useless += 1
    return root if not expected.prefix else root.parent, expected


def manifest(root: Path, rng: random.Random) -> tuple[Path, Expected]:
    expected, rows = Expected(), list[dict[str, object]]()
    classes = rng.sample(CLASSES, rng.randint(2, 4))
    has_splits = rng.random() < 0.5
    for number in range(rng.randint(4, 16)):
        label, stem = rng.choice(classes), rng.choice(STEMS)
        path = f"sub{number}/{stem}{rng.choice(SUFFIXES)}"
        put(root / path)
        split = rng.choice([*TRAIN, *TRAIN, rng.choice(VAL), rng.choice(TEST)]) if has_splits else ""
        written = rng.choice([path, path, f" {path} ", path.replace("/", "\\"), path.rsplit(".", 1)[0]])
        meant = rng.choice([label, f" {label}  "])
        if label.lstrip("-").isdecimal() and str(int(label)) == label:
            meant = rng.choice([meant, int(label), float(label)])
        rows.append({"path": written, "label": meant, "split": split})
        expected.images[path] = (person(label), SPLITS[split])
        if "\udce4" in label:
            expected.refusals.append("is not UTF-8")
    path_name, label_name = (
        rng.choice(["path", "Path", "file_name", "filename"]),
        rng.choice(["label", "Label", "class"]),
    )
    kind = rng.choice(["csv", "csv", "tsv", "jsonl", "semicolon", "sep", "utf-16"])
    if kind == "jsonl":
        text = "".join(
            json.dumps({path_name: row["path"], label_name: row["label"], "split": row["split"]}) + "\n" for row in rows
        )
        file = root / "m.jsonl"
        put(file, text.encode("utf-8", "surrogateescape"))
    else:
        delimiter = {"tsv": "\t", "semicolon": ";"}.get(kind, ",")
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator=rng.choice(["\n", "\r\n"]))
        order = rng.sample(["path", "label", "split", "more"], 4)
        writer.writerow([{"path": path_name, "label": label_name}.get(name, name) for name in order])
        for row in rows:
            cells = {name: int(cell) if isinstance(cell, float) else cell for name, cell in row.items()}
            writer.writerow([cells.get(name, "x") for name in order])
        text = ("sep=,\n" if kind == "sep" else "") + out.getvalue()
        file = root / ("m.tsv" if kind == "tsv" else "m.csv")
        if kind == "utf-16" and "\udce4" not in text:
            put(file, text.encode("utf-16"))
        else:
            put(file, text.encode(rng.choice(["utf-8", "utf-8-sig"]), "surrogateescape"))
    labels = {label for label, _ in expected.images.values()}
    if labels & {"nan", "None"} and all(label.lstrip("-").isdecimal() for label in labels - {"nan", "None"}):
        expected.refusals.append("among numbers")
    return file, expected


def shards(root: Path, rng: random.Random) -> tuple[Path, Expected]:
    expected = Expected()
    classes = [name for name in rng.sample(CLASSES, rng.randint(2, 4)) if "\udce4" not in name]
    how = rng.choice(["cls", "json", "folder"])
    splits = [""] if rng.random() < 0.5 else [rng.choice(TRAIN), rng.choice(VAL), rng.choice(TEST)][: rng.randint(1, 3)]
    for split in splits:
        number = f"{rng.randint(0, 99):05d}"
        name = rng.choice([f"{split}-{number}", f"{split}/{number}", f"{split}_0-of-8"]) if split else f"data-{number}"
        path = root / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for index in range(rng.randint(2, 9)):
                label = rng.choice(classes)
                key = f"{label}/{index:04d}" if how == "folder" else f"{index:04d}"
                beside = {"cls": label.encode(), "json": json.dumps({"label": label}).encode()}
                members = [(f"{key}.png", PNG), *([(f"{key}.{how}", beside[how])] if how in beside else [])]
                if rng.random() < 0.2:
                    members.append((f"{key}.txt", b"caption"))
                    expected.num_useless += 1
                for member, data in members:
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                expected.images[f"{name}/{key}.png"] = (person(label), SPLITS[split])
        if rng.random() < 0.3:
            put(path.with_name(f"._{path.name}"), b"AppleDouble")
            expected.num_useless += 1
    return root, expected


def read_as_expected(root: Path, seed: int) -> None:
    rng = random.Random(seed)
    root.mkdir()
    data, expected = rng.choice([folders, manifest, shards])(root, rng)
    try:
        source = open_source(data)
    except ReinceptionError as error:
        assert "\n" not in str(error)
        assert any(phrase in str(error) for phrase in expected.may_be_refused()), (seed, str(error))
        return
    assert {one.name: (source.classes[one.target], one.split) for one in source.records} == expected.images, seed
    assert source.num_ignored == expected.num_useless, (seed, source.reading.ignored)
    said = understand(source)
    counts = Counter(expected.images.values())
    assert {(label, split or None): num for label, by in said.classes.items() for split, num in by.items()} == counts
    assert f"{len(expected.images):,} images of {len({label for label, _ in counts})} classes" in str(said)
    assert "\x00" not in str(said) and str(said).count("\n") < 60
    divided = assign_splits(source, seed=seed)
    assert sum(understand(divided).totals.values()) == len(source.records)
    come_back(root, divided, rng)


def come_back(root: Path, source: Source, rng: random.Random) -> None:
    """What is written is read back: a list of names to exclude, and a manifest."""
    names = [record.name for record in source.records]
    some = frozenset(rng.sample(names, rng.randint(1, len(names))))
    write_exclusions(root / "bad.txt", sorted(some))
    assert {record.name for record in source.without(read_exclusions(root / "bad.txt")).records} == set(names) - some
    if source.records[0].offset is None:
        write_manifest(source, root / "written.csv")
        again = open_source(root / "written.csv")
        assert {(one.path, again.classes[one.target], one.split) for one in again.records} == {
            (one.path, source.classes[one.target], one.split) for one in source.records
        }


@pytest.mark.parametrize("seed", range(60))
def test_generated_data_are_read_as_a_person_reads_them(tmp_path, seed):
    read_as_expected(tmp_path / "data", seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 250))
def test_two_thousand_generated_data_sets_are_read_as_a_person_reads_them(tmp_path, first):
    for seed in range(first, first + 250):
        read_as_expected(tmp_path / str(seed), seed)
