"""The forest over a study's scores: how it carries stopped runs on, what it expects, and when it isn't believed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import integrate, stats

from diffsearch.records import Outcome, State, StudyHistory
from diffsearch.report.ranks import point_key
from diffsearch.report.surrogate import Surrogate, candidates, carried, comparable, expected_improvement
from diffsearch.space.load import loads
from diffsearch.space.settings import canonical


@pytest.fixture(scope="module")
def spec():
    from tests.report.conftest import TEXT

    return loads(TEXT)


def shuffled(history: StudyHistory, seed: int) -> StudyHistory:
    """The same scores and ends, each at another run's point."""
    points = [run.point for run in history.runs]
    order = np.random.default_rng(seed).permutation(len(points))
    return dataclasses.replace(
        history,
        runs=tuple(dataclasses.replace(run, point=points[i]) for run, i in zip(history.runs, order, strict=True)),
    )


def test_a_stopped_run_is_carried_on_by_the_mean_steps_of_those_that_went_on():
    curves = [{1: 5.0, 3: 3.0, 9: 2.0}, {1: 6.0, 3: 5.0}, {1: 7.0}]
    assert carried(curves, (1, 3, 9)) == pytest.approx([2.0, 5.0 - 1.0, 7.0 - 1.5 - 1.0])
    assert carried([{1: 4.0}], (1, 3)) == [4.0]


@pytest.mark.parametrize(("ahead", "deviation"), [(0.3, 0.2), (-0.4, 0.5), (0.0, 1.0)])
def test_expected_improvement_is_the_integral_that_it_stands_for(ahead: float, deviation: float):
    density = stats.norm(ahead, deviation).pdf
    wanted, _ = integrate.quad(lambda x: x * density(x), 0, ahead + 12 * deviation)
    found = expected_improvement(np.array([ahead]), np.array([deviation]))
    assert found[0] == pytest.approx(wanted, rel=1e-6)


def test_it_predicts_where_axes_decide_and_not_where_they_were_shuffled(make, spec):
    history = make(count=40, finalists=False, seed=2)
    skill = Surrogate(history, spec, comparable(history)).skill()
    assert skill is not None and skill.points == 39 and skill.gain > 0.4 and skill.p < 0.001
    chance = [Surrogate(h, spec, comparable(h)).skill() for h in (shuffled(history, seed) for seed in range(2))]
    assert all(each is not None and (each.p > 0.05 or each.gain <= 0) for each in chance)
    few = make(count=8, finalists=False)
    assert Surrogate(few, spec, comparable(few)).skill() is None


def test_it_expects_most_where_the_formula_is_good_and_nothing_of_what_was_scored(make, spec):
    from tests.report.conftest import LOSS, PROCESS

    history = make(count=40, finalists=False, seed=2)
    found = Surrogate(history, spec, comparable(history)).expectation()
    truth = np.log([LOSS[p["training.loss"]] * PROCESS[p["diffusion.noise_process"]] for p in found.points])
    best = np.argsort(-found.improvement)[:50]
    assert truth[best].mean() < 0.4 * truth.mean()
    assert found.improvement.min() >= 0 and found.logarithmic
    reached = {point_key(run) for run in history.runs if any(sheet.epoch == 9 for sheet in run.evaluations)}
    assert reached and not reached & {canonical(dict(point)) for point in found.points}


def test_what_fails_is_not_expected_to_improve(make, spec):
    history = make(count=30, finalists=False, diverged=False)
    bad = Outcome(State.DIVERGED, "loss became NaN")
    runs = [
        dataclasses.replace(run, outcome=bad, evaluations=()) if run.point["training.batch_size"] == 32 else run
        for run in history.runs
    ]
    history = dataclasses.replace(history, runs=tuple(runs))
    found = Surrogate(history, spec, comparable(history)).expectation()
    small = np.array([point["training.batch_size"] == 32 for point in found.points])
    assert found.improvement[small].mean() < 0.6 * found.improvement[~small].mean()


def test_candidates_are_all_points_of_a_small_space_and_draws_of_a_large_one(spec):
    assert len(candidates(loads("data: {dataset: mnist-5k}\ndiffusion: {steps: [5, 10, 15]}\n"))) == 3
    drawn = candidates(spec)
    rates = np.log([point["training.learning_rate"] for point in drawn])
    assert len(drawn) == 2048 and stats.kstest(rates, "uniform", (math.log(3e-4), math.log(10))).pvalue > 0.01
