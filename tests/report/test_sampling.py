"""What sampling gave, on scores that are made up so that the answer can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats

from diffsearch.records import EpochRecord, Evaluation, Outcome, RunHistory, Score, Screened, State, StudyHistory
from diffsearch.report.sampling import gain, sampling_points, without_training
from diffsearch.space.settings import Choice, SamplingPoint
from tests.report.conftest import draw, settings_of

BASE, FAST = SamplingPoint(Choice.of("ancestral"), None, 2000), SamplingPoint(Choice.of("ddim"), 5, 2000)


def sheet(run, epoch, point, value, samples, seed=0):
    scores = {"fd-digits": Score(value, samples, "e1")}
    calls = samples * (point.steps or 10)
    return Evaluation(f"{run}{epoch}{point}{samples}{seed}", run, epoch, point, samples, seed, scores, calls, 1.0, 1.0)


def run(number, scores, stage="search", state=State.FINISHED, samples=100, loss=None):
    """A run with scores: (epoch, point) → value, in the order of asking."""
    import numpy as np

    point = {**draw(np.random.default_rng(0), 1), "training.batch_size": loss or number}
    sheets = tuple(sheet(f"{stage}{number}", epoch, each, value, samples) for (epoch, each), value in scores.items())
    epochs = tuple(EpochRecord(n, 0.1, n * 100, 100.0, 1.0, 10.0) for n in range(1, 4))
    return RunHistory(f"{stage}{number}", settings_of(point, number), point, stage, number, Outcome(state), epochs,
                      sheets, 0, 0)  # fmt: skip


def study(*runs, direction="min", **more):
    return StudyHistory("s", "fd-digits", direction, ("fd-digits",), 100, ("training.batch_size",), (1, 3), runs, (),
                        "name: s\n", "diffsearch run s.yaml", 1.0, 1, 1, 100, "the store", **more)  # fmt: skip


def swept(base, fast, early=None):
    return {(1, BASE): early or 2 * base, (3, BASE): base, (3, FAST): fast}


def test_the_gain_is_divided_on_the_log_scale():
    """80 → 20 by training on the base point, 20 → 10 by the sampler: ln 2 of ln 8."""
    found = gain(study(run(1, swept(80, 60)), run(2, swept(20, 10)), run(3, swept(40, 39))))
    assert (found.start.key, found.start_score, found.base_score) == ("search1", 80, pytest.approx(20))
    assert (found.base, found.chosen) == (BASE, FAST)
    assert found.total() == pytest.approx(8) and found.share() == pytest.approx(1 / 3)
    assert found.share(found.median_score) == pytest.approx(1 / 2)  # from 40
    assert (found.sampling.n, found.sampling.interval) == (1, None)


def test_the_start_is_the_first_that_came_to_its_end():
    stopped = run(1, {(1, BASE): 500}, state=State.STOPPED_EARLY)
    failed = run(2, swept(900, 1), state=State.FAILED)
    assert gain(study(stopped, failed, run(3, swept(80, 60)), run(4, swept(20, 10)))).start.key == "search3"


def test_fresh_seeds_say_what_the_winners_sampling_gives():
    """Of two seeds the ratios are 4 and 1: the mean logarithm is ln 2; their base points replace the search's."""
    finals = [
        replace(run(n, {(3, BASE): base, (3, FAST): fast}, "finalist"), point=run(2, {}).point)
        for n, base, fast in ((8, 20, 5), (9, 45, 45))
    ]
    found = gain(study(run(1, swept(120, 100)), run(2, swept(20, 10)), *finals))
    assert found.sampling.mean == pytest.approx(2) and found.sampling.n == 2
    assert found.base_score == pytest.approx(30)  # geometric, of 20 and 45
    assert found.share() == pytest.approx(math.log(2) / math.log(8))


def test_where_finalists_are_drawn_in_larger_numbers_each_ratio_stays_within_one_count():
    finals = [
        replace(run(8, {(3, BASE): 4.0, (3, FAST): 2.0}, "finalist", samples=400), point=run(2, {}).point),
    ]
    history = study(run(1, swept(80, 60)), run(2, swept(20, 18)), *finals)
    found = gain(history)
    assert found.samples == (100, 400) and found.base_score == pytest.approx(20)
    assert found.total() == pytest.approx(80 / 20 * 2)
    assert "on 400 samples, the rest on 100" in without_training(history)


