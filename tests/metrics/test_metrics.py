"""What the scores of one prediction table mean, checked against scikit-learn, brute force and simulation."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from reinception import metrics
from reinception.errors import ReinceptionError
from reinception.files import new_text_file, write_json
from reinception.metrics import PredictionTable, Rate


def random_table(seed: int, *, n: int = 200, k: int = 5, skill: float = 1.0) -> PredictionTable:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + skill * np.eye(k)[targets]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return PredictionTable(
        names=tuple(f"c{t}/{i}.png" for i, t in enumerate(targets)),
        targets=targets,
        probabilities=p.astype(np.float32),
        classes=tuple(f"class {i}" for i in range(k)),
    )


def tiny_table(targets: list[int], rows: list[list[float]]) -> PredictionTable:
    classes = tuple("abcdefghij"[: len(rows[0])])
    return PredictionTable(
        names=tuple(f"{i}.png" for i in range(len(targets))),
        targets=np.array(targets),
        probabilities=np.array(rows, dtype=np.float32),
        classes=classes,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 3, 12])
def test_the_scores_equal_those_of_scikit_learn(seed: int, k: int) -> None:
    table = random_table(seed, k=k)
    true, predicted = table.targets, table.predicted
    labels = list(range(k))
    assert metrics.accuracy(table).percent == pytest.approx(100 * oracle.accuracy_score(true, predicted), abs=1e-12)
    assert metrics.macro_f1(table) == pytest.approx(oracle.f1_score(true, predicted, average="macro"), abs=1e-12)
    assert metrics.balanced_accuracy(table) == pytest.approx(oracle.balanced_accuracy_score(true, predicted), abs=1e-12)
    assert (metrics.confusion(table) == oracle.confusion_matrix(true, predicted, labels=labels)).all()
    columns = np.array(oracle.precision_recall_fscore_support(true, predicted, labels=labels))
    for score, wanted in zip(metrics.per_class(table), columns.T, strict=True):
        assert [score.precision, score.recall, score.f1, score.support] == pytest.approx(wanted, abs=1e-12)
    for top in range(1, k):
        share = oracle.top_k_accuracy_score(true, table.probabilities, k=top, labels=labels) if k > 2 else None
        if share is not None:
            assert metrics.top_k_error(table, top).percent == pytest.approx(100 * (1 - share), abs=1e-9)


def test_a_class_without_images_and_a_class_never_predicted_have_no_quotient() -> None:
    table = tiny_table([0, 0, 1], [[0.8, 0.1, 0.1, 0], [0.1, 0.1, 0.8, 0], [0.9, 0.1, 0, 0]])
    a, b, c, d = metrics.per_class(table)
    assert (a.precision, a.recall) == (0.5, 0.5)
    assert (b.precision, b.recall, b.f1) == (None, 0.0, 0.0)
    assert (c.precision, c.recall, c.f1) == (0.0, None, 0.0)
    assert (d.precision, d.recall, d.f1) == (None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about exactly this table
        assert metrics.macro_f1(table) == pytest.approx(
            oracle.f1_score(table.targets, table.predicted, average="macro")
        )
        expected = oracle.balanced_accuracy_score(table.targets, table.predicted)
    assert metrics.balanced_accuracy(table) == pytest.approx(expected)


def test_a_table_of_one_class_is_never_wrong() -> None:
    table = tiny_table([0, 0], [[1.0], [1.0]])
    assert metrics.top_k_error(table).percent == 0
    assert metrics.macro_f1(table) == metrics.balanced_accuracy(table) == 1
    assert metrics.majority(table) == ("a", Rate(count=2, n=2))


def test_of_equal_probabilities_the_earlier_class_comes_first() -> None:
    even = [0.25, 0.25, 0.25, 0.25]
    table = tiny_table([0, 1, 2, 3], [even] * 4)
    assert table.predicted.tolist() == [0, 0, 0, 0]
    assert metrics.target_rank(table).tolist() == [0, 1, 2, 3]
    assert [metrics.top_k_error(table, k).count for k in (1, 2, 3, 4, 5)] == [3, 2, 1, 0, 0]


@given(seed=st.integers(0, 10_000), k=st.integers(1, 8))
def test_top_1_error_and_accuracy_add_up_whatever_the_ties(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(1, 4, (30, k)).astype(np.float32)  # few distinct values: many ties
    table = tiny_table(rng.integers(0, k, 30).tolist(), (p / p.sum(axis=1, keepdims=True)).tolist())
    errors = [metrics.top_k_error(table, top).count for top in range(1, k + 2)]
    assert errors[0] + metrics.accuracy(table).count == 30
    assert errors == sorted(errors, reverse=True)
    assert errors[k - 1] == 0


def test_the_majority_baseline_counts_the_most_frequent_class() -> None:
    table = tiny_table([1, 1, 0], [[0.9, 0.1]] * 3)
    assert metrics.majority(table) == ("b", Rate(count=2, n=3))


def test_wilson_equals_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score without continuity correction).
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert metrics.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 5000), data=st.data())
def test_wilson_contains_the_share_and_is_symmetric(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = metrics.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert metrics.wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    wide_low, wide_high = metrics.wilson(successes, n, confidence=0.99)
    assert wide_low <= low
    assert high <= wide_high


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.3, 0.688, 0.9):
        draws = rng.binomial(656, share, 4000)
        intervals = {int(count): metrics.wilson(int(count), 656) for count in set(draws)}
        covered = np.mean([intervals[int(count)][0] <= share <= intervals[int(count)][1] for count in draws])
        assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_counts_that_cannot_be(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="wilson"):
        metrics.wilson(successes, n)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([math.nan, 1.0], "not a number"),
        ([0.5, 0.6], "sums to 1.1"),
        ([2.0, -1.0], "sums to 1 "),
        ([-3.0, 2.0], "sums to -1"),
        ([math.inf, 0.0], "sums to inf"),
    ],
)
def test_a_row_that_is_not_a_distribution_is_refused_with_its_image(row: list[float], why: str) -> None:
    with pytest.raises(ReinceptionError, match=rf"'1\.png'.*{why}"):
        tiny_table([0, 1], [[0.5, 0.5], row])


@pytest.mark.parametrize("targets", [[0, 2], [0, -1]])
def test_a_target_outside_the_classes_is_refused(targets: list[int]) -> None:
    with pytest.raises(ReinceptionError, match=r"not in 0\.\.1"):
        tiny_table(targets, [[0.5, 0.5]] * 2)


def test_shapes_that_disagree_and_equal_class_names_are_refused() -> None:
    p = np.full((2, 2), 0.5, np.float32)
    with pytest.raises(ReinceptionError, match="need targets"):
        PredictionTable(names=("x",), targets=np.zeros(1, np.int64), probabilities=p, classes=("a", "b"))
    with pytest.raises(ReinceptionError, match="distinct"):
        PredictionTable(names=("x", "y"), targets=np.zeros(2, np.int64), probabilities=p, classes=("a", "a"))


def test_an_empty_table_can_be_kept_but_not_scored(tmp_path: Path) -> None:
    table = PredictionTable(
        names=(), targets=np.zeros(0, np.int64), probabilities=np.zeros((0, 2), np.float32), classes=("a", "b")
    )
    read = PredictionTable.load_csv(table.save_csv(tmp_path / "none.csv"))
    assert (len(read), read.classes) == (0, ("a", "b"))
    with pytest.raises(ReinceptionError, match="no image"):
        metrics.top_k_error(read)


def test_the_csv_has_the_promised_header_and_reads_back_bit_for_bit(tmp_path: Path) -> None:
    table = random_table(7, n=50, k=3)
    path = table.save_csv(tmp_path / "test.csv")
    header, first, *_ = path.read_text().splitlines()
    assert header == "path,label,predicted,p_class 0,p_class 1,p_class 2"
    assert first.startswith(f"{table.names[0]},{table.classes[table.targets[0]]},{table.classes[table.predicted[0]]},")
    read = PredictionTable.load_csv(path)
    assert (read.names, read.classes) == (table.names, table.classes)
    assert (read.targets == table.targets).all()
    assert read.probabilities.tobytes() == table.probabilities.tobytes()


names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=12)
unfriendly = st.sampled_from(
    ["=1+1", "-x", "+x", "@x", "'=x", "''", "'", 'a"b', "a,b", "a\nb", "a\rb", "\tx", "\udcff"]
)


@settings(deadline=None)
@given(
    paths=st.lists(names | unfriendly, min_size=1, max_size=4),
    classes=st.sets(names | unfriendly, min_size=1, max_size=3),
)
def test_any_file_and_class_name_survives_the_csv(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], classes: set[str]
) -> None:
    k = len(classes)
    table = PredictionTable(
        names=tuple(paths),
        targets=np.arange(len(paths)) % k,
        probabilities=np.full((len(paths), k), 1 / k, np.float32),
        classes=tuple(sorted(classes)),
    )
    read = PredictionTable.load_csv(table.save_csv(tmp_path_factory.mktemp("csv") / "table.csv"))
    assert (read.names, read.classes, read.targets.tolist()) == (table.names, table.classes, table.targets.tolist())


def test_no_cell_of_the_csv_runs_in_a_spreadsheet(tmp_path: Path) -> None:
    table = PredictionTable(
        names=('=HYPERLINK("x")', "-2+3", "+1", "@SUM(A1)", "'=x", "plain.png"),
        targets=np.zeros(6, np.int64),
        probabilities=np.full((6, 2), 0.5, np.float32),
        classes=("=cmd", "b"),
    )
    with (table.save_csv(tmp_path / "table.csv")).open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "plain.png" in cells


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "header must be"),
        ("a,b\n", "header must be"),
        ("path,label,predicted,x\n", "header must be"),
        ("path,label,predicted,p_a,p_b\nx.png,a,a,1\n", "line 2: 4 cells, 5 wanted"),
        ("path,label,predicted,p_a,p_b\nx.png,c,a,1,0\n", "line 2: label 'c'"),
        ("path,label,predicted,p_a,p_b\nx.png,a,a,one,0\n", "line 2: could not convert"),
        ("path,label,predicted,p_a,p_b\nx.png,a,a,nan,0\n", "not a number"),
        ("path,label,predicted,p_a,p_b\nx.png,a,a,0.2,0.2\n", "sums to 0.4"),
        ('path,label,predicted,p_a\n"x,a,a,1\n', "not a CSV file"),
    ],
)
def test_a_defective_csv_is_refused_with_file_and_reason(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ReinceptionError, match=rf"bad\.csv.*{why}") as error:
        PredictionTable.load_csv(path)
    assert "\n" not in str(error.value)


def test_a_missing_csv_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ReinceptionError, match=r"gone\.csv: cannot read"):
        PredictionTable.load_csv(tmp_path / "gone.csv")


def test_predictions_are_never_written_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("mine")
    with pytest.raises(ReinceptionError, match="exists already"):
        random_table(0).save_csv(path)
    assert path.read_text() == "mine"


def test_a_file_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with new_text_file(tmp_path / "half.txt") as file:
            file.write("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ReinceptionError, match="cannot write: No such file or directory"):
        write_json({}, tmp_path / "no" / "such" / "folder.json")


def test_json_keeps_words_readable_and_odd_file_names_valid(tmp_path: Path) -> None:
    write_json({"label": "Müll"}, tmp_path / "a.json")
    write_json({"path": "\udcff.png"}, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "label": "Müll"\n}\n'
    assert (tmp_path / "b.json").read_bytes().isascii()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(math.nan, tmp_path / "c.json")


def test_metrics_do_not_need_torch() -> None:
    code = "import sys, reinception.metrics.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
