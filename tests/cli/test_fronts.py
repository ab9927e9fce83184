"""A front on a terminal, of the invented study of the report's tests."""

from __future__ import annotations

import dataclasses
import json

import pytest

from diffsearch.cli import endings, table_screen
from diffsearch.cli.places import Refused
from diffsearch.report.ranks import winner
from tests.report.conftest import make_history

ONE = make_history()
TRADED = dataclasses.replace(ONE, objectives=("fd-digits", "network_calls"))


def test_a_table_of_the_front_has_every_objective_and_the_knee(capsys):
    rows = table_screen.sorted_rows(TRADED, None, pareto=True)
    table_screen.show(TRADED, rows)
    head, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) and {"fd-digits", "network_calls", "knee"} <= set(head.split())
    assert sum("knee" in line for line in lines) == 1
    assert table_screen.front_lines(TRADED) == [head, *lines]


def test_the_front_of_one_objective_is_refused():
    with pytest.raises(Refused, match="has one objective"):
        table_screen.sorted_rows(ONE, None, pareto=True)


def test_a_run_ends_with_the_front_in_words_and_as_json():
    line = endings.winner_line(TRADED)
    assert "on the front of fd-digits and network_calls" in line and "*" not in line and "`" not in line
    facts = json.loads(json.dumps(endings.best_facts(TRADED, winner(TRADED))))
    assert [member["knee"] for member in facts["front"]].count(True) == 1
    assert {"fd-digits", "network_calls", "run", "epoch", "sampling"} <= set(facts["front"][0])
    assert "front" not in endings.best_facts(ONE, winner(ONE))
