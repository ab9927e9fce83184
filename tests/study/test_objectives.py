"""Several objectives and constraints: what a search is told, what it stops and whom it repeats. Nothing is trained."""

from __future__ import annotations

import pytest

from diffsearch.records import EpochRecord, Outcome, Score, State
from diffsearch.search import pareto
from diffsearch.space.axes import sampling_points, settings_at
from diffsearch.study.conductor import Signal, Task
from diffsearch.study.identity import asks_hash
from diffsearch.training.network import calls_of
from diffsearch.trial import Scored
from tests.study.scripted import answer, optunas, run, sheets

TRADE_OFF = {
    "diffusion.steps": 8,
    "training.loss": "x0-l2",
    "training.learning_rate": {"log": [1e-5, 1e-1]},
    "sampling.steps": [2, 8],
    "evaluation.objective": None,
    "evaluation.objectives": ["fd-digits", "network_calls"],
    "search": {"algorithm": "random", "runs": 6},
}


@pytest.mark.parametrize(
    "algorithm", ["random", {"name": "tpe", "startup_trials": 2}, {"name": "nsga2", "population_size": 2}, "grid", "gp"]
)
def test_a_sampler_is_told_a_vector_that_one_of_the_runs_evaluations_earned(laboratory, reopen, algorithm):
    changes = {**TRADE_OFF, "search": {"algorithm": algorithm, "runs": 6}}
    if algorithm == "grid":
        changes["training.learning_rate"] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    tasks = run(reopen(changes))
    study = optunas(laboratory)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"] and len(tasks) == 6
    for number, trial in enumerate(study.trials):
        fd = 100.0 - number
        assert trial.state.name == "COMPLETE" and trial.values in ([fd, 2.0], [fd / 4, 8.0])
        assert len(trial.user_attrs["evaluations"]) == 4  # the curve of both objectives is kept


def test_what_is_told_adds_most_to_the_volume_of_what_is_known(laboratory, reopen):
    run(reopen(TRADE_OFF))
    known = []
    for trial in optunas(laboratory).trials:
        own = [each["values"] for each in trial.user_attrs["evaluations"]]
        chosen = pareto.telling(pareto.array(own), pareto.array(known, columns=2))
        assert trial.values == own[chosen]
        known += own


@pytest.mark.parametrize("rule", ["asha", {"name": "median", "minimum": 1}])
def test_a_rule_stops_what_is_dominated_and_nothing_else(laboratory, reopen, rule):
    """Each run is worse than the one before at every call count: a rung's front is the first run's."""
    changes = {**TRADE_OFF, "search": {"algorithm": "random", "runs": 5, "stopping": rule}}
    conductor = reopen(changes)
    went_on, number = [], 0
    while isinstance(task := conductor.next(), Task):
        went_on.append(answer(conductor, task, 100.0 + 10 * number))
        number += 1
    assert went_on == [True, False, False, False, False]
    assert [t.state.name for t in optunas(laboratory).trials] == ["COMPLETE"] * 5  # stopped, with what it earned
    again = reopen(changes)
    assert again.next() is Signal.DONE
    better = reopen({**changes, "search": {**changes["search"], "runs": 6}})
    assert answer(better, better.next(), 50.0)


def test_a_killed_search_goes_on_as_if_it_had_not_been(laboratory, reopen):
    changes = {**TRADE_OFF, "search": {"algorithm": {"name": "nsga2", "population_size": 2}, "runs": 8}}
    conductor = reopen(changes)
    for number in range(4):
        answer(conductor, conductor.next(), 100.0 - number)
    kept = (laboratory.store.study("tiny") / "journal.log").read_bytes()
    first = [conductor.next().asked.run_key for _ in range(2)]
    conductor = reopen(changes)
    assert {conductor.next().asked.run_key for _ in range(2)} == set(first)  # what was open comes first
    (laboratory.store.study("tiny") / "journal.log").write_bytes(kept)
    conductor = reopen(changes)
    assert [conductor.next().asked.run_key for _ in range(2)] == first