def test_a_metric_that_is_to_be_high_is_divided_alike():
    found = gain(study(run(1, swept(10, 11, early=5)), run(2, swept(40, 80, early=5)), direction="max"))
    assert found.total() == pytest.approx(8) and found.share() == pytest.approx(1 / 3)


def test_no_gain_no_logarithm_no_end():
    assert "no gain to divide" in without_training(_no_gain())
    assert gain(study(run(1, swept(-1.0, 2)))) == "a fd-digits of 0 or less has no logarithm"
    assert gain(study(run(1, {(1, BASE): 5}, state=State.STOPPED_EARLY))) == "no run came to its last milestone"


def _no_gain():
    """The first run is the best of the search; the fresh seeds of its winner are worse than it was."""
    finals = replace(run(8, {(3, BASE): 50.0, (3, FAST): 49.0}, "finalist"), point=run(1, {}).point)
    return study(run(1, swept(20, 19)), run(2, swept(40, 39)), finals)


def test_a_winner_at_its_base_point_needed_training_for_all_of_it():
    text = without_training(study(run(1, swept(80, 85)), run(2, swept(20, 25))))
    assert "**0 %** of the gain came without training" in text


def test_every_sampling_point_stands_beside_the_base_point():
    """Ratios 1/2 and 2: their geometric mean is 1, their arithmetic one isn't."""
    history = study(run(1, swept(80, 40)), run(2, swept(20, 40)), run(3, {(1, BASE): 1.0}, state=State.STOPPED_EARLY))
    found = sampling_points(history).set_index("sampling")
    base, fast = found.loc[str(BASE)], found.loc[str(FAST)]
    assert (base["calls"], fast["calls"]) == (10, 5) and (base["n"], fast["n"]) == (3, 2)
    assert (fast["best"], fast["mean"], fast["against"]) == (40, pytest.approx(40), pytest.approx(1))
    half = stats.t.ppf(0.975, 1) * math.log(2)  # of ± ln 2, n - 1 = 1: s = ln 2 · √2, over √2
    assert (fast["against_low"], fast["against_high"]) == (
        pytest.approx(math.exp(-half)),
        pytest.approx(math.exp(half)),
    )
    assert math.isnan(base["against"])


def test_the_section_says_what_it_found_and_is_absent_without_a_sweep():
    history = study(run(1, swept(80, 60)), run(2, swept(20, 10)))
    text = without_training(history)
    assert text.startswith("## What sampling gave") and "**33 %** of the gain needed no training" in text
    assert "best of 2 on these same scores" in text and "no interval" in text and "73 % of the drop" in text
    assert without_training(study(run(1, {(1, BASE): 9.0, (3, BASE): 8.0}))) == ""


def test_the_comparison_with_edm_is_what_its_abstract_says():
    assert round(100 * (2.07 - 1.55) / (2.07 - 1.36)) == 73
    assert round(100 * math.log(2.07 / 1.55) / math.log(2.07 / 1.36)) == 69


def test_a_screened_study_is_judged_by_its_screen_alone():
    """Its full scores are of few runs; the first run is seldom among them."""
    runs = [run(1, swept(80, 60)), run(2, swept(20, 10))]
    moved = [replace(each, screened=each.evaluations, evaluations=()) for each in runs]
    full = sheet("search2", 3, FAST, 3.0, 2000)
    moved[1] = replace(moved[1], evaluations=(full,))
    screen = Screened("fd-digits", "min", 100)
    found = gain(replace(study(*moved, screen=screen), samples=2000))
    assert found.share() == pytest.approx(1 / 3) and found.samples == (100, 100)


def test_of_a_sweep_of_finalists_beside_a_screen_no_share_is_told():
    """The search was screened at its base point alone: of what its start would score in full nothing is known."""
    start, best = run(1, {(3, BASE): 80.0}), run(2, {(3, BASE): 20.0})
    screened = [replace(each, screened=each.evaluations, evaluations=()) for each in (start, best)]
    final = run(3, {(3, BASE): 5.0, (3, FAST): 4.0}, stage="finalist", samples=2000, loss=2)
    history = replace(study(*screened, final, screen=Screened("fd-digits", "min", 100)), samples=2000)
    text = without_training(history)
    assert "scored in full" in text and "**0 %**" not in text and "(base)" in text
