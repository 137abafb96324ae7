"""The gate's second half for ONNX files: the JavaScript sample run by Node, where onnxruntime-node is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reinception.data.images.decode import Pixels
from reinception.errors import ReinceptionError

MOST = 20
"""Images that Node repeats: the runtime is the same one as Python's, compiled again."""

_SECONDS = 600
_RUNNER = """
const fs = require("node:fs"), path = require("node:path");
const [sample, folder] = process.argv.slice(1);
const { run } = require(sample);
async function main() {
  const rows = [];
  for (const { file, height, width } of JSON.parse(fs.readFileSync(path.join(folder, "images.json")))) {
    const data = new Uint8Array(fs.readFileSync(path.join(folder, file)));
    rows.push([...await run({ data, height, width })]);
  }
  let refused = "";
  try { await run({ data: new Float32Array(3), height: 1, width: 1 }); } catch (error) { refused = error.message; }
  const { version } = JSON.parse(fs.readFileSync(require.resolve("onnxruntime-node/package.json")));
  const found = { rows, refused, runtime: `onnxruntime-node ${version}` };
  fs.writeFileSync(path.join(folder, "rows.json"), JSON.stringify(found));
}
main();
"""


def node_rows(sample: Path, images: Sequence[Pixels]) -> tuple[npt.NDArray[np.float32], str] | None:
    """What the JavaScript `sample` gives for at most `MOST` of the images, and its runtime with version.

    None where there is no node, or it finds no onnxruntime-node: in NODE_PATH, or in ./node_modules.

    Raises:
        ReinceptionError: the sample cannot be run, or takes what it should refuse.
    """
    node = shutil.which("node")
    places = [*filter(None, [os.environ.get("NODE_PATH")]), str(Path("node_modules").resolve())]
    environment = os.environ | {"NODE_PATH": os.pathsep.join(places)}
    if node is None or not sample.is_file():
        return None
    with tempfile.TemporaryDirectory() as folder:
        asked = [node, "-e", 'require.resolve("onnxruntime-node")']
        if subprocess.run(asked, cwd=folder, env=environment, capture_output=True, check=False).returncode != 0:
            return None
        listed = []
        for index, image in enumerate(images[:MOST]):
            (Path(folder) / f"{index}.rgb").write_bytes(np.ascontiguousarray(image).tobytes())
            listed.append({"file": f"{index}.rgb", "height": image.shape[0], "width": image.shape[1]})
        (Path(folder) / "images.json").write_text(json.dumps(listed), encoding="utf-8")
        command = [node, "-e", _RUNNER, str(sample.resolve()), folder]
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise ReinceptionError(f"export: {sample.name} did not end in {_SECONDS} s; nothing was written") from None
        if done.returncode != 0 or not (Path(folder) / "rows.json").is_file():
            lines = [line for line in done.stderr.splitlines() if "Error" in line] or ["it said nothing"]
            raise ReinceptionError(f"export: {sample.name} cannot be run, nothing was written: {lines[0][:300]}")
        found = json.loads((Path(folder) / "rows.json").read_text(encoding="utf-8"))
    if not found["refused"].startswith("the input is"):
        raise ReinceptionError(f"export: {sample.name} takes a wrong input without a word; nothing was written")
    return np.array(found["rows"], dtype=np.float32), str(found["runtime"])
