"""The samples: for each exported file short scripts that run it, and what they need; the parity gate runs them too."""

from __future__ import annotations

import importlib.metadata
import json

_START = '''"""Runs {file}: python sample.py IMAGE... It needs what requirements.txt names, nothing else."""

import sys
from pathlib import Path

import numpy as np
{imports}
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
'''

_END = '''

def run(pixels):
    """{what} of uint8 RGB pixels (images, height, width, 3)."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise SystemExit(f"the input is uint8 (images, height, width, 3), not {{pixels.dtype}} {{pixels.shape}}")
    return {run}


def read(path):
    """The pixels of a file (1, height, width, 3): turned as its EXIF says, transparency on white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))[None]


if __name__ == "__main__":
{main}
'''

_LABELS = """    sys.stdout.reconfigure(errors="backslashreplace")
    labels = (HERE / "{labels}").read_text(encoding="utf-8").split("\\n")
    for path in sys.argv[1:]:
        probabilities = run(read(path))[0]
        best = probabilities.argsort()[::-1][:5]
        print(f"{{path}}: " + ", ".join(f"{{labels[i]}} {{100 * probabilities[i]:.1f}} %" for i in best))"""
_VALUES = """    for path in sys.argv[1:]:
        print(path, *run(read(path))[0])"""

# imports, what is made once, how it is run, what requirements.txt names
_RUNTIMES = {
    "onnx": (
        "import onnxruntime",
        """session = onnxruntime.InferenceSession(HERE / "{file}", providers=["CPUExecutionProvider"])
RUNTIME = f"onnxruntime {{onnxruntime.__version__}}, {{session.get_providers()[0]}}"
""",
        'session.run(None, {"images": pixels})[0]',
        ("numpy", "onnxruntime", "pillow"),
    ),
    "openvino": (
        "import openvino",
        """# Left to itself OpenVINO computes in bf16 where the processor has it; {precision} is what was checked.
hints = {{"INFERENCE_PRECISION_HINT": "{hint}", "CACHE_DIR": ""}}
compiled = openvino.Core().compile_model(HERE / "{file}", "CPU", hints)
RUNTIME = f"openvino {{openvino.__version__}}, CPU, {{compiled.get_property('INFERENCE_PRECISION_HINT').to_string()}}"
""",
        "compiled({'images': pixels})[0].copy()  # a copy: the result is a view that the next call overwrites",
        ("numpy", "openvino", "pillow"),
    ),
    "torch": (
        "import torch",
        """program = torch.export.load(HERE / "{file}").module()
RUNTIME = f"torch {{torch.__version__}}, cpu"
""",
        "program(torch.from_numpy(pixels)).detach().numpy()",
        ("numpy", "pillow", "torch"),
    ),
}


_NODE = """// Runs {file} in Node: npm install, then node sample.cjs IMAGE...
const fs = require("node:fs"), path = require("node:path");
const ort = require("onnxruntime-node");

const session = ort.InferenceSession.create(path.join(__dirname, "{file}"));

// {what} of uint8 RGB pixels {{ data, height, width }}.
async function run({{ data, height, width }}) {{
  if (!(data instanceof Uint8Array) || !height || !width || data.length !== 3 * height * width)
    throw new Error(`the input is uint8, 3 x ${{height}} x ${{width}}, not ${{data?.length}} of ${{typeof data}}`);
  const images = new ort.Tensor("uint8", data, [1, height, width, 3]);
  const found = await (await session).run({{ images }});
  return found.{output}.data;
}}

// Turned as its EXIF says, transparency on white.
async function read(name) {{
  const image = require("sharp")(name).rotate().flatten({{ background: "white" }}).removeAlpha().toColourspace("srgb");
  const {{ data, info }} = await image.raw().toBuffer({{ resolveWithObject: true }});
  return {{ data: new Uint8Array(data), height: info.height, width: info.width }};
}}

async function main() {{
  for (const name of process.argv.slice(2)) {{
    const values = await run(await read(name));
{main}
  }}
}}
module.exports = {{ run, read }};
if (require.main === module) main();
"""
_NODE_LABELS = """    const labels = fs.readFileSync(path.join(__dirname, "{labels}"), "utf8").split("\\n");
    const best = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 5);
    console.log(`${{name}}: ${{best.map((i) => `${{labels[i]}} ${{(100 * values[i]).toFixed(1)}} %`).join(", ")}}`);"""
_NODE_VALUES = """    console.log(name, ...values);"""
NODE_PACKAGES = {"onnxruntime-node": "1.30.0", "sharp": "^0.34.0"}


def node_sample(file: str, *, features: bool, labels: str = "labels.txt") -> str:
    """The script for Node and `file`, an ONNX file beside it."""
    what = "The pooled features (channels)" if features else "The probabilities (classes)"
    main = _NODE_VALUES if features else _NODE_LABELS.format(labels=labels)
    return _NODE.format(file=file, what=what, main=main, output="features" if features else "probabilities")


def node_package() -> str:
    """The package.json of that script."""
    return json.dumps({"private": True, "dependencies": NODE_PACKAGES}, indent=2) + "\n"


def sample(runtime: str, file: str, *, precision: str, features: bool, labels: str = "labels.txt") -> str:
    """The script for `file`, which lies beside it."""
    imports, once, run, _ = _RUNTIMES[runtime]
    what = "The pooled features (images, channels)" if features else "The probabilities (images, classes)"
    main = _VALUES if features else _LABELS.format(labels=labels)
    hint = "bf16" if precision == "bf16" else "f32"
    once = once.format(file=file, precision=precision, hint=hint)
    return _START.format(file=file, imports=imports) + once + _END.format(what=what, run=run, main=main)


def requirements(runtime: str) -> str:
    """What the sample imports, in the versions it was checked with."""
    return "".join(f"{name}=={importlib.metadata.version(name).partition('+')[0]}\n" for name in _RUNTIMES[runtime][3])
