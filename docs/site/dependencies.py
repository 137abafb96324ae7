"""What an installation consists of: the packages of each extra, with version, licence and size."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MB = 1e6
# What serves one kind of accelerator only belongs to torch, and is left to it.
_OF_TORCH = ("nvidia", "cuda", "triton")


def project() -> dict[str, list[str]]:
    """The requirements of each extra; those of every installation under the name ''."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": data["dependencies"], **data["optional-dependencies"]}


def key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(wanted: Iterable[str]) -> dict[str, Distribution]:
    """The installed packages that these requirements pull, by name; what is not installed here is left out."""
    todo, found = [Requirement(one) for one in wanted], dict[str, Distribution]()
    done: set[str] = set()
    while todo:
        one = todo.pop()
        mark = f"{key(one.name)}[{','.join(sorted(one.extras))}]"
        if mark in done or key(one.name).startswith(_OF_TORCH):
            continue
        done.add(mark)
        if key(one.name) == "reinception":
            todo += [Requirement(text) for extra in one.extras for text in project()[extra]]
            continue
        try:
            package = distribution(one.name)
        except PackageNotFoundError:
            continue
        found[key(one.name)] = package
        for text in package.requires or []:
            needed = Requirement(text)
            marks = ({"extra": extra} for extra in ("", *one.extras))
            if needed.marker is None or any(needed.marker.evaluate(mark) for mark in marks):
                todo.append(needed)
    return found


def size(package: Distribution) -> int:
    """Bytes of a package's files on this disk."""
    paths = (Path(str(package.locate_file(file))) for file in package.files or [] if "__pycache__" not in str(file))
    return sum(path.stat().st_size for path in paths if path.is_file())


def licence(package: Distribution) -> str:
    """What a package says of its licence: the expression, else the classifiers, else the first line of the text."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [
        one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or [] if one.startswith("License")
    ]
    said = [one for one in classifiers if one != "OSI Approved"] or metadata.get_all("License") or []
    return ", ".join(said).splitlines()[0][:60] if said else "see its files"


def page() -> str:
    """The extras with sizes, then every package with its licence."""
    wanted = project()
    torch = closure(["torch"])
    core = closure(wanted[""])
    lines = [
        "# Extras, sizes and licences\n",
        "Written from the packages that are installed where this site was built. Sizes are of unpacked files, beside "
        "torch and what torch needs; a package counts once for each extra that pulls it. The library itself was "
        "27 MB to download (November 2026).\n",
        "| extra | what it pulls | unpacked |\n|---|---|---|",
    ]
    for extra, requirements in wanted.items():
        packages = closure(requirements)
        more = {name: one for name, one in packages.items() if name not in torch and (not extra or name not in core)}
        named = ", ".join(Requirement(one).name for one in requirements)
        total = sum(map(size, more.values())) / MB
        lines.append(f"| {f'`{extra}`' if extra else 'none: the library'} | {named} | {total:,.0f} MB |")
    every = closure([text for extra, texts in wanted.items() for text in texts])
    lines.append("\n## Licences\n\n| package | version | licence | needed by |\n|---|---|---|---|")
    users = {extra or "always": closure(requirements) for extra, requirements in wanted.items()}
    for name in sorted(every):
        by = ["always"] if name in users["always"] else [extra for extra in users if name in users[extra]]
        package = every[name]
        lines.append(f"| {package.metadata['Name']} | {package.version} | {licence(package)} | {', '.join(by)} |")
    return "\n".join(lines)
