"""Stopping rules, held against Ray's own scheduler and against numpy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from diffsearch import registry
from diffsearch.errors import DiffsearchError
from diffsearch.search.stopping import Rung, carried_on

MILESTONES = (1, 3, 9)


def rung(value, others, epoch=1):
    """A run at a milestone of 1, 3, 9, before it scores of its own that no rule may take for those of this one."""
    before = {earlier: 7e9 for earlier in MILESTONES if earlier < epoch}
    ahead = tuple(later for later in MILESTONES if later > epoch)
    return Rung(epoch, {**before, epoch: value}, ahead, [{**before, epoch: other} for other in others])


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
        stops = milestone == 9 or ours(rung(score, rungs[milestone].values(), milestone))
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
        assert rule(rung(value, others)) == (len(others) >= 3 and value > np.median(others))


def test_none_never_stops():
    assert not registry.stopping_rule.build("none")(rung(1e9, [0.0] * 100))


@pytest.mark.parametrize("name", registry.stopping_rule.names())
def test_the_first_run_of_a_rung_and_the_best_one_go_on(name):
    rule = registry.stopping_rule.build(name)
    assert not rule(rung(1e9, [])) and not rule(rung(-1.0, [0.0, 1.0, 2.0, 3.0]))


@pytest.mark.parametrize("options", [{"reduction": 1.0}, {"reduction": 0.5}, {"reduction": float("nan")}])
def test_asha_refuses_a_reduction_that_reduces_nothing(options):
    with pytest.raises(DiffsearchError, match="greater than 1"):
        registry.stopping_rule.build("asha", **options)


def test_median_needs_somebody_to_compare_with():
    with pytest.raises(DiffsearchError, match="at least 1"):
        registry.stopping_rule.build("median", minimum=0)


# --- curves ---------------------------------------------------------------------------------------------------------


def power_law(rng, offset, milestones=MILESTONES):
    """exp(offset) / sqrt(epoch), each score with 5 % of noise."""
    return {epoch: math.exp(offset - 0.5 * math.log(epoch) + rng.gauss(0, 0.05)) for epoch in milestones}


def test_a_curve_is_carried_on_as_curves_like_it_went():
    """Every known curve loses half a logarithm a factor of e in epochs: so do the futures, within their noise."""
    rng = random.Random(0)
    others = [power_law(rng, rng.gauss(3, 1)) for _ in range(200)]
    future = np.log(carried_on(Rung(1, {1: math.exp(3)}, (3, 9), others), minimum=8, draws=4000))
    assert future.mean() == pytest.approx(3 - 0.5 * math.log(9), abs=0.05)
    assert 0.04 < future.std() < 0.15


def test_slow_starters_are_known_by_how_they_came():
    """Two kinds of curves cross at epoch 3, one falling and one flat: the step before tells which goes on falling."""
    rng = random.Random(0)
    falling = [{1: math.exp(rng.gauss(4, 0.1)), 3: math.exp(rng.gauss(2, 0.1)), 9: 1.0} for _ in range(50)]
    flat = [{1: math.exp(rng.gauss(2, 0.1)), 3: math.exp(rng.gauss(2, 0.1)), 9: math.e**2} for _ in range(50)]
    came_down = carried_on(Rung(3, {1: math.e**4, 3: math.e**2}, (9,), falling + flat), 8, 400)
    stayed = carried_on(Rung(3, {1: math.e**2, 3: math.e**2}, (9,), falling + flat), 8, 400)
    assert np.median(came_down) < 2 and np.median(stayed) > 5


def test_the_chance_that_stops_a_run_is_the_chance_that_it_had():
    """Of runs that the rule would stop at epoch 1 for a chance below a fifth, no more than that beat the incumbent."""
    rng = random.Random(1)
    known = [power_law(rng, rng.gauss(3, 0.4)) for _ in range(150)]
    incumbent = sorted(min(curve.values()) for curve in known)[8]
    known = [curve for curve in known if min(curve.values()) >= incumbent]
    stopped = registry.stopping_rule.build("curves", chance=0.2, draws=64)
    fresh = [power_law(rng, rng.gauss(3, 0.4)) for _ in range(150)]
    verdicts = [stopped(Rung(1, {1: curve[1]}, (3, 9), known)) for curve in fresh]
    lost = sum(min(curve.values()) < incumbent for curve, stops in zip(fresh, verdicts, strict=True) if stops)
    won = sum(min(curve.values()) < incumbent for curve, stops in zip(fresh, verdicts, strict=True) if not stops)
    assert sum(verdicts) > 100 and lost <= 0.2 * sum(verdicts) and won > lost


def test_curves_of_other_studies_count_but_their_best_is_no_incumbent():
    """What this study must beat is its own best; what it knows of curves is everybody's."""
    rng = random.Random(0)
    stored = [power_law(rng, rng.gauss(0, 0.3)) for _ in range(40)]
    rule = registry.stopping_rule.build("curves")
    hopeless, own = {1: math.exp(5)}, [{1: math.exp(3), 3: math.exp(2.5), 9: math.exp(2)}]
    assert not rule(Rung(1, hopeless, (3, 9), own)), "one curve says nothing"
    assert rule(Rung(1, hopeless, (3, 9), own, stored))
    assert not rule(Rung(1, {1: math.exp(3.02)}, (3, 9), own, stored))


@pytest.mark.parametrize("shift", [0.0, -1000.0])
def test_scores_that_are_not_positive_are_carried_on_as_they_are(shift):
    """Kernel distances may be negative, and a score where more is better comes with its sign turned."""
    others = [{1: value + shift, 3: value - 1 + shift} for value in np.linspace(1, 3, 40)]
    future = carried_on(Rung(1, {1: 2.0 + shift}, (3,), others), 8, 400)
    assert np.median(future) == pytest.approx(1 + shift, abs=0.15 if shift == 0 else 1e-6)


@pytest.mark.parametrize("options", [{"chance": 0.0}, {"chance": 1.0}, {"minimum": 1}, {"draws": 0}])
def test_curves_refuses_what_it_cannot_decide_by(options):
    with pytest.raises(DiffsearchError, match="curves"):
        registry.stopping_rule.build("curves", **options)
