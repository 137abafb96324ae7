"""The command that proves a GPU says in one line that there is none, and ends well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_without_a_gpu_it_says_so_in_one_line_and_ends_well(tmp_path: Path) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    environment.pop("REINCEPTION_GPU_TESTS_ON_CPU", None)
    words = [sys.executable, str(BENCHMARKS / "gpu.py")]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "no GPU here: nothing is proved; REINCEPTION_GPU_TESTS_ON_CPU=1 runs the checks on the processor\n"
    )
    assert not list(tmp_path.iterdir())
