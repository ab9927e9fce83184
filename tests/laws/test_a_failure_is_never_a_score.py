"""Law 3. A failure is never a score: diverged, crashed, out of memory and killed are states with reasons."""

from __future__ import annotations

import json
import os
import resource

import optuna
import pytest
import torch
from optuna.trial import TrialState

from diffsearch.records import Outcome, Score, State
from diffsearch.study.conductor import MAX_KILLS
from diffsearch.study.observer import Nobody
from diffsearch.trial import Scored, run_trial

ABSURD = {"training.learning_rate": [1e-3, 1e30], "training.loss": "x0-l2"}

USERS_FILE = """
import os, torch
from pathlib import Path
from torch import nn
from diffsearch import registry

@registry.loss.register("{name}-buggy", predicts="x0")
def buggy(output, batch):
    return output.no_such_thing

@registry.model.register("{name}-greedy")
class Greedy(nn.Module):
    def __init__(self, image_shape, steps, *, too_often: int = 1):
        super().__init__()
        self.layer = nn.Conv2d(image_shape[0], image_shape[0], 1)
        self.marks, self.too_often = Path({marks!r}), too_often

    def forward(self, x, t):
        if self.training and x.device.type != "meta":
            done = len(list(self.marks.iterdir()))
            if done < self.too_often:
                (self.marks / str(done)).touch()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.layer(x)
"""


@pytest.fixture
def users(tmp_path):
    """A user's file with a loss that has a bug and a model that needs too much memory at first; its prefix."""
    marks = tmp_path / "marks"
    marks.mkdir()
    name = f"u{abs(hash(str(tmp_path))) % 10**8}"
    file = tmp_path / "mine.py"
    file.write_text(USERS_FILE.format(name=name, marks=str(marks)))
    return name, file


def states(laboratory, name="tiny"):
    return {run.settings.training.learning_rate: run.outcome.state for run in laboratory.history(name).runs}


def journal_trials(laboratory):
    path = laboratory.store.study("tiny") / "journal.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    [study] = storage.get_all_studies()
    return storage.get_all_trials(study._study_id)


def test_a_score_is_a_finite_number():
    for value in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(ValueError, match="finite"):
            Score(value, 70, "digits")


def test_a_diverged_run_stops_at_once_and_has_no_score(laboratory):
    laboratory.run(ABSURD)
    assert states(laboratory) == {1e-3: State.FINISHED, 1e30: State.DIVERGED}
    [diverged] = [run for run in laboratory.history().runs if not run.outcome.ok]
    assert diverged.evaluations == () and diverged.epochs == () and "infinite" in diverged.outcome.reason
    assert diverged.outcome.details["epoch"] == 1


def test_a_diverged_run_is_told_to_optuna_as_failed_without_a_number(laboratory):
    laboratory.run(ABSURD)
    [failed] = [trial for trial in journal_trials(laboratory) if trial.state == TrialState.FAIL]
    assert failed.values is None and failed.intermediate_values == {}


def test_a_diverged_run_never_becomes_a_finalist(laboratory):
    laboratory.run({**ABSURD, "search.finalists": {"top": 2, "repeats": 1}})
    finalists = [run for run in laboratory.history().runs if run.stage == "finalist"]
    assert [run.settings.training.learning_rate for run in finalists] == [1e-3]


def test_a_diverged_run_stays_diverged_for_another_study(laboratory):
    laboratory.run(ABSURD)
    laboratory.run({**ABSURD, "name": "other"})
    assert laboratory.trained == [] and states(laboratory, "other")[1e30] == State.DIVERGED


def test_a_run_that_diverges_later_than_asked_for_is_whole(laboratory):
    """To diverge in epoch 9 is nothing to a study that wants epochs 1 and 2."""
    laboratory.run({"training.loss": "x0-l2"})
    [key] = laboratory.store.keys()
    folder = laboratory.store.run(key)
    with folder.lease("test") as lease:
        folder.set_outcome(lease, Outcome(State.DIVERGED, "loss is NaN at epoch 9, step 3", {"epoch": 9}))
    laboratory.run({"name": "short", "training.loss": "x0-l2"})
    laboratory.run({"name": "long", "training.loss": "x0-l2", "training.epochs": [1, 10]})
    assert laboratory.trained == []
    [short], [long] = (laboratory.history(name).runs for name in ("short", "long"))
    assert (short.outcome.state, long.outcome.state) == (State.FINISHED, State.DIVERGED)


def test_a_bug_in_a_users_loss_fails_that_run_alone_with_its_traceback(laboratory, users):
    name, file = users
    laboratory.run({"use": [str(file)], "training.loss": [f"{name}-buggy", "x0-l2"]})
    by_loss = {run.settings.training.loss: run for run in laboratory.history().runs}
    failed = by_loss[f"{name}-buggy"]
    assert failed.outcome.state == State.FAILED and "no_such_thing" in failed.outcome.reason
    assert "mine.py" in failed.outcome.details["traceback"] and failed.attempts == ()
    assert by_loss["x0-l2"].outcome.state == State.FINISHED


