"""The decisions of a study, driven without any executor: tasks are answered with scores that the test makes up."""

from __future__ import annotations

import time

import pytest

from diffsearch.data.datasets import load as load_data
from diffsearch.records import Evaluation, Outcome, Score, State
from diffsearch.space.axes import member_at
from diffsearch.study import proposals
from diffsearch.study.conductor import Signal, Task
from diffsearch.study.driver import claimed
from diffsearch.study.observer import Nobody
from diffsearch.study.session import Session
from diffsearch.trial import Scored

RATES = {"training.learning_rate": {"log": [1e-5, 1e-1]}, "training.loss": "x0-l2"}


@pytest.fixture
def open_study(laboratory):
    """Opens a session on a study without executing anything."""
    opened = []

    def open_(changes):
        spec = laboratory.spec(changes)
        lease = claimed(laboratory.store, spec.name, print)
        session = Session(
            spec, laboratory.store, lease.__enter__(), load_data(member_at(spec.fixed, "data")), Nobody(), "test"
        )
        opened.append(lease)
        return session.conductor

    yield open_
    for lease in opened:
        lease.__exit__(None, None, None)


def scored(task, epoch, value):
    score = {"fd-digits": Score(value, 70, "hash")}
    evaluation = Evaluation(
        f"{task.id}-{epoch}", task.asked.run_key, epoch, task.asked.points[0], 70, 0, score, 140, 1.0, 1.0
    )
    return Scored(evaluation, completes=True, reused=False)


def finish(conductor, task, value):
    """Score every milestone with a value; False if the rule stopped it."""
    for epoch in task.asked.milestones:
        if not conductor.heard(task, scored(task, epoch, value - epoch / 100)):
            conductor.stop(task, epoch)
            return False
    conductor.ended(task, Outcome(State.FINISHED))
    return True


def answer(conductor, value=lambda number: 100.0 + number):
    number = 0
    while isinstance(task := conductor.next(), Task):
        finish(conductor, task, value(number))
        number += 1
    assert task is Signal.DONE
    return number


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_a_study_asks_for_as_many_runs_as_it_says(open_study, algorithm):
    changes = RATES if algorithm == "random" else {"diffusion.steps": [2, 3, 4, 5, 6]}
    assert answer(open_study({**changes, "search.algorithm": algorithm, "search.runs": 7})) == 7


def test_a_trial_costs_no_more_at_the_end_than_at_the_beginning(open_study):
    """Overhead without execution, in processor time, per trial: below 60 ms, and not growing with their number."""
    conductor = open_study({**RATES, "search.algorithm": "random", "search.runs": 200, "search.stopping": "asha"})
    spent, began = [], time.process_time()
    while isinstance(task := conductor.next(), Task):
        finish(conductor, task, float(hash(task.id) % 1000))
        spent.append(time.process_time() - began)
        began = time.process_time()
    first, last = sum(spent[30:90]) / 60, sum(spent[-60:]) / 60
    assert len(spent) == 200 and last < 0.06 and last < 2.5 * first, (first, last)


def test_a_failed_run_is_no_longer_among_those_that_others_are_compared_with(open_study):
    """It earned a score at the first milestone and diverged after it: a resumed session forgets it too."""
    changes = {**RATES, "search.algorithm": "random", "search.runs": 2, "search.stopping": "asha"}
    conductor = open_study(changes)
    first = conductor.next()
    assert conductor.heard(first, scored(first, 1, 1.0))
    conductor.ended(first, Outcome(State.DIVERGED, "NaN", {"epoch": 2}))
    second = conductor.next()
    assert conductor.heard(second, scored(second, 1, 500.0)), "compared with a run that diverged"


def test_a_run_that_was_stopped_stays_stopped_when_more_is_asked_of_it(laboratory):
    """A new metric scores the epochs that it earned; it is neither trained on nor called finished."""
    changes = {"search.stopping": {"name": "median", "minimum": 1}, "training.loss": ["x0-l2", "v-l2"], "seed": 1}
    laboratory.run(changes)
    before = {run.key: (run.outcome.state, len(run.evaluations)) for run in laboratory.history().runs}
    if State.STOPPED_EARLY not in {state for state, _ in before.values()}:
        pytest.fail("the rule stopped nothing: the test needs other settings")
    laboratory.run({**changes, "evaluation.metrics": ["fd-digits", "kd-digits"]})
    after = {run.key: (run.outcome.state, len(run.evaluations)) for run in laboratory.history().runs}
    assert after == before and laboratory.trained == [] and len(laboratory.scored) == 3


def test_repeats_of_a_point_are_one_trial_told_their_mean(open_study):
    conductor = open_study({"training.loss": "x0-l2", "repeats": 3})
    values = [10.0, 20.0, 60.0]
    assert answer(conductor, values.__getitem__) == 3
    [trial] = conductor.proposals.journal.trials()
    assert trial.scores == {1: pytest.approx(30 - 0.01), 2: pytest.approx(30 - 0.02)}


def test_one_failed_repeat_fails_the_point(open_study):
    conductor = open_study({"training.loss": "x0-l2", "repeats": 2})
    finish(conductor, conductor.next(), 10.0)
    conductor.ended(conductor.next(), Outcome(State.FAILED, "a bug"))
    [trial] = conductor.proposals.journal.trials()
    assert trial.finished and trial.scores is None


