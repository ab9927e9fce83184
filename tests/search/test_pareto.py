"""Fronts and volumes, held against Optuna's own, against brute force and against closed forms."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank

from diffsearch.search import pareto


def drawn(seed, count=30, objectives=2, digits=1):
    """Values with ties and doubles."""
    return np.random.default_rng(seed).uniform(1, 3, (count, objectives)).round(digits)


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_ranks_are_optunas(seed, objectives):
    values = drawn(seed, objectives=objectives)
    assert pareto.ranks(values).tolist() == _fast_non_domination_rank(values).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_a_study_of_optunas(seed):
    study = optuna.create_study(directions=["minimize", "minimize"])
    values = drawn(seed)
    for row in values:
        study.add_trial(optuna.create_trial(values=row.tolist()))
    assert sorted(pareto.front(values)) == sorted(trial.number for trial in study.best_trials)
    assert (np.diff(values[pareto.front(values)][:, 0]) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_is_the_share_of_random_points_that_are_dominated(seed):
    places = pareto.on_axes(drawn(seed, count=8))
    corner = 1 + pareto.MARGIN
    thrown = np.random.default_rng(seed + 100).uniform(0, corner, (40_000, 2))
    beaten = (places[None] <= thrown[:, None]).all(axis=2).any(axis=1).mean() * corner**2
    assert pareto.hypervolume(places) == pytest.approx(beaten, abs=4 * 0.5 * corner**2 / 200)  # 4 standard errors


def test_contributions_of_a_staircase_are_its_steps():
    """Three corners of a staircase: each one's own rectangle, by hand."""
    places = np.array([[0.0, 1.0], [0.4, 0.5], [1.0, 0.0], [0.9, 0.9]])
    second = 0.6 * 0.5 - 0.1 * 0.1  # but for what the dominated one has of it
    assert pareto.contributions(places) == pytest.approx([0.4 * 0.1, second, 0.1 * 0.5, 0.0])


@pytest.mark.parametrize("seed", range(5))
def test_contributions_are_differences_of_optunas_volumes(seed):
    places = pareto.on_axes(drawn(seed, count=12, objectives=3, digits=6))
    corner = np.full(3, 1 + pareto.MARGIN)
    whole = compute_hypervolume(places, corner)
    expected = [whole - compute_hypervolume(np.delete(places, index, axis=0), corner) for index in range(len(places))]
    assert pareto.contributions(places) == pytest.approx(expected)
    by = pareto.by_contribution(places)
    assert sorted(by) == sorted(pareto.front(places)) and expected[by[0]] == pytest.approx(max(expected))


def test_an_axis_is_logarithmic_over_decades_and_units_weigh_nothing():
    values = np.array([[1.0, 5.0], [10.0, 6.0], [100.0, 7.0]])
    assert pareto.on_axes(values)[:, 0] == pytest.approx([0, 0.5, 1])
    assert pareto.on_axes(values * [3.0, 1000.0]) == pytest.approx(pareto.on_axes(values))
    assert pareto.on_axes(np.array([[1.0, 2.0], [1.0, 3.0]]))[:, 0].tolist() == [0, 0]


def test_what_stands_for_a_run_is_what_the_known_front_lacks():
    known = np.array([[0.0, 1.0], [1.0, 0.0]])
    own = np.array([[0.05, 0.95], [0.3, 0.3], [0.95, 0.05]])
    assert pareto.telling(own, known) == 1
    assert pareto.telling(own, np.concatenate([known, [[0.29, 0.29]]])) != 1
    assert pareto.telling(np.array([[3.0, 3.0], [2.0, 2.0]]), known) == 1  # all dominated: the one that is least so
    assert pareto.telling(own, np.empty((0, 2))) in (0, 1, 2)


@pytest.mark.parametrize("seed", range(10))
def test_an_order_goes_by_ranks_and_spreads_within_each(seed):
    values = drawn(seed, count=25, digits=3)
    order = pareto.order(values)
    assert sorted(order) == list(range(25))
    assert (np.diff(pareto.ranks(values)[order]) >= 0).all()
    first = [index for index in order if pareto.ranks(values)[index] == 0]
    places = pareto.on_axes(values)
    for at in range(1, len(first)):  # brute force: nobody left is farther from those before than the one that came next
        apart = [min(np.linalg.norm(places[i] - places[j]) for j in first[:at]) for i in first[at:]]
        assert apart[0] == pytest.approx(max(apart))


def test_a_run_takes_the_place_of_its_best_evaluation():
    rung = [np.array([[5.0, 5.0]]), np.array([[9.0, 9.0], [1.0, 1.0]]), np.array([[6.0, 6.0]])]
    assert pareto.places_of_runs(rung) == [1, 0, 2]


def test_with_one_objective_the_places_are_those_of_the_scores():
    scores = np.random.default_rng(0).permutation(20).astype(float)
    assert pareto.places_of_runs([np.array([[score]]) for score in scores]) == scores.astype(int).tolist()


def test_the_knee_of_a_circle_is_at_45_degrees():
    angles = np.linspace(0, np.pi / 2, 21)
    convex = 1 - np.column_stack([np.sin(angles), np.cos(angles)]) * 0.9
    assert pareto.knee(np.concatenate([[[1.0, 1.0]], convex])) == 1 + 10