def test_finalists_are_those_that_the_front_would_miss_most(laboratory, reopen):
    """Repeated with fresh seeds, where each is on the front: its epochs and its sampling points alone."""
    changes = {**TRADE_OFF, "search": {"algorithm": "random", "runs": 4, "finalists": {"top": 2, "repeats": 2}}}
    conductor = reopen(changes)
    scores = {0: 100.0, 1: 60.0, 2: 90.0, 3: 80.0}
    tasks = run(conductor, lambda number: scores.get(number, 50.0))
    finals = tasks[4:]
    assert [task.asked.stage for task in finals] == ["finalist"] * 2  # one point has the whole front
    assert {task.asked.point["training.learning_rate"] for task in finals} == {
        tasks[1].asked.point["training.learning_rate"]
    }
    assert all(task.asked.milestones == (2,) and len(task.asked.points) == 2 for task in finals)


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "nsga2", "random"])
def test_a_point_that_breaks_a_constraint_beforehand_is_never_trained_and_costs_no_run(laboratory, reopen, algorithm):
    options = {"tpe": {"startup_trials": 2}, "nsga2": {"population_size": 2}}.get(algorithm, {})
    changes = {
        "training.loss": "x0-l2",
        "training.learning_rate": {"log": [1e-5, 1e-1]},
        "model.channels": [[4], [8], [16], [32]],
        "search": {"algorithm": {"name": algorithm, **options}, "runs": 4, "constraints": ["parameters < 10k"]},
    }
    conductor = reopen(changes)
    tasks = run(conductor)
    ended = [(asked, conductor.ledger.end_of(asked)) for asked in conductor.ledger.of(conductor.requests.asks)]
    refused = [asked for asked, outcome in ended if outcome.state is State.INFEASIBLE]
    assert len(tasks) == 4 and refused
    assert all(asked.parameters >= 10_000 for asked in refused) and all(t.asked.parameters < 10_000 for t in tasks)
    assert laboratory.store.keys() == []
    reasons = {outcome.reason for _, outcome in ended if outcome.state is State.INFEASIBLE}
    assert all("breaks parameters < 10000" in reason for reason in reasons)
    trials = [trial for trial in optunas(laboratory).trials if trial.user_attrs.get("refused")]
    assert len(trials) >= len(refused) and all(trial.values is None for trial in trials)  # a failure is never a score
    assert all(trial.constraints["parameters < 10000"] > 0 for trial in trials)
    assert reopen(changes).next() is Signal.DONE  # and a later session counts as this one did


def test_a_space_of_which_nothing_is_feasible_ends_without_a_run(reopen):
    constrained = {"algorithm": "tpe", "runs": 4, "constraints": ["parameters < 10"]}
    ranged = {"training.learning_rate": {"log": [1e-5, 1e-1]}, "search": constrained}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffsearch.study.proposals.MOST_DRAWS", 20)
        assert run(reopen(ranged)) == []
    assert run(reopen({"diffusion.steps": [2, 3], "search": {**constrained, "algorithm": "grid"}})) == []


def test_sampling_points_that_are_too_dear_are_not_sampled(reopen):
    changes = {**TRADE_OFF, "search": {"algorithm": "random", "runs": 2, "constraints": ["network_calls <= 4"]}}
    tasks = run(reopen(changes))
    assert all([point.steps for point in task.asked.points] == [2] for task in tasks) and len(tasks) == 2


@pytest.mark.parametrize("at", ["milestones", "last", "finalists"])
def test_the_first_sampling_point_that_is_cheap_enough_is_the_base(reopen, at):
    """8 calls are too dear, wherever the sweep is scored; so are those of the finals, which take the search's."""
    changes = {
        **TRADE_OFF,
        "evaluation.objectives": None,
        "evaluation.objective": "fd-digits",
        "sampling.steps": [8, 4, 2],
        "sampling.at": at,
        "search": {
            "algorithm": "random",
            "runs": 2,
            "constraints": ["network_calls <= 4"],
            "finalists": {"top": 1, "repeats": 1, "sampling": {"steps": 8} if at == "milestones" else {}},
        },
    }
    search, finals = [], []
    for task in run(reopen(changes)):
        (search if task.asked.stage == "search" else finals).append([point.steps for point in task.asked.points])
    assert search == [[4] if at == "finalists" else [4, 2]] * 2 and finals == [[4, 2]]


def record(epoch, peak_mb):
    return EpochRecord(epoch, 1.0, 200 * epoch, 1.0, 1.0, peak_mb)


