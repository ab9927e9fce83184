"""MLflow is a view of the store: it says the same, can be rebuilt, and its faults don't end a study."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest

from diffsearch.study import tracking
from diffsearch.study.history import StudyFolder

ONE = {"training.loss": "x0-l2", "training.epochs": [1]}
SEVERAL = {
    "training.learning_rate": [1e-3, 1e30],  # one that diverges
    "training.loss": "x0-l2",
    "sampling.ema": [0, 100],
    "model.channels": [[4], [4, 8]],
    "search.finalists": {"top": 1, "repeats": 1, "samples": 80},
}


@pytest.fixture
def uri(tmp_path, mlflow_database):
    """An MLflow database of the test's own."""
    return f"sqlite:///{mlflow_database(tmp_path)}"


def same(folder, uri):
    """Whether MLflow and the store tell one history, but for where it was read."""
    view, truth = tracking.read(folder.name, uri), StudyFolder.open(folder.store, folder.name).history()
    assert view.read_from == f"MLflow ({uri})" and truth.read_from.startswith("the store")
    return replace(view, read_from="") == replace(truth, read_from="")


def test_mlflow_says_what_the_store_says(laboratory, uri):
    folder = laboratory.run(SEVERAL, tracking_uri=uri).folder
    assert laboratory.notes == [] and same(folder, uri)
    states = [str(run.outcome.state) for run in tracking.read("tiny", uri).runs]
    assert sorted(states) == ["diverged", "diverged", "finished", "finished", "finished"]
    laboratory.run(SEVERAL, tracking_uri=uri)  # computes nothing
    assert same(folder, uri) and laboratory.history().workers == 1
    laboratory.run({**SEVERAL, "evaluation.metrics": ["fd-digits", "kd-digits"]}, tracking_uri=uri)
    assert same(folder, uri)


