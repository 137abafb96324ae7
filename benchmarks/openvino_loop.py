"""What a user writes around OpenVINO: images in a folder to pooled features, batches of 8, Pillow in one thread."""

import queue
import sys
import threading
from pathlib import Path

import numpy as np
import openvino
from PIL import Image

BATCH, SIDE = 8, 299


def read(paths: list[Path], batches: "queue.Queue[np.ndarray | None]") -> None:
    """Decode, resize and stack images, a batch at a time; None at the end."""
    for start in range(0, len(paths), BATCH):
        squares = []
        for path in paths[start : start + BATCH]:
            with Image.open(path) as image:
                squares.append(np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
        batches.put(np.stack(squares).astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)
    batches.put(None)


def main(network: str, folder: str, precision: str, out: str) -> None:
    paths = sorted(Path(folder).iterdir())
    batches: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=4)
    threading.Thread(target=read, args=(paths, batches), daemon=True).start()
    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    compiled = core.compile_model(core.read_model(network), "CPU", hint)
    rows = []
    while (batch := batches.get()) is not None:
        rows.append(next(iter(compiled(batch).values())).copy())
    np.savez(out, features=np.concatenate(rows), paths=[str(path) for path in paths])


if __name__ == "__main__":
    main(*sys.argv[1:])
