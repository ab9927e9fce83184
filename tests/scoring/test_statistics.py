"""Means, intervals, and what the best is told apart from: against scipy's tests, closed forms, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from diffsearch.scoring.statistics import Summary, against_first, difference, holm, judge, summarise

SCORES = [32.7, 32.9, 35.2]
WORSE = [52.9, 53.7, 48.5]


@pytest.mark.parametrize(("scale", "of", "back"), [("linear", np.asarray, float), ("log", np.log, math.exp)])
def test_the_interval_is_scipys_of_students_t(scale, of, back):
    found = summarise(SCORES, scale)
    inside = stats.ttest_1samp(of(SCORES), 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(back(np.mean(of(SCORES))), rel=1e-12) and found.n == 3
    assert found.interval == pytest.approx((back(inside.low), back(inside.high)), rel=1e-9)


def test_one_value_has_no_interval():
    assert summarise([7.0]) == summarise([7.0], "log") == Summary(7.0, 1, None)


def test_what_has_no_logarithm_is_taken_as_it_is():
    """A distance of 0 is perfect, not an error."""
    assert summarise([0.0, 1.0, 2.0], "log") == summarise([0.0, 1.0, 2.0])
    assert difference([0.0, 1.0], [5.0, 7.0], "log") == difference([0.0, 1.0], [5.0, 7.0])


def test_two_seeds_that_are_worlds_apart_have_a_finite_interval():
    low, high = summarise([1e-30, 1e30], "log").interval
    assert 0 <= low < 1 < high < math.inf


def test_a_failure_is_never_a_score():
    with pytest.raises(ValueError, match="finite"):
        summarise([1.0, math.nan])
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


def test_a_difference_is_welchs_by_hand():
    a, b = SCORES, WORSE
    va, vb = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 3
    t, df = (np.mean(b) - np.mean(a)) / math.sqrt(va + vb), (va + vb) ** 2 / (va**2 / 2 + vb**2 / 2)
    found = difference(a, b)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-9)
    half = stats.t.ppf(0.975, df) * math.sqrt(va + vb)
    assert found.interval == pytest.approx((np.mean(b) - np.mean(a) - half, np.mean(b) - np.mean(a) + half), rel=1e-9)


def test_on_the_log_scale_a_difference_is_a_factor():
    twice = difference(SCORES, [2 * score for score in SCORES], "log")
    assert twice.value == pytest.approx(2) and twice.interval[0] < 2 < twice.interval[1]
    assert difference([3 * s for s in SCORES], [6 * s for s in SCORES], "log").p == pytest.approx(twice.p)


def test_paired_takes_the_differences_seed_by_seed():
    a, b = [30.0, 40.0, 55.0], [31.0, 41.5, 56.2]
    found, gaps = difference(a, b, paired=True), np.subtract(b, a)
    assert found.p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, rel=1e-9)
    assert found.p < 0.02 < difference(a, b).p, "the seeds' own scatter is gone"


def test_where_nothing_varies_nothing_is_proven():
    assert difference([1.0], WORSE) is None and difference([1.0, 1.0], [2.0, 2.0]) is None
    assert difference([30.0, 40.0], [31.0, 41.0], paired=True) is None
    assert difference([1.0, 1.0, 1.0], WORSE) is not None, "one side varies"


def test_holm_is_its_definition():
    """Sorted p times the number of hypotheses left, never below the one before; here by hand."""
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])).tolist() == pytest.approx([1.0, 1.0])
    with_none = holm(np.array([0.01, math.nan, 0.03]))
    assert with_none[[0, 2]].tolist() == pytest.approx([0.02, 0.03]) and math.isnan(with_none[1])
    assert holm(np.array([[0.01, 0.04], [0.04, 0.01]]))[1].tolist() == pytest.approx([0.04, 0.02])


def test_the_first_is_better_than_each_by_holm_or_than_all_by_their_largest_p():
    """Of four with pairs 01 02 03 12 13 23, first 1: Holm of all six, or the largest of 01, 12 and 13."""
    p = np.array([0.03, 0.9, 0.9, 0.002, 0.04, 0.5])
    found = against_first(p[None], np.array([1]), 4)[0]
    assert found[1] == 1 and found[0] == pytest.approx(0.04) and found[2] == pytest.approx(0.012)
    assert found[3] == pytest.approx(0.04)
    p[0] = math.nan  # not tested: so it can't have won, and five are left for Holm
    found = against_first(p[None], np.array([1]), 4)[0]
    assert found.tolist() == pytest.approx([1, 1, 0.01, 0.16])


def test_a_verdict_is_scipys_tests_corrected():
    samples = [WORSE, SCORES, [33.0, 45.0, 38.0], [60.0]]
    found = judge(samples, "min", "log")
    tests = [
        stats.ttest_ind(np.log(a), np.log(b), equal_var=False).pvalue if min(len(a), len(b)) > 1 else math.nan
        for a, b in itertools.combinations(samples, 2)
    ]
    assert found.first == 1
    assert found.p == pytest.approx(against_first(np.array([tests]), np.array([1]), 4)[0])
    assert found.p[3] == 1 and 3 in found.ties and not found.wins, "one seed is never told apart"


def test_a_verdict_names_winner_and_ties():
    clear = judge([SCORES, WORSE], "min", "log")
    assert clear.first == 0 and clear.wins and clear.ties == ()
    assert judge([SCORES, WORSE], "max", "log").first == 1
    tie = judge([SCORES, [33.0, 45.0, 38.0]], "min", "log")
    assert not tie.wins and tie.ties == (1,)
    assert not judge([SCORES], "min").wins, "nothing to be better than"


def test_paired_verdicts_see_what_the_seeds_scatter_hides():
    a, b = [30.0, 40.0, 55.0], [31.5, 42.1, 57.9]
    assert judge([a, b], "min", "log", paired=True).wins and not judge([a, b], "min", "log").wins


def test_identical_configurations_seldom_have_a_winner():
    """4,000 studies of two finalists, three seeds each: at most 5 % may name a better one, give or take four SE."""
    draw = np.exp(0.14 * np.random.default_rng(0).normal(size=(4000, 2, 3)))
    p = stats.ttest_ind(np.log(draw[:, 0]), np.log(draw[:, 1]), axis=-1, equal_var=False).pvalue
    first = np.log(draw).mean(-1).argmin(-1)
    claimed = (against_first(p[:, None], first, 2) < 0.05).any(-1)
    assert 0.01 < claimed.mean() < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 4000)
    shipped = [judge(study.tolist(), "min", "log").wins for study in draw[:200]]
    assert shipped == claimed[:200].tolist()
