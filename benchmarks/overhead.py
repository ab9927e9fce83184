"""What the platform costs a trial: store, journal, ledger and MLflow included, beside bare Ray Tune and bare MLflow."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import diffsearch
from diffsearch.study import runner
from diffsearch.study.observer import Nobody

HERE = Path(__file__).parent


class _Clock(Nobody):
    """Notes when each run ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def heard(self, task: Any, said: Any) -> None:
        if type(said).__name__ == "Outcome":
            self.ends.append(time.perf_counter())


NO_MLFLOW = "sqlite:////proc/none/mlflow.db"  # fails at once: the study goes on without it


def platform_ms(trials: int, tracking_uri: str | None = None) -> tuple[float, float, float]:
    """Milliseconds a trial, until MLflow was told of the last; and over the second and the last tenth of the trials."""
    clock = _Clock()
    with tempfile.TemporaryDirectory(prefix="bench-") as store:
        study = diffsearch.load(HERE / "noop.yaml", [f"search.runs={trials}"], store=store)
        study.run(observer=clock, command="benchmarks/overhead.py", tracking_uri=tracking_uri)
        ended = time.perf_counter()
    tenth, ends = trials // 10, clock.ends
    early = (ends[2 * tenth] - ends[tenth]) / tenth * 1000
    late = (ends[-1] - ends[-1 - tenth]) / tenth * 1000
    return _steady_ms([*ends[:-1], ended]), early, late


def _steady_ms(ends: list[float]) -> float:
    """Milliseconds from one end to the next, without the first tenth, in which workers start."""
    tenth = len(ends) // 10
    return (ends[-1] - ends[tenth]) / (len(ends) - 1 - tenth) * 1000


def bare_tune_ms(trials: int) -> float:
    """Ray Tune alone: class trainables reused, no loggers, one result each."""
    from ray import tune

    ends: list[float] = []

    class Clock(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class Nothing(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"score": 0.0, "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    with runner.cluster(None), tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        tuner = tune.Tuner(
            Nothing,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[Clock()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()
    return _steady_ms(ends)


def bare_mlflow_ms(runs: int) -> float:
    """MLflow alone, on SQLite: a run with 20 parameters and 30 metrics."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.create_experiment("bare", artifact_location=Path(folder).as_uri())
        began = time.perf_counter()
        for _ in range(runs):
            run = client.create_run(experiment).info.run_id
            params = [Param(f"p{i}", str(i)) for i in range(20)]
            client.log_batch(run, params=params, metrics=[Metric(f"m{i}", 1.0, 0, 0) for i in range(30)])
            client.set_terminated(run)
        return (time.perf_counter() - began) / runs * 1000


def rows(trials: int = 1000) -> list[tuple[str, str]]:
    platform, early, late = platform_ms(trials)
    alone, _, _ = platform_ms(trials // 4, NO_MLFLOW)
    tune_ms, mlflow_ms = bare_tune_ms(200), bare_mlflow_ms(100)
    return [
        (f"diffsearch, no-op training, {trials:,} trials", f"{platform:.0f} ms a trial (target ≤ 60)"),
        ("its second tenth and its last tenth", f"{early:.0f} and {late:.0f} ms: {late / early:.2f}×"),
        (f"the same without an MLflow that answers, {trials // 4:,} trials", f"{alone:.0f} ms a trial"),
        ("Ray Tune alone, 200 trials", f"{tune_ms:.0f} ms a trial"),
        ("MLflow alone, 100 runs", f"{mlflow_ms:.0f} ms a run"),
        ("diffsearch against the two together", f"{platform / (tune_ms + mlflow_ms):.1f}×"),
    ]
