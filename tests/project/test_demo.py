"""The demo's words: what its result stands beside, and which cells it shows."""

from __future__ import annotations

from pathlib import Path

from solar_cells import beside_others, free_name, three_unseen_cells

SCORES = {
    "num_images": 656,
    "top1_error": 20.0,
    "top1_error_interval": [17.1, 23.2],
    "majority_class": "functional",
    "majority_class_error": 31.25,
}


def test_the_result_stands_beside_the_majority_class_and_the_published_figures() -> None:
    said = beside_others(SCORES, minutes=5)
    lines = said.splitlines()
    ours = next(line for line in lines if "this run" in line)
    assert all(figure in ours for figure in ("80.0 %", "76.8 to 82.9", "656", "5 min"))
    majority = next(line for line in lines if "majority class" in line)
    assert "68.8 %" in majority and "68.7 % of all 2,624 cells" in majority
    assert "82.4 %" in next(line for line in lines if "SVM" in line)
    assert "88.4 %" in next(line for line in lines if "VGG-19" in line)
    not_comparable = said.index("Not comparable")
    assert said.index("88.4 %") < not_comparable < said.index("95.5 %")
    assert "random 75/25 split of cells" in said


def test_a_second_demo_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    assert free_name(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free_name(tmp_path / "demo") == tmp_path / "demo-3"


def test_the_cells_shown_are_held_out_ones_of_both_classes(tmp_path: Path) -> None:
    predictions = tmp_path / "test.csv"
    rows = ["images/cell0003.png,defective", "images/cell0007.png,functional", "images/cell0009.png,functional"]
    predictions.write_text("path,label,predicted\n" + "".join(f"{row},functional\n" for row in rows))
    files, truth = three_unseen_cells(predictions)
    assert sorted(Path(file).name for file in files) == ["cell0003.png", "cell0007.png", "cell0009.png"]
    assert all(Path(file).is_file() for file in files)
    assert truth.count("functional") == 2 and truth[-1] == "functional"
