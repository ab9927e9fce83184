"""Means, standard errors, ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from diffsearch.scoring.statistics import (
    Summary,
    chance_of_telling_equals_apart,
    summarise,
    tie_groups,
    told_apart,
    welch_p,
)


def test_the_standard_error_is_the_closed_form():
    summary = summarise([2.0, 4.0, 9.0])
    assert summary.mean == 5.0 and summary.n == 3
    assert summary.se == pytest.approx(math.sqrt((9 + 1 + 16) / 2 / 3), rel=1e-12)
    assert summary.interval == (5.0 - summary.se, 5.0 + summary.se)


def test_one_value_has_no_interval_and_is_never_told_apart():
    lone, sure = summarise([1.0]), Summary(1000.0, 0.1, 5)
    assert lone.se is None and lone.interval is None
    assert not told_apart(lone, sure) and not told_apart(sure, lone) and not told_apart(lone, lone)


def test_a_failure_is_never_a_score():
    with pytest.raises(ValueError, match="finite"):
        summarise([1.0, math.nan])
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


def test_told_apart_means_that_the_intervals_do_not_overlap():
    assert told_apart(Summary(5.0, 0.4, 3), Summary(6.0, 0.5, 3))
    assert told_apart(Summary(6.0, 0.5, 3), Summary(5.0, 0.4, 3))
    assert not told_apart(Summary(5.0, 0.5, 3), Summary(6.0, 0.5, 3))  # they touch
    assert not told_apart(Summary(5.0, 0.4, 3), Summary(5.0, 0.0, 3))


@pytest.mark.parametrize(("direction", "expected"), [("min", [2, 1, 1, 3]), ("max", [2, 3, 3, 1])])
def test_tie_groups_are_relative_to_the_first_of_each_group(direction, expected):
    summaries = [Summary(7.0, 0.3, 3), Summary(5.0, 0.3, 3), Summary(5.5, 0.3, 3), Summary(90.0, 1.0, 3)]
    assert tie_groups(summaries, direction) == expected


def test_a_single_run_joins_the_group_it_falls_in():
    summaries = [Summary(5.0, 0.1, 3), Summary(7.0, 0.1, 3), Summary(9.0, None, 1)]
    assert tie_groups(summaries, "min") == [1, 2, 2]
    assert tie_groups([], "min") == []


def test_welch_is_scipys_and_absent_without_spread():
    a, b = [5.1, 5.9, 6.3], [7.4, 7.9, 8.8]
    # Welch's statistic and its degrees of freedom by hand
    va, vb = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 3
    t, df = (np.mean(a) - np.mean(b)) / math.sqrt(va + vb), (va + vb) ** 2 / (va**2 / 2 + vb**2 / 2)
    assert welch_p(a, b) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-9)
    assert welch_p([1.0], b) is None and welch_p([1.0, 1.0], [1.0, 1.0]) is None


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_rule_tells_equals_apart_as_often_as_stated(n):
    draw = np.random.default_rng(n).normal(size=(2, 40_000, n))
    gap = np.abs(draw[0].mean(1) - draw[1].mean(1))
    reach = (draw[0].std(1, ddof=1) + draw[1].std(1, ddof=1)) / math.sqrt(n)
    # 40,000 draws: standard error of the rate ≤ 0.0024; four of them
    assert chance_of_telling_equals_apart(n) == pytest.approx(float(np.mean(gap > reach)), abs=0.01)
