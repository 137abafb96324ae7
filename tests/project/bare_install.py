"""Uses an installed reinception as a newcomer would: doctor, models, train, predict and the README's Python examples.

`make wheel` runs it in an environment that holds the wheel and what it requires, and nothing else.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

EXTRAS = ("elpv-dataset", "h5py", "imagehash", "pyspng", "pytest", "simplejpeg", "tensorboard", "timm", "torchvision")
SMALLEST = ("--width", "0.1", "--input-size", "75", "--batch-size", "8", "--precision", "fp32")


def command(*words: object, cwd: Path) -> str:
    """What the installed command says on its standard output."""
    program = Path(sys.executable).with_name("reinception")
    result = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd)
    assert result.returncode == 0, f"{' '.join(map(str, words))}: {result.stderr}"
    return result.stdout


def draw_images(folder: Path) -> None:
    """Two classes of twelve noisy images each, dark and light ones."""
    import numpy as np
    from PIL import Image

    for name, light in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(-50, 50, (90, 100, 3))
            Image.fromarray((light + noise).astype(np.uint8)).save(folder / name / f"{number}.png")


def main(readme: Path) -> None:
    there = [name for name in EXTRAS if any(one.metadata["Name"].lower() == name for one in metadata.distributions())]
    assert not there, f"not a bare environment: {', '.join(there)}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder / "photos")
        assert "torch" in command("doctor", cwd=folder)
        assert "inception_v3" in command("models", cwd=folder)
        command("train", "photos", "-o", "run", "--epochs", 1, *SMALLEST, cwd=folder)
        said = command("predict", "run", "photos/dark/0.png", "photos/light/0.png", cwd=folder)
        assert said.count("dark") >= 2 and said.count("light") >= 2, said
        for example in re.findall(
            r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            subprocess.run([sys.executable, "-W", "error", "-c", example], check=True, cwd=folder)
    print("the wheel works in a bare environment: doctor, models, train, predict, the README's Python")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
