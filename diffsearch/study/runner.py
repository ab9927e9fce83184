"""Ray Tune executes what the conductor decides. The only module that imports ray.

Three small adapters: a class `Trainable` whose step is one item of `run_trial`, a `Searcher` that hands out the
conductor's tasks, a FIFO scheduler that gives it what the workers report. None of them decides anything, and an
exception in any of them halts the study and is raised by `run`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # its error would end the whole study; workers guard their own memory
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})

import ray  # noqa: E402
import torch  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.execution.tune_controller import TuneController  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as NodeAffinity  # noqa: E402

from diffsearch import registry  # noqa: E402
from diffsearch.data.datasets import ImageData  # noqa: E402
from diffsearch.errors import DiffsearchError  # noqa: E402
from diffsearch.records import Outcome, State  # noqa: E402
from diffsearch.space.settings import Choice, StudySpec, to_value  # noqa: E402
from diffsearch.study import facts, items  # noqa: E402
from diffsearch.study.conductor import Conductor, Signal, Task  # noqa: E402
from diffsearch.study.host import TEMP, on_sigint, oom_kills, reap_folders  # noqa: E402
from diffsearch.study.requests import Requests  # noqa: E402
from diffsearch.study.resources import Share, largest_run, measure_peak, memory_limit_mb, share_out, worker_device  # noqa: E402
from diffsearch.trial import Item, Scored, TrialRequest, run_trial  # noqa: E402

STEP_S = 0.25  # a worker reports at most this often, but at each milestone
PATIENCE_S = 10.0  # for a cluster to answer
GRACE_S = 3.0  # after one Ctrl-C, for steps under way to end and be written


class Interrupted(BaseException):
    """Ctrl-C: the study stops here, whole, and goes on with the same command."""


# --- on the worker ------------------------------------------------------------------------------------------------


class RunTrainable(tune.Trainable):
    """One run on a reused worker: a step is one item of `run_trial`."""

    def setup(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(max(1, int(config["cpu"])))
        request = TrialRequest.from_json(json.loads(config["request"]))
        use = items.at_hand(request.use, config["files"])
        self.config["files"] = None  # Tune sends the config back with every step
        limit_mb = memory_limit_mb(_this_node(), config["cpu"], config["gpu"], config["alone"])
        request = replace(request, use=use, environment=facts.environment(), memory_limit_mb=limit_mb)
        self._last = request.milestones[-1]
        self._items = run_trial(request, worker_device(config["gpu"]))

    def step(self) -> dict[str, Any]:
        """Items until a quarter of a second has passed or the study has something to decide."""
        told: list[str] = []
        began = time.monotonic()
        while time.monotonic() - began < STEP_S:
            try:
                item = next(self._items)
            except StopIteration as end:
                told.append(items.pack(end.value))
                break
            told.append(items.pack(item))
            if isinstance(item, Scored) and item.completes and item.evaluation.epoch != self._last:
                break
        return {"items": json.dumps(told)}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close the run that was under way: its lease is given back. Ray doesn't call this between reused trials."""
        self._items.close()


@functools.cache
def _this_node() -> Mapping[str, float]:
    """Resources of the node that this worker is on."""
    here = ray.get_runtime_context().get_node_id()
    [resources] = [node["Resources"] for node in ray.nodes() if node["NodeID"] == here]
    return resources  # type: ignore[no-any-return]


