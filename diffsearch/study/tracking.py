"""MLflow, a view of the store: one parent run a study, one child a run. The only module that imports mlflow.

Written by a thread of the driver (see `tracker`); `sync` rebuilds it wholly.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from diffsearch.errors import DiffsearchError
from diffsearch.records import Evaluation, RunHistory, State, StudyHistory
from diffsearch.space.settings import as_json, show
from diffsearch.store import Store
from diffsearch.study.history import Header, StudyFolder, assemble, from_here
from diffsearch.study.ledger import Asked

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
log = logging.getLogger(__name__)

RUN_FILE = "run.json"  # artifact of a child: its RunHistory
STUDY_FILE = "study.json"  # artifact of the parent: the study's header, with its wall time
METRICS_A_CALL = 900  # MLflow takes 1,000
STATUS = {
    State.FINISHED: "FINISHED",
    State.STOPPED_EARLY: "FINISHED",
    State.RUNNING: "RUNNING",
    State.INFEASIBLE: "KILLED",  # never begun, and no failure
}


class TrackingDown(DiffsearchError):
    """MLflow can't be reached or answers with an error."""


def tracking_uri(store: Store, given: str | None) -> str:
    """`--tracking-uri`, else MLFLOW_TRACKING_URI, else a SQLite file in the store."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root / 'mlflow.db'}"


class View:
    """One study in MLflow. Every call may block on the network or a locked database.

    Raises:
        TrackingDown: from each method, whatever went wrong inside MLflow.
    """

    def __init__(self, folder: StudyFolder, uri: str) -> None:
        self._folder, self.uri = folder, uri
        self._children: dict[tuple[str, str], Any] = {}  # (stage, run key) → MLflow's RunInfo
        self._states: dict[tuple[str, str], str] = {}  # as MLflow has them
        self._told: dict[tuple[str, str], set[tuple[str, str]]] = {}  # what this view wrote: (epoch or key, metric)
        self._client, self._experiment, self._parent = _guard(uri, self._open)

    def _open(self) -> tuple[Any, str, str]:
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        client = MlflowClient(self.uri)
        name = self._folder.name
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            local = (self._folder.store.root / "mlartifacts" / name).as_uri() if self.uri.startswith("sqlite") else None
            experiment_id = client.create_experiment(name, artifact_location=local)
        else:
            experiment_id = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment_id)
        parent = None
        for run in _search(client, experiment_id, "tags.`diffsearch.kind` != ''"):
            tags = run.data.tags
            if tags["diffsearch.kind"] == "study":
                parent = run.info.run_id
            else:
                where = tags["diffsearch.stage"], tags["diffsearch.run_key"]
                self._children[where] = run.info
                self._states[where] = tags.get("diffsearch.whole", "")
        if parent is None:
            tags = {"diffsearch.kind": "study", "diffsearch.study": name}
            parent = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        return client, experiment_id, parent

    def update(self, asked: Asked, ended: bool) -> None:
        """What is new of a run; once it has ended all of it. `ended` is false of one that is under way once more."""
        _guard(self.uri, lambda: self._tell(asked, ended))

    def complete(self, asked: Asked) -> None:
        """All of a run as it is now, with its pictures and files."""
        _guard(self.uri, lambda: self._update(self._folder.run(asked), len(asked.points) > 1, whole=True))

    def _tell(self, asked: Asked, ended: bool) -> None:
        run = self._folder.run(asked)
        where = run.stage, run.key
        if not ended and self._states.pop(where, ""):
            self._client.update_run(self._children[where].run_id, "RUNNING")
        self._update(run, len(asked.points) > 1, whole=ended and run.outcome.state != State.RUNNING)

    def study(self, status: str) -> None:
        """The parent: the study's file, header and state."""
        _guard(self.uri, lambda: self._study(status))

    def clear(self) -> None:
        """Delete every run of this study, to build it anew."""

        def delete() -> None:
            for run in _search(self._client, self._experiment, "tags.`diffsearch.kind` = 'run'"):
                self._client.delete_run(run.info.run_id)
            self._children.clear()

        _guard(self.uri, delete)

    def catch_up(self) -> None:
        """Bring those runs up to date that MLflow doesn't have as they are now."""
        for asked in self._folder.asked():
            if self._states.get((asked.stage, asked.run_key)) != _whole(self._folder.run(asked)):
                self.complete(asked)

    def _update(self, run: RunHistory, several: bool, whole: bool) -> None:
        where = run.stage, run.key
        params = [] if where in self._children else _params(run)
        info = self._children.get(where) or self._create(run)
        told, metrics = self._told.setdefault(where, set()), []
        new = {("epoch", str(record.epoch)): (epoch_metrics(as_json(record)), record.epoch) for record in run.epochs}
        for each in run.all_evaluations:
            for name, value in evaluation_metrics(each, several, each in run.screened).items():
                new[each.key, name] = {name: value}, each.epoch
        for what, (values, epoch) in new.items():
            metrics += [] if what in told else _metrics(values, epoch)
        tags = [_tag(name, value) for name, value in _end_tags(run).items()] if whole else []
        for start in range(0, max(1, len(metrics)), METRICS_A_CALL):
            self._client.log_batch(info.run_id, metrics[start : start + METRICS_A_CALL], params, tags)
            params = tags = []
        told.update(new)
        if whole:
            self._log_files(info, run)
            self._client.set_terminated(info.run_id, STATUS.get(run.outcome.state, "FAILED"))
            self._states[where] = _whole(run)

    def _create(self, run: RunHistory) -> Any:
        tags = {
            "mlflow.parentRunId": self._parent,
            "diffsearch.kind": "run",
            "diffsearch.study": self._folder.name,
            "diffsearch.stage": run.stage,
            "diffsearch.run_key": run.key,
            "diffsearch.state": str(State.RUNNING),
        }
        made = self._client.create_run(self._experiment, run_name=f"{run.stage} {run.key[:6]}", tags=tags)
        self._children[run.stage, run.key] = made.info
        return made.info

    def _log_files(self, info: Any, run: RunHistory) -> None:
        """Its history, its settings and a picture for each evaluation, in one call that needs no look at the run."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / RUN_FILE).write_text(json.dumps(run.to_json()))
            (folder / "settings.yaml").write_text(yaml.safe_dump(run.settings.to_json(), sort_keys=False))
            (folder / "samples").mkdir()
            for evaluation in run.all_evaluations:
                picture = self._folder.store.run(run.key).picture(evaluation.key)
                if picture.exists():
                    shutil.copy(picture, folder / "samples" / picture.name)
            get_artifact_repository(info.artifact_uri, self.uri).log_artifacts(name)

    def _study(self, status: str) -> None:
        folder = StudyFolder.open(self._folder.store, self._folder.name)
        header = {
            **as_json(folder.header),
            "wall_s": folder.ledger.wall_s,
            "sessions": len(folder.ledger.sessions),
            "runs": [[asked.stage, asked.run_key] for asked in folder.asked()],
        }
        self._client.log_text(self._parent, json.dumps(header, indent=1, sort_keys=True), STUDY_FILE)
        self._client.log_text(self._parent, folder.header.text, "study.yaml")
        for name, value in folder.header.facts.items():
            self._client.set_tag(self._parent, f"diffsearch.{name}", value)
        self._client.set_terminated(self._parent, status)


def sync(folder: StudyFolder, uri: str) -> int:
    """Rebuild a study in MLflow wholly from the store; returns the number of runs."""
    asked = folder.asked()
    view = View(folder, uri)
    view.clear()
    for run in asked:
        view.complete(run)
    view.study("FINISHED")
    return len(asked)


def read(name: str, uri: str) -> StudyHistory:
    """A study's history as MLflow has it, through `mlflow.search_runs` (pandas) and the runs' artifacts.

    Raises:
        TrackingDown: it isn't there, isn't whole, or MLflow doesn't answer.
    """
    with _pointed_at(uri):
        return _guard(uri, lambda: _read(name, uri))


@contextlib.contextmanager
def _pointed_at(uri: str) -> Iterator[None]:
    """MLflow's process-wide address, which it also writes into the environment, for the while of a block."""
    import mlflow

    variable, address = os.environ.get("MLFLOW_TRACKING_URI"), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(address)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable


