"""What a search begins with: points of the file, other studies of the store, other stores. Nothing is trained."""

from __future__ import annotations

import shutil

import pytest

from diffsearch.errors import StoreError
from diffsearch.store import Store
from diffsearch.study.conductor import Signal, Task
from tests.study.scripted import answer, optunas, run, write

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
LISTED = {"training.loss": "x0-l2", "training.learning_rate": RATES, "search": {"algorithm": "tpe", "runs": 5}}


def rates(tasks):
    return [task.asked.point["training.learning_rate"] for task in tasks]


def recorded(laboratory, reopen, changes, store=None):
    """A study that was run: every run of it in a store, with a score that its learning rate tells. Its tasks."""
    conductor, tasks = reopen(changes), []
    while isinstance(task := conductor.next(), Task):
        fd = 1000 * task.asked.point["training.learning_rate"]
        write(store or laboratory.store, conductor, task, fd)
        answer(conductor, task, fd)
        tasks.append(task)
    return tasks


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid", "gp", {"name": "nsga2", "population_size": 2}])
def test_enqueued_points_come_first_and_are_runs_like_any_other(laboratory, reopen, algorithm):
    enqueue = [{"training.learning_rate": 3e-3}, {}, {"training.learning_rate": 1e-2, "diffusion.steps": 2}]
    changes = {**LISTED, "search": {"algorithm": algorithm, "runs": 4, "enqueue": enqueue}}
    conductor = reopen(changes)
    first = [conductor.next() for _ in range(2)]
    conductor = reopen(changes)  # killed: what was begun is asked for again, and what was not is not forgotten
    tasks = run(conductor)
    assert rates(first) == [3e-3, 1e-4] and rates(tasks)[:3] == [3e-3, 1e-4, 1e-2] and len(set(rates(tasks))) == 4


def test_a_point_whose_every_repeat_is_there_is_known(laboratory, reopen):
    """Of a study of one seed nothing is whole where two are asked for; of two seeds their mean is told."""
    twice = {**LISTED, "repeats": 2, "name": "twice", "training.learning_rate": [1e-4, 1e-3]}
    recorded(laboratory, reopen, twice)
    recorded(laboratory, reopen, {**LISTED, "name": "once", "training.learning_rate": [3e-3]})
    both = {**LISTED, "repeats": 2, "search": {"algorithm": "random", "runs": 3, "warm_start": ["twice", "once"]}}
    conductor = reopen(both)
    tasks = run(conductor)
    assert len(tasks) == 2 * 3 - 1 and set(rates(tasks)) == {3e-4, 3e-3, 1e-2}, "of one point a seed was there"
    known = [trial for trial in conductor.proposals.journal.trials() if trial.warm and not trial.elsewhere]
    assert sorted(trial.proposal.point["training.learning_rate"] for trial in known) == [1e-4, 1e-3]


def test_points_that_are_enqueued_later_come_next(reopen):
    conductor = reopen(LISTED)
    answer(conductor, begun := conductor.next(), 50.0)
    wanted = next(rate for rate in RATES if rate != begun.asked.point["training.learning_rate"])
    added = {**LISTED["search"], "enqueue": [{"training.learning_rate": wanted}]}
    assert rates([reopen({**LISTED, "search": added}).next()]) == [wanted]


def test_runs_of_another_study_that_fit_are_known_and_cost_none(laboratory, reopen):
    """Two of its five lie in this space. They stand in the table, and the three runs go elsewhere."""
    other = {**LISTED, "name": "other", "training.learning_rate": [1e-4, 1e-3, 2e-2, 5e-2, 9e-2]}
    recorded(laboratory, reopen, other)
    warm = {**LISTED, "search": {"algorithm": "tpe", "runs": 3, "warm_start": "other"}}
    conductor = reopen(warm)
    assert sorted(rates(run(conductor))) == [3e-4, 3e-3, 1e-2]
    points = [asked.point["training.learning_rate"] for asked in conductor.ledger.of(conductor.requests.asks)]
    assert sorted(points) == RATES
    history = [trial for trial in optunas(laboratory).trials if trial.user_attrs.get("warm")]
    assert sorted(trial.value for trial in history) == pytest.approx([0.1, 1.0])
    assert reopen(warm).next() is Signal.DONE


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("fewer samples", {"evaluation.samples": 69}),
        ("a milestone that it hasn't", {"training.epochs": [1, 2, 3]}),
        ("another sampler", {"sampling.sampler": "ddim"}),
        ("another value of a fixed setting", {"training.batch_size": 50}),
        ("another metric", {"evaluation.objective": "kd-digits", "evaluation.metrics": ["kd-digits"]}),
    ],
)
def test_what_was_not_scored_alike_is_no_history(laboratory, reopen, what, changes):
    recorded(laboratory, reopen, {**LISTED, "name": "other"})
    reopen({**LISTED, **changes, "search": {**LISTED["search"], "warm_start": "other"}})
    assert optunas(laboratory).trials == [], what