def study_trainable(requests: Requests) -> type[tune.Trainable]:
    """A study's runs as a trainable for a `Tuner` of one's own.

    Its config is axis path → value, e.g. {"training.loss": "x0-l2"}; a step trains to the next milestone and reports
    each metric by its name, `epoch`, `run_key` and, at the last, `done`. The store answers what it has.
    """

    class StudyTrainable(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            for path in requests.spec.use:
                registry.use(path)
            point = {path: to_value(value) for path, value in config.items()}
            self._request = requests.request(requests.search_run(point, 0, None))
            self._items = run_trial(self._request, worker_device(1.0))

        def step(self) -> dict[str, Any]:
            try:
                while not isinstance(item := next(self._items), Scored) or not item.completes:
                    pass
            except StopIteration as end:
                raise DiffsearchError(f"{end.value.state}: {end.value.reason}") from None
            metrics = {name: score.value for name, score in item.evaluation.scores.items()}
            epoch = item.evaluation.epoch
            last = epoch == self._request.milestones[-1]
            return {**metrics, "epoch": epoch, "run_key": self._request.run_key, "done": last}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.cleanup()
            self.setup(new_config)
            return True

        def cleanup(self) -> None:
            self._items.close()

    return StudyTrainable


# --- in the driver ------------------------------------------------------------------------------------------------


class _NotKept:
    """Tune pickles its adapters to restore from them; diffsearch restores from the store, so nothing is kept."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (object, ())


@dataclass
class _Link(_NotKept):
    """What the adapters share: the conductor, the tasks in Ray's hands, the first exception."""

    conductor: Conductor
    share: Share
    listen: Callable[[Task, Item | Outcome | None], None]  # None: handed out
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.tasks: dict[str, Task] = {}  # Tune's trial id → task

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep the first exception for `run` to raise: Tune would swallow it or blame the trial."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            self.conductor.halted = True
            raise

    def end(self, trial_id: str, outcome: Outcome) -> None:
        task = self.tasks.pop(trial_id)
        self.listen(task, self.conductor.ended(task, outcome))
        if self.conductor.gave_up is not None:
            raise self.conductor.gave_up

    def stop(self, trial_id: str, epoch: int) -> None:
        task = self.tasks.pop(trial_id)
        self.listen(task, self.conductor.stop(task, epoch))


class _Asker(Searcher):
    """Hands out the conductor's tasks."""

    def __init__(self, link: _Link) -> None:
        super().__init__()
        self._link = link

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with self._link.guarded():
            signal_or_task = self._link.conductor.next()
            if isinstance(signal_or_task, Task):
                task = signal_or_task
                self._link.tasks[trial_id] = task
                self._link.listen(task, None)
                request, files = json.dumps(task.request.to_json()), items.pack_files(task.request.use)
                share = self._link.share
                return {"request": request, "files": files, "cpu": share.cpu, "gpu": share.gpu, "alone": task.alone}
            return Searcher.FINISHED if signal_or_task is Signal.DONE else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The scheduler has told the conductor already."""

    def save(self, checkpoint_path: str) -> None:
        """The journal and the store hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Likewise."""


class _Listener(FIFOScheduler):
    """Gives the conductor what the workers report, and Tune its verdict."""

    def __init__(self, link: _Link, stopping: Choice) -> None:
        super().__init__()
        self._link, self._foreign = link, foreign_scheduler(stopping)
        self._shown: set[str] = set()  # trials that the foreign scheduler was told of
        self._oom_kills = oom_kills()

    def on_trial_result(self, controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        with self._link.guarded():
            task = self._link.tasks.get(trial.trial_id)
            if task is None:
                return str(TrialScheduler.STOP)
            for text in json.loads(result["items"]):
                item = items.unpack(text)
                if isinstance(item, Outcome):
                    self._link.end(trial.trial_id, item)
                    return str(TrialScheduler.STOP)
                self._link.listen(task, item)
                going = self._link.conductor.heard(task, item)
                if isinstance(item, Scored) and not (going and self._goes_on(controller, trial, result, item)):
                    self._link.stop(trial.trial_id, item.evaluation.epoch)
                    return str(TrialScheduler.STOP)
            return str(TrialScheduler.CONTINUE)

    def _goes_on(self, controller: TuneController, trial: Trial, result: dict[str, Any], item: Scored) -> bool:
        """Ask a scheduler of Ray's, if the study named one, at each milestone."""
        task = self._link.tasks[trial.trial_id]
        if self._foreign is None or not item.completes or task.trial is None:
            return True
        score = self._link.conductor.earned(task, item)
        seen = {**result, "objective": score, "training_iteration": item.evaluation.epoch}
        if trial.trial_id not in self._shown:
            self._shown.add(trial.trial_id)
            self._foreign.on_trial_add(controller, trial)
        return bool(self._foreign.on_trial_result(controller, trial, seen) != TrialScheduler.STOP)

    def on_trial_error(self, controller: TuneController, trial: Trial) -> None:
        """The process died, or the trainable could not be set up; every other failure is an outcome."""
        with self._link.guarded():
            error = _error_of(trial)
            reason = " ".join(str(error).split())[:300]
            if trial.trial_id not in self._link.tasks:
                return
            if is_death(error):
                before, self._oom_kills = self._oom_kills, oom_kills()
                if self._oom_kills > before:
                    outcome = Outcome(State.OUT_OF_MEMORY, "the machine ran out of memory")
                else:
                    outcome = Outcome(State.KILLED, "its worker process died, or its node")
                self._link.end(trial.trial_id, outcome)
            else:
                self._link.end(trial.trial_id, Outcome(State.FAILED, reason, {"traceback": str(error)}))

    def on_trial_complete(self, controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Told by `on_trial_result` already."""

    def on_trial_remove(self, controller: TuneController, trial: Trial) -> None:
        """Likewise."""


class _Pulse(_NotKept, tune.Callback):
    """Called at each turn of Tune's loop, some ten times a second: the clock, and the place where Ctrl-C takes hold."""

    def __init__(self, link: _Link, beat: Callable[[], None], interrupts: list[float]) -> None:
        self._link, self._beat, self._interrupts = link, beat, interrupts

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        with self._link.guarded():
            self._beat()
        if self._link.failure is not None:
            raise self._link.failure
        if self._interrupts:
            self._link.conductor.halted = True
            waited = time.monotonic() - self._interrupts[0]
            if not self._link.tasks or len(self._interrupts) > 1 or waited > GRACE_S:
                raise Interrupted


def run(
    conductor: Conductor,
    share: Share,
    *,
    listen: Callable[[Task, Item | Outcome | None], None],
    beat: Callable[[], None],
    on_interrupt: Callable[[int], None],
    stopping: Choice,
) -> None:
    """Execute a study until the conductor has nothing left. Ray must be running (see `cluster`).

    Raises:
        Interrupted: Ctrl-C. Whatever an adapter or the conductor raised is raised again as it was.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # "failed to fetch metrics": results go to the store instead
    link = _Link(conductor, share, listen)
    interrupts: list[float] = []

    def interrupt(_signal: int, _frame: types.FrameType | None) -> None:
        interrupts.append(time.monotonic())
        on_interrupt(len(interrupts))

    with tempfile.TemporaryDirectory(prefix=f"ds{os.getpid()}-", dir=TEMP) as results, on_sigint(interrupt):
        tuner = tune.Tuner(
            tune.with_resources(RunTrainable, share.bundle()),
            tune_config=tune.TuneConfig(
                search_alg=_Asker(link),
                scheduler=_Listener(link, stopping),
                num_samples=-1,
                max_concurrent_trials=share.workers,  # else Tune starts workers one after another, and asks one ahead
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=results,
                verbose=0,
                callbacks=[_Pulse(link, beat, interrupts)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except BaseException:
            if link.failure is not None:
                raise link.failure from None
            raise
        finally:
            for task in list(link.tasks.values()):
                conductor.interrupted(task)
    if link.failure is not None:
        raise link.failure
    if interrupts:
        raise Interrupted


@contextlib.contextmanager
def cluster(address: str | None, workers: int | None = None) -> Iterator[dict[str, float]]:
    """A Ray cluster for one study, as its resources: the running one at `address`, else a local one of its own.

    Raises:
        DiffsearchError: nothing answers at the address.
    """
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    temp = None
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "disabled"  # a private instance, on loopback
        reap_folders()
        temp = Path(tempfile.mkdtemp(prefix=f"ds{os.getpid()}-", dir=TEMP))
        atexit.register(shutil.rmtree, temp, ignore_errors=True)
        common |= {
            "include_dashboard": False,
            "_temp_dir": str(temp),
            "num_cpus": workers or len(os.sched_getaffinity(0)),
            "object_store_memory": 100 * 2**20,
        }
    try:
        _knock(address)
        ray.init(address=address or "local", **common)
    except (OSError, RuntimeError, ValueError) as error:
        raise DiffsearchError(
            f"--address {address}: no Ray cluster answers there ({error}). It must run Ray {ray.__version__}; where it "
            "asks for a token, set RAY_AUTH_MODE=token here too, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
        ) from error
    try:
        yield dict(ray.cluster_resources())
    finally:
        ray.shutdown()
        if temp is not None:
            shutil.rmtree(temp, ignore_errors=True)


def _knock(address: str | None) -> None:
    """Raise OSError where nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()


def check_nodes() -> None:
    """Refuse a cluster on one of whose nodes a worker would compute something else than its run's key says.

    Raises:
        DiffsearchError: names each such node, and what it has.
    """
    ask = ray.remote(num_cpus=0)(lambda: dict(facts.environment()))
    there = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [ask.options(scheduling_strategy=NodeAffinity(node["NodeID"], soft=False)).remote() for node in there]
    wrong = []
    for node, answer in zip(there, asked, strict=True):
        try:
            found = facts.differences(facts.environment(), ray.get(answer))
        except ray.exceptions.RayError as error:
            found = [f"diffsearch doesn't start there: {str(error).strip().splitlines()[-1]}"]
        wrong += [f"node {node['NodeManagerHostname']}: {what}" for what in found]
    if wrong:
        help_ = "Install the same versions on every node, as from constraints.txt or in one image."
        raise DiffsearchError("\n".join([*wrong, help_]))


def share(spec: StudySpec, data: ImageData) -> Share:
    """What each run of a study gets of the running cluster; on GPUs by the measured peak of its largest run.

    Raises:
        ConfigError: a run asks for what no node has.
    """
    there = nodes()
    peak_mb, gpu_mb = 0.0, None
    if spec.resources.gpu is None and any(node.get("GPU") for node in there):
        largest = largest_run(spec, data.image_shape)
        measure = ray.remote(num_gpus=1, max_calls=1)(measure_peak)
        peak_mb, gpu_mb = ray.get(measure.remote(json.dumps(largest.to_json()), [str(path) for path in spec.use]))
    return share_out(spec.resources, there, peak_mb, gpu_mb)


def nodes() -> list[Mapping[str, float]]:
    """Resources of each living node of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def foreign_scheduler(stopping: Choice) -> TrialScheduler | None:
    """A scheduler of Ray's by its class name, or None for a rule of ours.

    Raises:
        DiffsearchError: Ray has none of that name, or it doesn't take those arguments.
    """
    if not stopping.name[:1].isupper():
        return None
    if not hasattr(tune.schedulers, stopping.name):
        raise DiffsearchError(f"search.stopping: Ray Tune has no scheduler '{stopping.name}'")
    try:
        scheduler = getattr(tune.schedulers, stopping.name)(**stopping.kwargs)
    except (TypeError, ValueError, AssertionError) as error:
        raise DiffsearchError(f"search.stopping: {stopping.name}: {error}") from error
    scheduler.set_search_properties("objective", "min")
    return scheduler


def is_death(error: BaseException | None) -> bool:
    """Whether a worker's process or its node is gone or out of reach; else its trainable could not be set up."""
    return isinstance(error, ray.exceptions.RayActorError) and not error.actor_init_failed


def _error_of(trial: Trial) -> BaseException | None:
    file = trial.pickled_error_file
    if file and Path(file).exists():
        with Path(file).open("rb") as content:
            return ray.cloudpickle.load(content)  # type: ignore[no-any-return]
    return None
