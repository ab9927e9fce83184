"""Runs whose scores a test makes up: a study's decisions without any training."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from diffsearch.records import EpochRecord, Evaluation, Outcome, Score, State
from diffsearch.store import Store
from diffsearch.study.conductor import Conductor, Signal, Task
from diffsearch.training.network import calls_of
from diffsearch.trial import Scored
from tests.laboratory import Laboratory


def sheets(task: Task, epoch: int, fd: float) -> list[Evaluation]:
    """One evaluation a sampling point: more calls are better, by a half for each doubling."""
    found = []
    for point in task.asked.points:
        calls = calls_of(task.asked.settings, point)
        key = task.request.evaluation_key(epoch, point)
        score = {"fd-digits": Score(fd * 2 / calls, 70, task.request.measures["fd-digits"])}
        found.append(Evaluation(key, task.asked.run_key, epoch, point, 70, 0, score, 70 * calls, 1.0, 1.0))
    return found


def answer(conductor: Conductor, task: Task, fd: float) -> bool:
    """Score every milestone, the last one with `fd` at two calls; False if the rule stopped the run."""
    for epoch in task.asked.milestones:
        found = sheets(task, epoch, fd * (2 if epoch < task.asked.milestones[-1] else 1))
        for number, sheet in enumerate(found, start=1):
            if not conductor.heard(task, Scored(sheet, number == len(found), reused=False)):
                conductor.stop(task, epoch)
                return False
    conductor.ended(task, Outcome(State.FINISHED))
    return True


def run(conductor: Conductor, fd: Callable[[int], float] = lambda number: 100.0 - number) -> list[Task]:
    """Answer a study to its end; `fd` of the how-manieth task, from 0."""
    tasks: list[Task] = []
    while isinstance(task := conductor.next(), Task):
        answer(conductor, task, fd(len(tasks)))
        tasks.append(task)
    assert task is Signal.DONE
    return tasks


def write(store: Store, conductor: Conductor, task: Task, fd: float) -> None:
    """Put a whole run into a store, as a worker would have."""
    folder = store.run(task.asked.run_key)
    with folder.lease("test") as lease:
        folder.begin(lease, task.asked.settings, conductor.requests.content, {})
        for epoch in task.asked.milestones:
            folder.add_epoch(lease, EpochRecord(epoch, 1.0, 200 * epoch, 1.0, 1.0, 500.0))
            for sheet in sheets(task, epoch, fd):
                folder.add_evaluation(lease, sheet)


def optunas(laboratory: Laboratory, name: str = "tiny") -> optuna.Study:
    """The journal of a study, as Optuna opens it."""
    backend = optuna.storages.journal.JournalFileBackend(str(laboratory.store.study(name) / "journal.log"))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
