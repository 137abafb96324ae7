"""The Triton folder around an ONNX file: configuration with batching and a queue limit, labels, warm-up, KServe."""

from __future__ import annotations

import re
from pathlib import Path

MAX_BATCH_SIZE, MAX_QUEUE_DELAY, MAX_QUEUE_SIZE, TIMEOUT = 32, 2_000, 256, 5_000_000

_CONFIG = """# Explained field by field in docs/guides/export.md.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch_size}
input [
  {{
    name: "images"
    data_type: TYPE_UINT8
    dims: [ -1, -1, 3 ]
  }}
]
output [
  {{
    name: "{output}"
    data_type: TYPE_FP32
    dims: [ {width} ]{labels}
  }}
]
dynamic_batching {{
  max_queue_delay_microseconds: {delay}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {timeout}
    allow_timeout_override: true
    max_queue_size: {queue}
  }}
}}
model_warmup [
  {{
    name: "one"
    batch_size: 1
    inputs {{
      key: "images"
      value: {{
        data_type: TYPE_UINT8
        dims: [ {size}, {size}, 3 ]
        zero_data: true
      }}
    }}
  }}
]
"""

_KSERVE = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      protocolVersion: v2
      runtime: kserve-tritonserver
      storageUri: pvc://models  # where this folder lies
"""


def service_name(name: str) -> str:
    """`name` as Triton, the file system and Kubernetes all take it: a-z, 0-9 and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def write_configuration(folder: Path, name: str, *, width: int, size: int, features: bool) -> None:
    """`config.pbtxt` in the folder of the model, and `kserve.yaml` above it."""
    text = _CONFIG.format(
        name=name,
        output="features" if features else "probabilities",
        width=width,
        labels="" if features else '\n    label_filename: "labels.txt"',
        size=size,
        max_batch_size=MAX_BATCH_SIZE,
        delay=MAX_QUEUE_DELAY,
        timeout=TIMEOUT,
        queue=MAX_QUEUE_SIZE,
    )
    (folder / name / "config.pbtxt").write_text(text, encoding="utf-8")
    (folder / "kserve.yaml").write_text(_KSERVE.format(name=name), encoding="utf-8")