def _read(name: str, uri: str) -> StudyHistory:
    import mlflow

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise TrackingDown(f"no MLflow database at {uri}.")
    table = mlflow.search_runs(experiment_names=[name], filter_string="tags.`diffsearch.kind` != ''")
    if table.empty or not (table["tags.diffsearch.kind"] == "study").any():
        raise TrackingDown(f"MLflow at {uri} has no study '{name}'.")
    parent = table[table["tags.diffsearch.kind"] == "study"].iloc[0]
    plain = mlflow.artifacts.load_dict(f"{parent['artifact_uri']}/{STUDY_FILE}")
    wall_s, sessions, wanted = plain.pop("wall_s"), plain.pop("sessions"), plain.pop("runs")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / STUDY_FILE).write_text(json.dumps(plain))
        header = Header.read(Path(folder))
    children = table[table["tags.diffsearch.kind"] == "run"]
    at = dict(
        zip(
            zip(children["tags.diffsearch.stage"], children["tags.diffsearch.run_key"], strict=True),
            children["artifact_uri"],
            strict=True,
        )
    )
    if missing := [run for run in wanted if tuple(run) not in at]:
        raise TrackingDown(f"MLflow at {uri} lacks {len(missing)} of the {len(wanted)} runs of '{name}'.")
    runs = [RunHistory.from_json(mlflow.artifacts.load_dict(f"{at[tuple(run)]}/{RUN_FILE}")) for run in wanted]
    return assemble(header, runs, wall_s, sessions, f"MLflow ({from_here(uri)})")


