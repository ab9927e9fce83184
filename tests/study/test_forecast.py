"""What a study will take, played through: against closed forms, and against the rule and the limits themselves."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from diffsearch.search.stopping import asha
from diffsearch.space.settings import Choice
from diffsearch.study.forecast import IMPROVEMENT, Game, Leg, Limits, foretell, rule_of

RUN = (Leg(1, 100, 10, 1.0), Leg(2, 200, 10, 2.0), Leg(6, 600, 10, 6.0))  # 9 s, to epochs 1, 3 and 9
WHOLE = Game(lambda rng, number: RUN, lambda rng: Leg(9, 900, 100, 10.0), 2, Limits(runs=10), None, 0, (1, 3, 9))


def told(game, **options):
    return foretell(game, **{"start_s": 0.0, "around_s": 0.0, "learns": False, "milestones": 3, **options})


def test_without_a_rule_the_time_is_one_number_and_the_sum_of_its_parts():
    found = told(WHOLE, start_s=5.0, around_s=7.0)
    assert found.wall_s == found.low_s == found.high_s == 5 + 10 * 9 / 2 + 7
    assert (found.runs, found.epochs, found.images, found.train_s) == (10, 90, 9000, 90.0)
    assert found.shares == (1.0, 1.0, 1.0) and found.ended_by == "runs"


def test_runs_and_finals_don_t_share_a_worker_out():
    assert told(replace(WHOLE, limits=Limits(runs=9))).wall_s == 5 * 9, "the last one runs alone"
    found = told(replace(WHOLE, limits=Limits(runs=1), finals=3))
    assert found.wall_s == 9 + 2 * 10 and found.samples == 30 + 300, "three finalists of 10 s on two workers"


def test_a_coordinate_search_waits_for_the_last_value_of_each_axis():
    assert told(replace(WHOLE, workers=4, batches=(3, 3, 2), limits=Limits(runs=8))).wall_s == 3 * 9


def test_asha_s_survivors_lie_between_those_of_points_that_don_t_improve_and_that_do():
    """The chance that the k-th of exchangeable scores goes on by its rank among those before it has a closed form."""
    runs, rule = 30, asha(reduction=3.0)
    game = replace(WHOLE, workers=1, limits=Limits(runs=runs), rule=rule)
    plays = [game.play(random.Random(seed)) for seed in range(80)]
    expected = 1.0  # the first goes on; of k + 1 scores with k before, those not above the quantile at 1/3 of them
    for k in range(1, runs):
        expected += ((k - 1) // 3 + 1 + ((k - 1) % 3) / 3) / (k + 1)
    shares = np.array([play.reached[1] / play.runs for play in plays])
    error = shares.std() / len(plays) ** 0.5
    assert shares.mean() == pytest.approx(expected / runs, abs=3 * error)
    better = np.mean([game.play(random.Random(seed), IMPROVEMENT).reached[1] / runs for seed in range(20)])
    assert better > shares.mean() + 5 * error, "each newcomer beats those before"
    found = told(game, learns=True)
    assert found.low_s < np.mean([play.wall_s for play in plays]) < found.high_s and found.shares[1] > found.shares[2]


def test_the_first_runs_of_a_rung_go_on_so_that_few_runs_survive_more_often():
    few, many = (told(replace(WHOLE, limits=Limits(runs=n), rule=asha())).shares[1] for n in (4, 50))
    assert few > many + 0.1 and many > 1 / 3


@pytest.mark.parametrize(
    ("limits", "runs", "by"),
    [
        (Limits(wall_s=45.0), 10, "wall"),  # two workers: at 36 s the last two begin
        (Limits(runs=4, wall_s=45.0), 4, "runs"),
        (Limits(device_s=36.0), 4, "device_hours"),
        (Limits(images=4500), 5, "images"),
        (Limits(runs=40, images=4499), 4, "images"),
    ],
)
def test_what_a_budget_buys(limits, runs, by):
    found = told(replace(WHOLE, limits=limits))
    assert (found.runs, found.ended_by) == (runs, by)


def test_when_time_is_up_runs_end_at_their_next_milestone():
    play = replace(WHOLE, workers=1, limits=Limits(wall_s=10.5)).play(random.Random(0))
    assert (play.runs, play.wall_s, play.reached) == (2, 12.0, {0: 2, 1: 2, 2: 1})


def test_the_finals_keep_their_part():
    game = replace(WHOLE, finals=2, workers=1)
    assert told(replace(game, limits=Limits(images=900 * 6))).runs == 4
    assert told(replace(game, limits=Limits(images=900 * 2))).runs == 1, "half at most"
    found = told(replace(game, limits=Limits(wall_s=56.0)))
    assert found.runs == 4 and found.wall_s == 36 + 20, "20 s are kept of it"


def test_a_search_without_improvement_ends():
    found = told(replace(WHOLE, workers=1, limits=Limits(no_improvement=3)))
    assert 4 < found.runs < 40 and found.ended_by == "no_improvement" and found.runs_low >= 4


def test_a_scheduler_that_can_t_be_asked_is_no_rule():
    assert rule_of(Choice.of("none")) is rule_of(Choice.of("HyperBandScheduler")) is None
    assert rule_of(Choice.of("asha", reduction=4.0)) is not None
