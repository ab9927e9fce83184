"""The coordinate search on a table whose every score is known."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from diffsearch.errors import DiffsearchError
from diffsearch.search.sequential import EPOCHS, sequential
from diffsearch.space.settings import Axis, Choices

AXES = (Axis("a", Choices((1, 2, 3))), Axis("b", Choices(("x", "y"))), Axis("c", Choices((10, 20))))
MILESTONES = (1, 2, 4)


def cost(point):
    return point["a"] + (100 if point.get("b") == "y" else 0)


def walk(search, score, ask_again=True):
    """Answer a search from `score(point, epoch)` until it wants nothing; the rounds of proposals it made."""
    known, rounds = {}, []
    while wanted := search.wanted(known):
        rounds.append([(dict(p.point), p.epochs) for p in wanted])
        for proposal in wanted:
            assert proposal.identity not in known, "asked twice"
            last = proposal.epochs or MILESTONES[-1]
            curve = {epoch: score(proposal.point, epoch) for epoch in MILESTONES if epoch <= last}
            known[proposal.identity] = None if any(map(math.isnan, curve.values())) else curve
    return rounds, known


def build(**options):
    return sequential(AXES, MILESTONES, {}, cost, **options)


def test_one_axis_after_the_other_keeping_each_winner():
    table = {1: 5.0, 2: 3.0, 3: 4.0}
    rounds, _ = walk(build(), lambda p, e: table[p["a"]] + (p["b"] == "x") + p["c"] / 100 - e / 1000)
    assert rounds == [
        [({"a": a, "b": "x", "c": 10}, 4) for a in (1, 2, 3)],
        [({"a": 2, "b": "y", "c": 10}, 4)],  # x is known from the round before
        [({"a": 2, "b": "y", "c": 20}, 4)],
    ]


def test_ties_go_to_the_cheaper():
    rounds, _ = walk(build(), lambda p, e: 1.0)
    assert rounds[-1] == [({"a": 1, "b": "x", "c": 20}, 4)]
    dear_first = sequential((Axis("a", Choices((3, 2, 1))), *AXES[1:]), MILESTONES, {}, cost)
    rounds, _ = walk(dear_first, lambda p, e: 1.0)
    assert rounds[-1][0][0]["a"] == 1


def test_a_failure_never_wins():
    def score(point, epoch):
        return math.nan if point["a"] == 2 else float(point["a"])

    rounds, _ = walk(build(), score)
    assert all(point["a"] == 1 for points in rounds[1:] for point, _ in points)


def test_where_all_fail_the_start_is_kept():
    rounds, _ = walk(build(start={"a": 3}), lambda p, e: math.nan)
    assert all(point["a"] == 3 for points in rounds[1:] for point, _ in points)


def test_epochs_are_read_off_one_run():
    """The run of the last milestone has the earlier ones on its way; later axes are tuned at the best of them."""
    rounds, _ = walk(build(order=("a", EPOCHS, "b", "c"), start={EPOCHS: 1}), lambda p, e: abs(e - 2) + p["a"])
    assert rounds[0] == [({"a": a, "b": "x", "c": 10}, 1) for a in (1, 2, 3)]
    assert rounds[1] == [({"a": 1, "b": "x", "c": 10}, 4)]
    assert all(epochs == 2 for points in rounds[2:] for _, epochs in points)


def test_the_epochs_of_the_later_axes_can_be_given():
    """The epochs are still read off one run to the last milestone; later axes train for those that were given."""
    options = {"order": ("a", EPOCHS, "b", "c"), "start": {EPOCHS: 1}, "later_epochs": 1}
    rounds, _ = walk(build(**options), lambda p, e: abs(e - 2) + p["a"])
    assert rounds[1] == [({"a": 1, "b": "x", "c": 10}, 4)]
    assert len(rounds) == 4 and all(epochs == 1 for points in rounds[2:] for _, epochs in points)


def test_of_equal_epochs_the_fewer_are_taken():
    rounds, _ = walk(build(order=(EPOCHS, "a", "b", "c")), lambda p, e: 1.0)
    assert {epochs for points in rounds[1:] for _, epochs in points} == {1}


@pytest.mark.parametrize("seed", range(30))
def test_it_finds_what_a_plain_loop_finds(seed):
    rng = random.Random(seed)
    domains = {axis.path: axis.domain.values for axis in AXES}
    table = {
        (tuple(sorted(zip(domains, values, strict=True))), epoch): rng.choice([rng.random(), 0.5, math.nan])
        for values in itertools.product(*domains.values())
        for epoch in MILESTONES
    }

    def score(point, epoch):
        return table[tuple(sorted(point.items())), epoch]

    def of(point):
        curve = [score(point, epoch) for epoch in MILESTONES]
        return math.inf if any(map(math.isnan, curve)) else curve[-1]

    best = {path: values[0] for path, values in domains.items()}
    for path, values in domains.items():
        candidates = [{**best, path: value} for value in values]
        won = min(candidates, key=lambda point: (of(point), cost(point)))
        best = won if of(won) < math.inf else best
    search = build(order=("a", "b", "c"))
    _, known = walk(search, score)
    # asked for one axis more, it begins from the winner
    extended = sequential((*AXES, Axis("d", Choices((0, 1)))), MILESTONES, {}, cost, order=("a", "b", "c", "d"))
    rounds, _ = walk(extended, lambda p, e: score({k: v for k, v in p.items() if k != "d"}, e) + p["d"])
    assert {k: v for k, v in rounds[-1][-1][0].items() if k != "d"} == best and known


def test_a_conditional_axis_is_tuned_only_where_it_exists():
    axes = (Axis("a", Choices((1, 2))), Axis("b", Choices(("x", "y")), when=(("a", (2,)),)))
    rounds, _ = walk(sequential(axes, (1,), {}, lambda p: 0.0), lambda p, e: float(p["a"]))
    assert rounds == [[({"a": 1}, 1), ({"a": 2, "b": "x"}, 1)]]
    rounds, _ = walk(sequential(axes, (1,), {}, lambda p: 0.0), lambda p, e: -float(p["a"]))
    assert rounds[-1] == [({"a": 2, "b": "y"}, 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": ("a", "b")}, "leaves out c"),
        ({"order": ("a", "b", "c", "d")}, "no axis 'd'"),
        ({"start": {"a": 7}}, "start of a is 7"),
        ({"start": {EPOCHS: 3}}, "start of training.epochs is 3"),
        ({"later_epochs": 3}, "later_epochs is 3, which is no milestone"),
    ],
)
def test_what_the_space_does_not_have_is_refused(options, message):
    with pytest.raises(DiffsearchError, match=message):
        build(**options)