def epoch_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """An epoch's record under the names that MLflow shows."""
    told = ("loss", "validation_loss", "images_per_s", "wall_s", "peak_memory_mb")
    return {name: float(record[name]) for name in told if record.get(name) is not None}


def evaluation_metrics(evaluation: Evaluation, several: bool, screened: bool = False) -> dict[str, float]:
    """An evaluation's scores; the sampling point stands in the name where the run has several, and a screen's word."""
    where = "".join(c if c.isalnum() or c in "-_. " else " " for c in str(evaluation.sampling))
    suffix, prefix = f"/{where}" if several else "", "screen/" if screened else ""
    return {f"{prefix}{name}{suffix}": score.value for name, score in evaluation.scores.items()}


def _end_tags(run: RunHistory) -> dict[str, str]:
    facts = {f"diffsearch.{name}": str(value)[:500] for name, value in run.environment.items()}
    return {
        **facts,
        "diffsearch.state": str(run.outcome.state),
        "diffsearch.cause": run.outcome.reason[:500],
        "diffsearch.whole": _whole(run),
    }


def _whole(run: RunHistory) -> str:
    """A fingerprint of what MLflow should hold of a run."""
    return hashlib.sha256(json.dumps(run.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _params(run: RunHistory) -> list[Any]:
    from mlflow.entities import Param

    flat: dict[str, Any] = {"seed": run.settings.seed, "steps": run.settings.steps, "terminal": run.settings.terminal}
    flat |= {"dataset": run.settings.dataset, "noise_process": run.settings.noise_process}
    flat |= {"model": run.settings.model.name, **{f"model.{k}": v for k, v in run.settings.model.options}}
    flat |= as_json(run.settings.training)
    return [Param(name, show(value)[:500]) for name, value in flat.items()]


def _metrics(values: Mapping[str, float], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in values.items()]


def _tag(name: str, value: str) -> Any:
    from mlflow.entities import RunTag

    return RunTag(name, value)


def _search(client: Any, experiment: str, where: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], where, max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _guard(uri: str, call: Callable[[], Any]) -> Any:
    """Call into MLflow; whatever it raises becomes TrackingDown, since its faults must not end a study."""
    try:
        return call()
    except DiffsearchError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise TrackingDown(f"MLflow at {uri} doesn't answer ({type(error).__name__}: {reason}).") from error