def write_epochs(laboratory, task, peak_mb):
    folder = laboratory.store.run(task.asked.run_key)
    with folder.lease("test") as lease:
        for epoch in task.asked.milestones:
            folder.add_epoch(lease, record(epoch, peak_mb))


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2", "gp", "random"])
def test_what_breaks_a_constraint_as_it_is_measured_stops_and_never_wins(laboratory, reopen, algorithm):
    """The best score of all took too much memory: it is told with by how much, and a worse one goes to the finals."""
    options = {"tpe": {"startup_trials": 1}, "nsga2": {"population_size": 2}}.get(algorithm, {})
    search = {
        "algorithm": {"name": algorithm, **options},
        "runs": 3,
        "constraints": ["peak_memory_mb < 600"],
        "finalists": {"top": 1, "repeats": 1},
    }
    conductor = reopen({"training.loss": "x0-l2", "training.learning_rate": {"log": [1e-5, 1e-1]}, "search": search})
    tasks = []
    for fd, peak_mb, goes_on in ((50.0, 500.0, True), (1.0, 900.0, False), (70.0, 400.0, True)):
        tasks.append(conductor.next())
        write_epochs(laboratory, tasks[-1], peak_mb)
        assert answer(conductor, tasks[-1], fd) == goes_on
    assert (
        conductor.ledger.end_of(tasks[1].asked).reason == "peak_memory_mb 900 breaks peak_memory_mb < 600 after epoch 1"
    )
    trials = optunas(laboratory).trials
    assert [trial.constraints["peak_memory_mb < 600"] for trial in trials] == pytest.approx([-1 / 6, 0.5, -1 / 3])
    assert optunas(laboratory).best_trial.number == 0  # Optuna's own, which knows constraints too
    final = conductor.next()
    assert final.asked.stage == "finalist" and final.asked.point == tasks[0].asked.point


def test_a_constraint_on_a_metric_may_hold_later(reopen):
    """A run that breaks it is the worst of its rung, and goes on where the rule lets it."""
    search = {"algorithm": "random", "runs": 1, "constraints": ["kd-digits > 3"]}
    changes = {"training.loss": "x0-l2", "search": search, "evaluation.metrics": ["fd-digits", "kd-digits"]}
    conductor = reopen(changes)
    task = conductor.next()
    for epoch, kd in ((1, 1.0), (2, 5.0)):
        [sheet] = sheets(task, epoch, 10.0)
        sheet.scores["kd-digits"] = Score(kd, 70, "hash")
        assert conductor.heard(task, Scored(sheet, True, reused=False))
    conductor.ended(task, Outcome(State.FINISHED))
    [trial] = conductor.proposals.journal.trials()
    assert list(trial.scores) == [2] and [e.feasible for e in trial.evaluations] == [False, True]


def test_constraints_make_another_search_and_none_the_same_as_ever(laboratory):
    plain = laboratory.spec()
    constrained = laboratory.spec({"search.constraints": ["parameters < 1M"]})
    assert asks_hash(plain, "data") != asks_hash(constrained, "data")
    assert asks_hash(plain, "data") == "50f7c9f93ed3"  # of studies from before there were constraints


@pytest.mark.parametrize(
    ("sampler", "steps", "weight", "calls"),
    [("ancestral", 5, 0.0, 5), ("ddim", 3, 0.0, 3), ("heun", 6, 0.0, 6), ("ddim", 4, 1.0, 8), ("ddim", 4, -1.0, 4)],
)
def test_network_calls_are_counted_as_they_will_be_made(laboratory, sampler, steps, weight, calls):
    changes = {"diffusion.steps": 8, "sampling": {"sampler": sampler, "steps": steps, "ema": 0}}
    if weight:
        changes |= {"training.conditioning": "class", "sampling.guidance_weight": weight}
    spec = laboratory.spec(changes)
    settings = settings_at(spec, {"training.loss": "x0-l2"}, 0)
    [point] = sampling_points(spec, settings)
    assert calls_of(settings, point) == calls


def test_what_breaks_a_constraint_is_never_shown_as_the_best_so_far(reopen):
    constrained = {"algorithm": "random", "runs": 1, "constraints": ["fd-digits > 30"]}
    conductor = reopen({"training.loss": "x0-l2", "diffusion.steps": 2, "search": constrained})
    progress = conductor.answered.__self__.progress
    task = conductor.next()
    for epoch, fd in ((1, 50.0), (2, 20.0)):
        [sheet] = sheets(task, epoch, fd)
        progress.scored(task.asked, sheet)
    assert [ranked.score for ranked in progress.top(3)] == [50.0]
