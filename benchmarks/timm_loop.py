"""timm's way to infer, as its script and documentation have it: its loader and transforms, batches of 256, float32."""

import sys
from typing import Any

import numpy as np
import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config


def main(folder: str, out: str) -> None:
    model = timm.create_model("inception_v3", pretrained=False).eval()
    config: dict[str, Any] = resolve_data_config({}, model=model)
    loader = create_loader(
        create_dataset("", root=folder),
        input_size=config["input_size"],
        batch_size=256,
        use_prefetcher=False,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        num_workers=2,
        crop_pct=config["crop_pct"],
        device=torch.device("cpu"),
    )
    rows = []
    with torch.no_grad():
        for images, _ in loader:
            rows.append(model(images).softmax(-1).numpy())
    np.savez(out, probabilities=np.concatenate(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
