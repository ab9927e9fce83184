"""Stopping rules, held against Ray's own scheduler and against numpy."""

from __future__ import annotations

import random

import numpy as np
import pytest

from diffsearch import registry
from diffsearch.errors import DiffsearchError

MILESTONES = (1, 3, 9)


def arrivals(rng, runs):
    """An asynchronous order: (run, milestone, score), each run's milestones in order, runs interleaved at random."""
    left = {run: list(MILESTONES) for run in range(runs)}
    while left:
        run = rng.choice(sorted(left))
        yield run, left[run].pop(0), round(rng.gauss(100, 30), rng.choice([0, 6]))  # ties come up too
        if not left[run]:
            del left[run]


@pytest.mark.parametrize("seed", range(40))
def test_asha_decides_as_rays_asha_does(seed):
    """Ray's rungs for max_t 9, grace 1, reduction 3 are at 1 and 3; at 9 a run has reached its end in both."""
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    rng = random.Random(seed)
    theirs = ASHAScheduler(
        time_attr="training_iteration", metric="score", mode="min", max_t=9, grace_period=1, reduction_factor=3
    )
    ours = registry.stopping_rule.build("asha", reduction=3.0)
    runs = rng.randint(1, 25)
    trials = {run: Trial("x", stub=True, trial_id=str(run)) for run in range(runs)}
    for trial in trials.values():
        theirs.on_trial_add(None, trial)
    rungs = {milestone: {} for milestone in MILESTONES}
    stopped = set()
    for run, milestone, score in arrivals(rng, runs):
        if run in stopped:
            continue
        result = {"training_iteration": milestone, "score": score}
        verdict = theirs.on_trial_result(None, trials[run], result)
        stops = milestone == 9 or ours(score, list(rungs[milestone].values()))
        rungs[milestone][run] = score
        assert stops == (verdict == TrialScheduler.STOP), (run, milestone, score)
        if stops:
            stopped.add(run)
    assert len(stopped) <= runs


@pytest.mark.parametrize("seed", range(20))
def test_median_is_numpys(seed):
    rng = np.random.default_rng(seed)
    rule = registry.stopping_rule.build("median", minimum=3)
    for _ in range(50):
        others = rng.integers(0, 10, rng.integers(0, 9)).astype(float).tolist()
        value = float(rng.integers(0, 10))
        assert rule(value, others) == (len(others) >= 3 and value > np.median(others))


def test_none_never_stops():
    assert not registry.stopping_rule.build("none")(1e9, [0.0] * 100)


@pytest.mark.parametrize("name", registry.stopping_rule.names())
def test_the_first_run_of_a_rung_and_the_best_one_go_on(name):
    rule = registry.stopping_rule.build(name)
    assert not rule(1e9, []) and not rule(-1.0, [0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("options", [{"reduction": 1.0}, {"reduction": 0.5}, {"reduction": float("nan")}])
def test_asha_refuses_a_reduction_that_reduces_nothing(options):
    with pytest.raises(DiffsearchError, match="greater than 1"):
        registry.stopping_rule.build("asha", **options)


def test_median_needs_somebody_to_compare_with():
    with pytest.raises(DiffsearchError, match="at least 1"):
        registry.stopping_rule.build("median", minimum=0)