def test_a_failure_is_not_tried_again_also_not_in_finals(laboratory):
    """A second `run` computes nothing, a run that failed among the finalists included."""
    changes = {"training.loss": "x0-l2", "search.finalists": {"top": 1, "repeats": 1}}

    class FullDisk(Nobody):
        def heard(self, task, said):
            if task.asked.stage == "finalist" and said is None:
                path = laboratory.store.run(task.asked.run_key).path
                path.mkdir(parents=True)
                (path / "samples").touch()  # a file where its pictures should go

    laboratory.run(changes, observer=FullDisk())
    before = [(run.stage, run.outcome.state) for run in laboratory.history().runs]
    assert before == [("search", State.FINISHED), ("finalist", State.FAILED)]
    sessions = laboratory.history().sessions
    laboratory.run(changes)
    assert laboratory.trained == [] and laboratory.history().sessions == sessions


@pytest.mark.parametrize(("too_often", "state"), [(1, State.FINISHED), (9, State.OUT_OF_MEMORY)])
def test_out_of_memory_is_tried_again_once_and_alone(laboratory, users, too_often, state):
    name, file = users
    changes = {"use": [str(file)], "model": {"kind": f"{name}-greedy", "too_often": too_often}}
    alone = []

    class Watch(Nobody):
        def heard(self, task, said):
            if said is None:
                alone.append(task.alone)

    laboratory.run({**changes, "training.loss": "x0-l2"}, observer=Watch())
    [run] = laboratory.history().runs
    assert run.outcome.state == state and alone == [False, True]
    assert [attempt.state for attempt in run.attempts] == [State.OUT_OF_MEMORY] * (1 if too_often == 1 else 2)
    assert "out of memory" in run.attempts[0].reason


def test_a_killed_run_is_tried_again_from_its_checkpoint(laboratory, tmp_path, new_laboratory):
    """Another process takes the lease in the middle: this one's next write is refused, which ends it as killed."""
    changes = {"training.loss": "x0-l2"}
    whole = new_laboratory(tmp_path / "whole")
    whole.run(changes)
    trained = []

    class Thief(Nobody):
        def heard(self, task, said):
            if isinstance(said, Scored) and not said.reused and len(trained) == 1:
                steal(laboratory.store.run(task.asked.run_key).path / "lease")
            if type(said).__name__ == "Trained":
                trained.append(said.record.epoch)

    laboratory.run(changes, observer=Thief())
    [run] = laboratory.history().runs
    assert run.outcome.state == State.FINISHED and [attempt.state for attempt in run.attempts] == [State.KILLED]
    assert trained == [1, 2] and laboratory.checkpoints() == whole.checkpoints()


def test_a_run_that_is_killed_again_and_again_is_given_up(laboratory):
    class Thief(Nobody):
        def heard(self, task, said):
            if type(said).__name__ == "Sampled":
                steal(laboratory.store.run(task.asked.run_key).path / "lease")

    laboratory.run({"training.loss": "x0-l2"}, observer=Thief())
    [run] = laboratory.history().runs
    assert run.outcome.state == State.KILLED and len(run.attempts) == MAX_KILLS
    assert "taken over" in run.outcome.reason and run.evaluations == ()


def test_a_trial_never_raises_for_a_fault_of_the_run(laboratory, users):
    """Only the death of a process may reach Ray's retry."""
    name, file = users
    tasks = []

    class Keep(Nobody):
        def heard(self, task, said):
            tasks.append(task)

    laboratory.run({"use": [str(file)], "training.loss": f"{name}-buggy"}, observer=Keep())
    items = run_trial(tasks[0].request, torch.device("cpu"))
    with pytest.raises(StopIteration) as end:
        while True:
            next(items)
    assert end.value.value.state == State.FAILED


def steal(path):
    """Take a lease over, as a driver does that thinks its holder dead."""
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "attempt": held["attempt"] + 1, "pid_started": -1.0}))


def test_what_a_full_disk_took_is_tried_again_by_the_next_run(laboratory):
    """A real refusal of the system: a child may write no file as large as a checkpoint."""
    changes = {"training.loss": ["x0-l2", "v-l2"], "training.epochs": [1]}
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            laboratory.run(changes)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    failed = [run.outcome for run in laboratory.history().runs]
    assert [outcome.state for outcome in failed] == [State.FAILED] * 2
    assert all("File too large" in outcome.reason for outcome in failed)
    laboratory.run(changes)
    assert [str(run.outcome.state) for run in laboratory.history().runs] == ["finished"] * 2
    laboratory.run(changes)
    assert laboratory.trained == laboratory.scored == []