def test_fewer_milestones_than_the_other_study_had_are_scored_alike(laboratory, reopen):
    recorded(laboratory, reopen, {**LISTED, "name": "other"})
    reopen({**LISTED, "training.epochs": [2], "search": {**LISTED["search"], "warm_start": "other"}})
    assert len(optunas(laboratory).trials) == 5


@pytest.mark.parametrize("seed", [0, 7])
def test_another_store_is_history_for_the_sampler_alone(laboratory, reopen, tmp_path, seed):
    """Nothing of it is copied or stands in a table, and its points may be asked for."""
    store = Store.open(tmp_path / "elsewhere")
    tasks = recorded(laboratory, reopen, {**LISTED, "name": "other", "seed": seed}, store)
    warm = {**LISTED, "search": {"algorithm": "tpe", "runs": 5, "warm_start": [str(store.root)]}}
    conductor = reopen(warm)
    history = optunas(laboratory).trials
    assert {trial.user_attrs["elsewhere"] for trial in history} == {task.asked.run_key for task in tasks}
    assert [trial.value for trial in history] == pytest.approx(
        [1000 * float(trial.params["training.learning_rate"]) for trial in history]
    )
    assert conductor.ledger.count(conductor.requests.asks) == 0 and laboratory.store.keys() == []
    assert sorted(rates(run(conductor))) == RATES
    assert len(optunas(laboratory).trials) >= 10 and reopen(warm).next() is Signal.DONE


@pytest.mark.parametrize(("seed", "known"), [(1000, False), (1001, False), (1002, True)])
def test_runs_of_the_seeds_that_judge_finalists_choose_none(laboratory, reopen, tmp_path, seed, known):
    """Two repeats are over the seeds 1000 and 1001: their scores would be those that the finals are to be fresh of."""
    elsewhere = Store.open(tmp_path / "elsewhere")
    recorded(laboratory, reopen, {**LISTED, "name": "other", "seed": seed}, elsewhere)
    finals = {"top": 1, "repeats": 2}
    search = {"algorithm": "tpe", "runs": 1, "finalists": finals, "warm_start": str(elsewhere.root)}
    reopen({**LISTED, "search": search})
    assert bool([trial for trial in optunas(laboratory).trials if trial.user_attrs.get("warm")]) is known


def test_a_store_that_grows_and_a_kill_in_between_change_nothing(laboratory, reopen, tmp_path):
    store = Store.open(tmp_path / "elsewhere")
    recorded(laboratory, reopen, {**LISTED, "name": "other", "training.learning_rate": RATES[:2]}, store)
    warm = {**LISTED, "search": {"algorithm": "tpe", "runs": 5, "warm_start": [str(store.root)]}}
    reopen(warm)
    journal = laboratory.store.study("tiny") / "journal.log"
    whole = journal.read_text().splitlines(keepends=True)
    for cut in range(len(whole)):
        journal.write_text("".join(whole[:cut]))
        reopen(warm)
        assert len(optunas(laboratory).trials) == 2, cut
    recorded(laboratory, reopen, {**LISTED, "name": "other"}, store)
    reopen(warm)
    assert len(optunas(laboratory).trials) == 2
    copy = shutil.copytree(store.root, tmp_path / "copy")
    reopen({**warm, "search": {**warm["search"], "warm_start": [str(store.root), str(copy)]}})
    assert len(optunas(laboratory).trials) == 5  # each run once


def test_a_warm_start_fills_the_first_generation(laboratory, reopen):
    """NSGA-II would pass over trials that belong to none of its generations."""
    recorded(laboratory, reopen, {**LISTED, "name": "other", "seed": 3})
    nsga2 = {"name": "nsga2", "population_size": 4}
    ranged = {**LISTED, "training.learning_rate": {"log": [1e-4, 1e-2]}}
    conductor = reopen({**ranged, "search": {"algorithm": nsga2, "runs": 5, "warm_start": "other"}})
    conductor.next()
    assert optunas(laboratory).trials[-1].system_attrs["NSGAIISampler:generation"] == 1


def test_with_several_objectives_history_has_several_too(laboratory, reopen):
    recorded(laboratory, reopen, {**LISTED, "name": "other"})
    objectives = {"evaluation.objective": None, "evaluation.objectives": ["fd-digits", "training_images"]}
    warm = {**LISTED, **objectives, "search": {"algorithm": "tpe", "runs": 1, "warm_start": "other"}}
    reopen({**warm, "evaluation.metrics": ["fd-digits"]})
    assert {tuple(trial.values)[1] for trial in optunas(laboratory).trials} <= {200.0, 400.0}
    assert len(optunas(laboratory).trials) == 5


def test_a_study_that_is_not_there_is_named(reopen):
    with pytest.raises(StoreError, match=r"no study 'othr' in .+"):
        reopen({**LISTED, "search": {**LISTED["search"], "warm_start": "othr"}})
