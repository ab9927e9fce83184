"""A file of printed numbers: its values are read as a study's are, and every mistake is named by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsearch.errors import ConfigError, Problem
from diffsearch.space.published import FILE, beside, load, loads

TABLE = """\
title: On Noise
settings: {training.loss: x-prev-l2, training.epochs: 50}
tables:
  - name: range
    where: table 1
    metric: fid
    extractor: Inception
    axis: training.normalization
    settings: {model.channels: [32, 64]}
    winner: [-1, 1]
    rows:
      - {value: [-1, 1], score: 10.9}
      - {value: [0, 255], score: 220, error: 3}
"""


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return caught.value.problems


def test_values_are_those_of_a_study_file() -> None:
    found = loads(TABLE + "numbers: [{what: epochs, printed: 50, where: here}]\n")
    [table] = found.tables
    assert [(row.value, row.score, row.error) for row in table.rows] == [
        ((-1.0, 1.0), 10.9, None),
        ((0.0, 255.0), 220.0, 3.0),
    ]
    assert table.winner == (-1.0, 1.0) and table.samples is None and found.numbers[0].printed == "50"
    printed = {"training.loss": "x-prev-l2", "training.epochs": 50, "model.channels": (32, 64)}
    assert found.of(table) == printed


def test_the_settings_of_a_table_stand_over_the_common_ones_and_its_axis_is_none_of_them() -> None:
    text = TABLE.replace("model.channels: [32, 64]", "training.epochs: 100, training.normalization: [0, 1]")
    found = loads(text)
    assert found.of(found.tables[0]) == {"training.loss": "x-prev-l2", "training.epochs": 100}


# (what is replaced in the table, by what, line, path, a part of the message, a part of the help)
MISTAKES = [
    ("title: On Noise", "titel: On Noise", 1, "titel", "no such key", ""),
    ("title: On Noise", "title: 3", 1, "title", "should be a word, read 3", ""),
    ("    where: table 1\n", "", 4, "tables[1].where", "is needed", ""),
    ("metric: fid", "metric: fit", 6, "tables[1].metric", "unknown metric 'fit'", "Did you mean 'fid'?"),
    ("axis: training.n", "axis: training.m", 8, "tables[1].axis", "unknown axis", "mean 'training.normalization'?"),
    ("axis: training.normalization", "axis: training.deterministic", 8, "tables[1].axis", "unknown axis", ""),
    ("axis: training.normalization", "axis: data.dataset", 8, "tables[1].axis", "unknown axis", ""),
    ("axis: training.normalization", "axis: search.runs", 8, "tables[1].axis", "unknown axis", ""),
    ("loss: x-prev-l2", "loss: x-prev", 2, "settings.training.loss", "unknown value 'x-prev'", "'x-prev-l"),
    ("training.loss:", "training.los:", 2, "settings.training.los", "no such setting", "Did you mean 'training.loss'?"),
    ("epochs: 50", "epochs: [1, 50]", 2, "settings.training.epochs", "whole number", ""),
    ("[32, 64]", "[32, a]", 9, "tables[1].settings.model.channels", "whole number, read 'a'", ""),
    ("score: 10.9", "score: ten", 12, "tables[1].rows[1].score", "should be a number, read 'ten'", ""),
    ("score: 10.9", "score: .nan", 12, "tables[1].rows[1].score", "finite", ""),
    ("score: 10.9", "score: 10.9, se: 1", 12, "tables[1].rows[1].se", "no such key", ""),
    ("{value: [0, 255], score", "{score", 13, "tables[1].rows[2]", "needs a value of the axis", ""),
    ("[0, 255]", "[-1, 1]", 13, "tables[1].rows[2]", "is in this table twice", ""),
    ("winner: [-1, 1]", "winner: [0, 1]", 10, "tables[1].winner", "is none of the rows' values", ""),
    ("    axis: training.normalization\n", "", 11, "tables[1].rows", "without an axis a table has one row", ""),
    ("title: On Noise", "title: [On Noise", 2, "", "not YAML", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "path", "message", "help"), MISTAKES)
def test_a_mistake_is_named_by_its_line(old: str, new: str, line: int, path: str, message: str, help: str) -> None:
    assert old in TABLE
    problem = problems_of(TABLE.replace(old, new, 1))[0]
    assert (problem.line, problem.path) == (line, path)
    assert message in problem.message and help in problem.help


def test_all_mistakes_come_at_once() -> None:
    text = TABLE.replace("x-prev-l2", "x").replace("fid", "fit").replace("[0, 255]", "255")
    assert [problem.line for problem in problems_of(text)] == [2, 6, 13]


def test_the_file_is_found_beside_the_study(tmp_path: Path) -> None:
    assert beside(None) is None and beside(tmp_path / "study.yaml") is None
    (tmp_path / FILE).write_text(TABLE)
    assert beside(tmp_path / "study.yaml") == load(tmp_path / FILE) == loads(TABLE)
    (tmp_path / FILE).write_text("titel: x\n")
    with pytest.raises(ConfigError, match=r"published\.yaml:1:1: titel: no such key"):
        beside(tmp_path / "study.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path / "absent.yaml")
