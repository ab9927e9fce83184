"""MLflow, a view of the store: one parent run a study, one child a run. The only module that imports mlflow.

Written by one queued thread of the driver. If MLflow is down or locked the study goes on; `sync` rebuilds it wholly.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffsearch.errors import DiffsearchError, StoreError
from diffsearch.records import Evaluation, RunHistory, State, StudyHistory
from diffsearch.space.settings import as_json, show
from diffsearch.store import Store
from diffsearch.study.history import Header, StudyFolder, assemble, from_here

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
log = logging.getLogger(__name__)

RUN_FILE = "run.json"  # artifact of a child: its RunHistory
STUDY_FILE = "study.json"  # artifact of the parent: the study's header, with its wall time
STATUS = {State.FINISHED: "FINISHED", State.STOPPED_EARLY: "FINISHED", State.RUNNING: "RUNNING"}


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
        self._children: dict[tuple[str, str], str] = {}  # (stage, run key) → MLflow run id
        self._states: dict[tuple[str, str], str] = {}  # as MLflow has them
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
                self._children[where] = run.info.run_id
                self._states[where] = tags.get("diffsearch.whole", "")
        if parent is None:
            tags = {"diffsearch.kind": "study", "diffsearch.study": name}
            parent = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        return client, experiment_id, parent

    def begin(self, run: RunHistory) -> None:
        """Make the child run of a run that was asked for, with its parameters and tags."""
        _guard(self.uri, lambda: self._child(run))

    def epoch(self, stage: str, key: str, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of one epoch or evaluation."""
        child = self._children.get((stage, key))
        if child is not None:
            _guard(self.uri, lambda: self._client.log_batch(child, metrics=_metrics(metrics, step)))

    def finish(self, run: RunHistory) -> None:
        """All that is known of a run: every metric, its pictures and files, its state."""
        _guard(self.uri, lambda: self._finish(run))

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

    def catch_up(self, runs: Sequence[RunHistory]) -> None:
        """Finish those runs that MLflow doesn't have as they are now."""
        for run in runs:
            if self._states.get((run.stage, run.key)) != _whole(run):
                self.finish(run)

    def _child(self, run: RunHistory) -> str:
        where = (run.stage, run.key)
        if where not in self._children:
            tags = {
                "mlflow.parentRunId": self._parent,
                "diffsearch.kind": "run",
                "diffsearch.study": self._folder.name,
                "diffsearch.stage": run.stage,
                "diffsearch.run_key": run.key,
                "diffsearch.state": str(run.outcome.state),
            }
            made = self._client.create_run(self._experiment, run_name=f"{run.stage} {run.key[:6]}", tags=tags)
            self._children[where] = made.info.run_id
            self._client.log_batch(self._children[where], params=_params(run))
        return self._children[where]

    def _finish(self, run: RunHistory) -> None:
        child = self._child(run)
        metrics = [m for record in run.epochs for m in _metrics(epoch_metrics(as_json(record)), record.epoch)]
        for evaluation in run.evaluations:
            metrics += _metrics(evaluation_metrics(evaluation, run.evaluations), evaluation.epoch)
        facts = {f"diffsearch.{name}": str(value)[:500] for name, value in run.environment.items()}
        ended = {"diffsearch.state": str(run.outcome.state), "diffsearch.cause": run.outcome.reason[:500]}
        ended["diffsearch.whole"] = _whole(run)
        tags = [_tag(name, value) for name, value in {**facts, **ended}.items()]
        for start in range(0, max(1, len(metrics)), 900):
            self._client.log_batch(child, metrics=metrics[start : start + 900], tags=tags if start == 0 else ())
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / RUN_FILE).write_text(json.dumps(run.to_json()))
            settings = yaml.safe_dump(run.settings.to_json(), sort_keys=False)
            (Path(folder) / "settings.yaml").write_text(settings)
            self._client.log_artifacts(child, folder)
        for evaluation in run.evaluations:
            picture = self._folder.store.run(run.key).picture(evaluation.key)
            if picture.exists():
                self._client.log_artifact(child, str(picture), "samples")
        self._client.set_terminated(child, STATUS.get(run.outcome.state, "FAILED"))
        self._states[run.stage, run.key] = _whole(run)

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


class Tracker:
    """The queued thread that writes a `View`. A failure is said once, through `warn`, and ends the writing."""

    def __init__(self, folder: StudyFolder, uri: str, warn: Callable[[str], None]) -> None:
        self._folder, self._uri, self._warn = folder, uri, warn
        self._queue: queue.Queue[Callable[[View], None] | None] = queue.Queue()
        self.is_down = False
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def put(self, write: Callable[[View], None]) -> None:
        if not self.is_down:
            self._queue.put(write)

    def close(self, patience_s: float) -> bool:
        """Let the thread finish; False if it did not in time."""
        self._queue.put(None)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self.is_down = True
            self._warn(f"MLflow at {self._uri} is slow to answer. `diffsearch sync` completes it from the store.")
        return not self._thread.is_alive()

    def _write(self) -> None:
        try:
            view = View(self._folder, self._uri)
            while (write := self._queue.get()) is not None:
                write(view)
        except (TrackingDown, StoreError) as error:
            self.is_down = True
            self._warn(f"{error} The study goes on; `diffsearch sync` rebuilds MLflow from the store.")


def sync(folder: StudyFolder, uri: str) -> int:
    """Rebuild a study in MLflow wholly from the store; returns the number of runs."""
    history = folder.history()
    view = View(folder, uri)
    view.clear()
    for run in history.runs:
        view.finish(run)
    view.study("FINISHED")
    return len(history.runs)


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
    return {name: float(record[name]) for name in ("loss", "images_per_s", "wall_s", "peak_memory_mb")}


def evaluation_metrics(evaluation: Evaluation, among: Sequence[Evaluation]) -> dict[str, float]:
    """An evaluation's scores; the sampling point stands in the name where the run has several."""
    several = len({other.sampling for other in among}) > 1
    suffix = (
        "/" + "".join(c if c.isalnum() or c in "-_. " else " " for c in str(evaluation.sampling)) if several else ""
    )
    return {f"{name}{suffix}": score.value for name, score in evaluation.scores.items()}


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
