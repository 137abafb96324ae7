"""A Predictor is a class for Ray Data's map_batches as it is: the example runs on Ray itself, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet
import pytest

import reinception as ri

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_data.py"


@pytest.mark.skipif(
    find_spec("ray") is None or find_spec("pandas") is None, reason="Ray Data is not installed: pip install 'ray[data]'"
)
def test_the_example_classifies_a_folder_on_ray_and_a_bad_image_is_a_row(place: Path, tmp_path: Path) -> None:
    """It takes longer than others, for Ray starts a cluster of its own."""
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for number, image in enumerate(sorted((place / "images").rglob("*.png"))):
        shutil.copy(image, folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no")
    model = place / "model.safetensors"
    paths = os.pathsep.join([str(Path(ri.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "OMP_NUM_THREADS": "1"}
    quiet["RAY_worker_niceness"] = "0"  # 15 otherwise: beside a busy program its workers would not even start
    done = subprocess.run(
        [sys.executable, EXAMPLE, model, folder, out],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | quiet,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {Path(row["path"]).name: row for row in pyarrow.parquet.read_table(out).to_pylist()}
    wanted = ri.predict(model, folder)
    assert set(rows) == {Path(one.path).name for one in wanted}
    for one in wanted:
        row = rows[Path(one.path).name]
        assert row["label"] == one.label
        assert (row["error"] is None) == (one.error is None)