def test_a_run_alone_has_no_other_beside_it(open_study):
    conductor = open_study({"diffusion.steps": [2, 3]})
    big, other = conductor.next(), conductor.next()
    conductor.ended(big, Outcome(State.OUT_OF_MEMORY, "too big"))
    assert conductor.next() is Signal.WAIT  # another is still running
    finish(conductor, other, 1.0)
    again = conductor.next()
    assert again.alone and again.asked.run_key == big.asked.run_key and conductor.next() is Signal.WAIT
    finish(conductor, again, 2.0)
    assert isinstance(conductor.next(), Task)


def test_a_sequential_search_that_begins_short_trains_on_for_its_epochs(laboratory):
    """Axes are tuned at epoch 1; the epochs axis then asks the same run for its later milestones."""
    algorithm = {"name": "sequential", "start": {"training.epochs": 1}}
    laboratory.run({"training.epochs": [1, 2, 3], "search.algorithm": algorithm})
    winner, other = sorted((len(run.epochs) for run in laboratory.history().runs), reverse=True)
    assert (winner, other) == (3, 1) and len(laboratory.trained) == 4
    assert sorted(len(run.evaluations) for run in laboratory.history().runs) == [1, 3]
    laboratory.run({"training.epochs": [1, 2, 3], "search.algorithm": algorithm})
    assert laboratory.trained == []


def test_a_person_can_stop_a_run_at_its_next_milestone(open_study):
    conductor = open_study({"training.loss": "x0-l2"})
    task = conductor.next()
    conductor.stop_requests.add(task.asked.run_key[:6])
    assert not conductor.heard(task, scored(task, 1, 5.0))
    outcome = conductor.stop(task, 1)
    assert (outcome.state, outcome.reason) == (State.STOPPED_EARLY, "by hand after epoch 1")
    [trial] = conductor.proposals.journal.trials()
    assert trial.scores == {1: 5.0}  # it keeps what it earned


def test_a_changed_space_is_another_optuna_study_filled_from_the_store(laboratory):
    changes = {"training.loss": ["x0-l2", "v-l2"], "search.algorithm": "tpe", "training.epochs": [1]}
    laboratory.run(changes)
    laboratory.run({**changes, "training.loss": ["x0-l2", "epsilon-l2"]})
    assert len(laboratory.trained) == 1  # x0-l2 is known
    losses = {run.point["training.loss"] for run in laboratory.history().runs}
    assert losses == {"x0-l2", "epsilon-l2"}


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_search_that_only_finds_what_it_knows_is_given_the_points_that_are_left(open_study, monkeypatch, algorithm):
    monkeypatch.setattr(proposals, "IDLE_PROPOSALS", 2)
    changes = {"diffusion.steps": list(range(2, 14)), "search.algorithm": algorithm}
    assert answer(open_study(changes)) == 24


def test_halting_hands_out_nothing_more(open_study):
    conductor = open_study({})
    conductor.next()
    conductor.halted = True
    assert conductor.next() is Signal.WAIT


def test_a_later_session_compares_with_what_each_run_scored(laboratory, open_study):
    """A rule compares runs, and a point's repeats are runs of their own: also to a session that only reads of them."""
    changes = {"training.loss": ["x0-l2", "v-l2"], "repeats": 2}
    laboratory.run(changes)
    curves: dict[str, dict[int, float]] = {}
    for run in laboratory.history().runs:
        for evaluation in run.evaluations:
            curves.setdefault(run.key, {})[evaluation.epoch] = evaluation.scores["fd-digits"].value
    assert open_study(changes)._curves == curves and [len(curve) for curve in curves.values()] == [2] * 4


def test_rungs_are_of_base_points_where_the_last_milestone_alone_has_the_sweep(laboratory, open_study):
    """Also where the store has the sweep of an earlier milestone, and a point there that is better."""
    changes = {"sampling.ema": [0, 100]}
    laboratory.run(changes)
    scores = {(1, 0): {}, (1, 100): {}, (2, 0): {}, (2, 100): {}}
    for run in laboratory.history().runs:
        for evaluation in run.evaluations:
            value = evaluation.scores["fd-digits"].value
            scores[evaluation.epoch, evaluation.sampling.ema][run.key] = value
    laboratory.run({**changes, "sampling.at": "last"})
    assert laboratory.scored == []
    best = {key: min(scores[2, 0][key], scores[2, 100][key]) for key in scores[2, 0]}
    expected = {key: {1: scores[1, 0][key], 2: best[key]} for key in best}
    assert open_study({**changes, "sampling.at": "last"})._curves == expected
    assert any(scores[1, 100][key] < scores[1, 0][key] for key in best), "the test needs other settings"


def test_a_rule_that_reads_the_store_sees_the_curves_of_other_studies(laboratory, open_study):
    """Of runs on the same images, scored alike: another loss counts, another sample count doesn't."""
    laboratory.run({"name": "before", "training.loss": "x0-l2", "training.epochs": 1})
    laboratory.run({"name": "otherwise", "training.loss": "v-l2", "training.epochs": 1, "evaluation.samples": 71})
    rule = {"search.stopping": "curves", "training.batch_size": [20, 50]}
    scored_alike = {run.key for run in laboratory.history("before").runs}
    assert set(open_study({**rule, "name": "reads"})._stored) == scored_alike
    assert open_study({**rule, "name": "reads_none", "search.stopping": "asha"})._stored == {}
