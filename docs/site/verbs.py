"""The command line's reference: the help of every verb, from the golden files that the tests compare with it."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "cli"


def page() -> str:
    """All verbs in the order of `reinception --help`, each under a heading of its own."""
    screens = {path.stem: path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.txt")}
    helps = {name: text for name, text in screens.items() if text.startswith("Usage: reinception")}
    first = helps.pop("reinception")
    order = [line.split()[0] for line in first.partition("Verbs:\n")[2].splitlines() if line.startswith("  ")]
    parts = [
        "# The command line\n\nEvery verb's `--help`, as a screen of 100 columns shows it. `--json FILE` writes what "
        f"a program can read; `-` is the standard output.\n\n```text\n{first.strip()}\n```\n"
    ]
    names = sorted(helps, key=lambda name: (order.index(name.split("_")[0]), name))
    for name in names:
        parts.append(f"## reinception {name.replace('_', ' ')}\n\n```text\n{helps[name].strip()}\n```\n")
    return "\n".join(parts)
