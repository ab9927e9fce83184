"""What a study is scored by: metrics without a reference, and classifiers from files of the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffsearch.report import tables
from diffsearch.report.sections import all_evaluations
from diffsearch.scoring.classifier import SHIPPED_DIGITS
from tests.laboratory import Laboratory


def test_a_study_may_rank_by_inception_score(laboratory: Laboratory) -> None:
    metrics = {"evaluation.objective": "is-digits", "evaluation.metrics": None, "evaluation.samples": 100}
    laboratory.run(metrics)
    history = laboratory.history()
    assert history.direction == "max" and history.metrics == ("is-digits",)
    [bound] = history.bounds
    rows = tables.evaluations(history)
    assert 1 <= bound.ceiling < 1.01 and 6 < bound.floor < 10, "real digits above noise"
    assert rows["is-digits"].between(1, bound.floor).all() and rows["is-digits_spread"].ge(0).all()
    assert tables.winner(history).sheet.scores["is-digits"].value == rows["is-digits"].max()
    assert "± is within one evaluation's images" in all_evaluations(history, "all.csv")


def test_a_classifier_of_ones_own_scores_and_a_changed_one_scores_anew(laboratory: Laboratory, tmp_path: Path) -> None:
    """Here the shipped weights under another name: the same scores, but of another extractor."""
    mine = Path(shutil.copy(SHIPPED_DIGITS, tmp_path / SHIPPED_DIGITS.name.replace("digits", "mine")))
    laboratory.run({"evaluation.metrics": ["fd-digits"], "evaluation.objective": "fd-digits"})
    changes = {"use": [str(mine)], "evaluation.objective": "fd-mine", "evaluation.metrics": ["fd-mine", "fd-digits"]}
    laboratory.run(changes)
    rows = tables.evaluations(laboratory.history())
    assert len(rows) == 4 and (rows["fd-mine"] == rows["fd-digits"]).all()
    assert not laboratory.trained and len(laboratory.scored) == 4, "no run's key holds the extractor"
    laboratory.run(changes)
    assert not laboratory.scored
