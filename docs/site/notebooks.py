"""The notebooks of docs/notebooks, written from the percent-format scripts of examples/paper, and run for the site."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples" / "paper").glob("*.py"))
NOTEBOOKS = ROOT / "docs" / "notebooks"
_CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
CELL_SECONDS = 300


def notebook_of(script: Path) -> nbformat.NotebookNode:
    """The notebook that a script is: one cell for each `# %%`, text for each `# %% [markdown]`; without outputs."""
    _, *parts = _CELL.split(script.read_text(encoding="utf-8"))
    cells = []
    for number, (kind, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        if "[markdown]" in kind:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
            cells.append(new_markdown_cell(text, id=f"cell-{number}"))
        else:
            cells.append(new_code_cell(body.strip(), id=f"cell-{number}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def as_text(notebook: nbformat.NotebookNode) -> str:
    return nbformat.writes(notebook, version=4) + "\n"


def run(script: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs. Raises nbclient's error at the first cell that fails."""
    from nbclient import NotebookClient

    notebook = notebook_of(script)
    quiet = ["--Application.log_level=40"]  # it warns of what holds for every kernel on this machine
    client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", extra_arguments=quiet)
    client.execute(cwd=str(script.parent))
    return notebook


def page(notebook: nbformat.NotebookNode, name: str, images: Path) -> str:
    """A notebook that was run as a page: text, code, what it printed, and its plots as files in `images`."""
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for kind, said in _outputs(cell):
            if kind == "image":
                file = images / f"{name}-{number}.png"
                file.write_bytes(base64.b64decode(said))
                parts.append(f"![{_title(cell.source)}](images/{file.name})")
            else:
                parts.append(f"```text\n{said.rstrip()}\n```")
    return "\n\n".join(parts) + f"\n\nThe same as {{download}}`a notebook <{name}.ipynb>`.\n"


def _outputs(cell: Any) -> Iterator[tuple[str, str]]:
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            yield "text", output.text
        elif "image/png" in output.get("data", {}):
            yield "image", output["data"]["image/png"]


def _title(source: str) -> str:
    """What a plot shows, from its title in the code."""
    found = re.search(r"set_title\(\s*\"([^\"]+)\"", source) or re.search(r"suptitle\(\s*\"([^\"]+)\"", source)
    return found[1] if found else "A plot of the numbers above"


def main() -> int:
    for script in SCRIPTS:
        (NOTEBOOKS / f"{script.stem}.ipynb").write_text(as_text(notebook_of(script)), encoding="utf-8")
        print(f"docs/notebooks/{script.stem}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