def test_a_child_run_holds_parameters_metrics_pictures_and_tags(laboratory, uri):
    from mlflow.tracking import MlflowClient

    laboratory.run({"training.loss": "x0-l2", "sampling.ema": [0, 100]}, tracking_uri=uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if run.data.tags["diffsearch.kind"] == "study"]
    [child] = [run for run in runs if run.data.tags["diffsearch.kind"] == "run"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["diffsearch.state"] == "finished" and child.info.status == parent.info.status == "FINISHED"
    assert child.data.params["loss"] == "x0-l2" and child.data.params["model.channels"] == "[4]"
    history = {
        (m.key, m.step): m.value
        for key in child.data.metrics
        for m in client.get_metric_history(child.info.run_id, key)
    }
    [run] = laboratory.history().runs
    for record in run.epochs:
        assert history["loss", record.epoch] == record.loss
    for evaluation in run.evaluations:
        names = tracking.evaluation_metrics(evaluation, several=True)
        [(name, value)] = names.items()
        assert name.startswith("fd-digits/ancestral") and history[name, evaluation.epoch] == value
    files = {item.path for item in client.list_artifacts(child.info.run_id)}
    assert files == {"run.json", "settings.yaml", "samples"}
    assert len(client.list_artifacts(child.info.run_id, "samples")) == len(run.evaluations) == 4


def test_a_run_that_a_killed_session_left_half_told_is_completed(laboratory, uri):
    """MLflow is written by a thread; what a kill took from it the next session gives it."""
    laboratory.run({}, tracking_uri="http://127.0.0.1:1")  # nothing told at all
    folder = laboratory.run({}, tracking_uri=uri).folder
    assert laboratory.trained == [] and same(folder, uri)


def test_what_comes_in_between_is_told_too(laboratory, uri):
    """A run that MLflow was told of gets an earlier milestone and another metric while it is under way once more."""
    from mlflow.tracking import MlflowClient

    one = {"training.loss": "x0-l2", "training.epochs": [2]}
    view = tracking.View(laboratory.run(one).folder, uri)
    view.update(view._folder.asked()[0], ended=True)
    more = {**one, "training.epochs": [1, 2], "evaluation.metrics": ["fd-digits", "kd-digits"]}
    view._folder = laboratory.run(more).folder
    [asked] = view._folder.asked()
    client = MlflowClient(uri)
    for ended, status in ((False, "RUNNING"), (True, "FINISHED")):
        view.update(asked, ended)
        info = view._children["search", asked.run_key]
        assert client.get_run(info.run_id).info.status == status
    for name in ("fd-digits", "kd-digits"):
        assert sorted(metric.step for metric in client.get_metric_history(info.run_id, name)) == [1, 2]


def test_sync_rebuilds_everything_from_the_store(laboratory, uri, tmp_path, mlflow_database):
    folder = laboratory.run(SEVERAL, tracking_uri=uri).folder
    other = f"sqlite:///{mlflow_database(tmp_path / 'other')}"
    assert tracking.sync(StudyFolder.open(laboratory.store, "tiny"), other) == 5
    assert same(folder, other)
    tracking.sync(StudyFolder.open(laboratory.store, "tiny"), other)  # again: nothing doubled
    assert same(folder, other) and len(tracking.read("tiny", other).runs) == 5


def test_an_unfinished_study_can_be_synced(laboratory, uri):
    assert laboratory.run_and_die({}, 3)
    folder = StudyFolder.open(laboratory.store, "tiny")
    tracking.sync(folder, uri)
    assert same(folder, uri)
    assert [str(run.outcome.state) for run in tracking.read("tiny", uri).runs] == ["running"]


@pytest.mark.parametrize("fault", ["closed port", "not a database", "read-only"])
def test_a_study_goes_on_without_mlflow_and_says_so_once(laboratory, uri, tmp_path, fault):
    if fault == "closed port":
        uri = "http://127.0.0.1:1"
    elif fault == "not a database":
        (tmp_path / "broken.db").write_bytes(b"not a database" * 1000)
        uri = f"sqlite:///{tmp_path / 'broken.db'}"
    else:
        path = uri.removeprefix("sqlite:///")
        with sqlite3.connect(path) as database:  # as root may write anywhere: let the database itself refuse
            database.execute("CREATE TRIGGER no BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'read-only'); END")
    summary = laboratory.run(ONE, tracking_uri=uri)
    assert summary.runs == 1 and str(laboratory.history().runs[0].outcome.state) == "finished"
    assert len(laboratory.notes) == 1, laboratory.notes
    assert uri in laboratory.notes[0] and "diffsearch sync" in laboratory.notes[0]


def test_what_mlflow_does_not_have_whole_is_not_read_from_it(laboratory, uri):
    with pytest.raises(tracking.TrackingDown, match="no study 'tiny'"):
        tracking.read("tiny", uri)
    with pytest.raises(tracking.TrackingDown, match="no MLflow database"):
        tracking.read("tiny", "sqlite:////nowhere/mlflow.db")
    laboratory.run({}, tracking_uri=uri)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    client.delete_run(next(run for run in runs if run.data.tags["diffsearch.kind"] == "run").info.run_id)
    with pytest.raises(tracking.TrackingDown, match="lacks 1 of the 2 runs"):
        tracking.read("tiny", uri)


def test_the_uri_is_the_given_one_else_the_environments_else_a_file_in_the_store(laboratory, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri(laboratory.store, None) == f"sqlite:///{laboratory.store.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking.tracking_uri(laboratory.store, None) == "http://server"
    assert tracking.tracking_uri(laboratory.store, "http://other") == "http://other"


def test_mlflow_prints_nothing_of_its_own():
    """Its client for a server prints two lines a run."""
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()


def test_a_history_survives_json(laboratory):
    laboratory.run(SEVERAL)
    for run in laboratory.history().runs:
        assert type(run).from_json(json.loads(json.dumps(run.to_json()))) == run
