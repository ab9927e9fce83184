"""Law 4. A winner is claimed only where the data supports it: finalists over fresh seeds, equal sample counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from diffsearch.report.ranks import configurations, winner
from diffsearch.study.requests import FRESH_SEEDS

FINALS = {
    "training.epochs": [1],
    "search.finalists": {"top": 2, "repeats": 2, "samples": 90, "sampling": {"ema": [0, 100]}},
}


@pytest.fixture(scope="module")
def history(tmp_path_factory, request):
    laboratory = request.getfixturevalue("new_laboratory")(tmp_path_factory.mktemp("finals"))
    laboratory.run(FINALS)
    return laboratory.history()


def test_finalists_have_seeds_that_no_search_run_has(history):
    search = {run.settings.seed for run in history.runs if run.stage == "search"}
    finals = [run.settings.seed for run in history.runs if run.stage == "finalist"]
    assert search == {0} and sorted(finals) == [FRESH_SEEDS, FRESH_SEEDS, FRESH_SEEDS + 1, FRESH_SEEDS + 1]


def test_finalists_are_sampled_from_fresh_noise(history):
    noise = {
        stage: {e.noise_seed for run in history.runs if run.stage == stage for e in run.evaluations}
        for stage in ("search", "finalist")
    }
    assert noise["search"] == {0} and noise["finalist"] == {FRESH_SEEDS, FRESH_SEEDS + 1}


def test_configurations_are_compared_on_the_same_noise(history):
    finals = [run for run in history.runs if run.stage == "finalist"]
    assert len({frozenset(e.noise_seed for e in run.evaluations) for run in finals}) == 2  # one for each repetition


def test_finalists_are_scored_with_their_own_sample_count(history):
    counts = {(run.stage, e.samples, e.scores["fd-digits"].samples) for run in history.runs for e in run.evaluations}
    assert counts == {("search", 70, 70), ("finalist", 90, 90)}
    assert {bound.samples for bound in history.bounds} == {70, 90}


def test_finalists_sweep_what_they_name(history):
    for run in history.runs:
        assert [e.sampling.ema for e in run.evaluations] == ([0] if run.stage == "search" else [0, 100])


def test_each_finalist_is_repeated_up_to_the_epoch_that_earned_its_score(laboratory):
    laboratory.run({"training.loss": "x0-l2", "search.finalists": {"top": 1, "repeats": 1}})
    search, final = laboratory.history().runs
    best = min(search.evaluations, key=lambda e: e.scores["fd-digits"].value)
    assert [e.epoch for e in final.evaluations] == [best.epoch]


def test_the_best_points_become_finalists_best_first(laboratory):
    laboratory.run(
        {
            "training.loss": ["epsilon-l2", "x0-l2", "v-l2"],
            "training.epochs": [1],
            "search.finalists": {"top": 2, "repeats": 1},
        }
    )
    runs = laboratory.history().runs
    ranked = sorted((r for r in runs if r.stage == "search"), key=lambda r: r.evaluations[0].scores["fd-digits"].value)
    finals = [run.point for run in runs if run.stage == "finalist"]
    assert finals == [run.point for run in ranked[:2]]


def test_the_scores_that_chose_a_finalist_never_count_in_its_interval(history):
    """The winner's curse: whatever the search scored, what is claimed of a finalist is what its fresh seeds say."""
    before = configurations(history)
    assert len(before) == 2 and all(run.stage == "finalist" for c in before for run in c.runs)
    spoiled = [
        dataclasses.replace(run, evaluations=tuple(_scored(sheet, 1e-6) for sheet in run.evaluations))
        if run.stage == "search"
        else run
        for run in history.runs
    ]
    after = configurations(dataclasses.replace(history, runs=tuple(spoiled)))
    assert [(c.scores, c.summary, c.p) for c in after] == [(c.scores, c.summary, c.p) for c in before]
    finals = {run.key for run in history.runs if run.stage == "finalist"}
    assert not finals & {run.key for run in history.runs if run.stage == "search"}, "no run is both"


def _scored(sheet, value):
    scores = {name: dataclasses.replace(score, value=value) for name, score in sheet.scores.items()}
    return dataclasses.replace(sheet, scores=scores)


def test_the_interval_is_students_over_the_fresh_seeds(history):
    for c in configurations(history):
        inside = stats.ttest_1samp(np.log(c.scores), 0).confidence_interval(0.95)
        assert c.summary.interval == pytest.approx(tuple(np.exp([inside.low, inside.high])), rel=1e-9)


def test_scores_of_different_sample_counts_are_never_mixed(history):
    """More samples make a Fréchet distance smaller: a finalist's score beside a search run's is no comparison."""
    won = winner(history)
    assert won is not None and won.run.stage == "finalist" and won.sheet.samples == 90


def test_the_extractor_of_each_score_is_known(history):
    extractors = {score.extractor for run in history.runs for e in run.evaluations for score in e.scores.values()}
    assert len(extractors) == 1 and history.facts["extractor digits"] in extractors
