"""The model card: no empty section, no live HTML."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from report_html import table_of

from reinception import metrics
from reinception.report import formatting
from reinception.report.card import card
from reinception.report.read_run import Run

pytest_plugins = ["report_fixtures"]


def test_the_model_card_has_no_empty_section_and_no_live_html(run: Run) -> None:
    text = card(run)
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        assert len(body.strip()) > 20, title
    assert "More information" not in text and "None" not in text
    assert formatting.percent(metrics.accuracy(table_of(run)).percent, 2) in text
    assert "<script>" not in text
    assert r"\<script\>" in text
    assert str(run.config["command"]) in text


def test_a_card_leaves_out_what_the_run_does_not_know(run: Run) -> None:
    bare = dataclasses.replace(
        run,
        folder=Path("/nowhere"),
        config={},
        environment={},
        log=(),
        table=None,
        split=None,
        validation=None,
        speed={},
    )
    titles = re.findall(r"^## (.*)$", card(bare), flags=re.MULTILINE)
    assert titles == ["Training"]
