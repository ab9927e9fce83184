"""`diffsearch run` as a user meets it: Ctrl-C, `kill -9` of the driver and of a worker, and the same command again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import pytest

import diffsearch
from diffsearch.data.cache import default_cache
from diffsearch.records import State, StudyHistory
from diffsearch.store import lease as leases
from diffsearch.study import host

COMMAND = Path(sys.executable).parent / "diffsearch"
EPOCHS = 3
SPACE = """
name: again
data: {dataset: mnist-5k, images: 200}
model: {kind: unet, channels: [4, 8]}
diffusion: {steps: [2, 3], noise_process: [linear-noise, cosine]}
training: {loss: [x0-l2, v-l2], batch_size: 32, epochs: [1, EPOCHS], ema_half_life: [0, 500]}
evaluation: {objective: fd-digits, samples: 70}
search: {algorithm: random, runs: 6, finalists: {top: 1, repeats: 1}}
""".replace("EPOCHS", str(EPOCHS))
SESSION_S = 150.0  # at the most, on a machine that has other work to do


@dataclass
class Story:
    """A study of three sessions, each of which the real command began, and what was seen of them."""

    folder: Path
    home: Path
    said: list[str] = field(default_factory=list)  # by each session that was not killed
    drivers: list[int] = field(default_factory=list)
    workers: set[int] = field(default_factory=set)  # of the last session
    before: StudyHistory | None = None  # the last session
    killed: str = ""  # key of the run whose worker was killed

    @property
    def store(self) -> Path:
        return self.folder / ".diffsearch"

    def begin(self, *options: str) -> subprocess.Popen[str]:
        at_home = {"HOME": self.home, "DIFFSEARCH_CACHE": default_cache(), "MPLCONFIGDIR": matplotlib.get_cachedir()}
        process = subprocess.Popen(
            [COMMAND, "run", "again.yaml", *options],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "100", **{name: str(path) for name, path in at_home.items()}},
        )
        self.drivers.append(process.pid)
        return process

    def end(self, process: subprocess.Popen[str], code: int) -> None:
        said, _ = process.communicate(timeout=SESSION_S)
        assert process.returncode == code, said
        self.said.append(said)

    def at_work(self) -> dict[str, leases.Holder]:
        """Key of each run that a worker holds now → that worker."""
        held = {path.parent.name: leases.is_held(path) for path in self.store.glob("runs/*/lease")}
        return {key: holder for key, holder in held.items() if holder}

    def epochs(self) -> dict[str, int]:
        """Run key → epochs trained."""
        files = self.store.glob("runs/*/epochs.jsonl")
        return {file.parent.name: len(file.read_text().splitlines()) for file in files}

    def history(self) -> StudyHistory:
        return diffsearch.load(self.folder / "again.yaml", store=self.store).history(from_store=True)


def moments(process: subprocess.Popen[str]) -> Iterator[None]:
    """Twenty a second, while the process lives."""
    until = time.monotonic() + SESSION_S
    while time.monotonic() < until:
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            yield
        else:
            return
    raise AssertionError("it took too long")


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Until a condition holds, while the process lives."""
    for _ in moments(process):
        if condition():
            return
    raise AssertionError(f"ended with {process.returncode}:\n{process.communicate()[0]}")


def rows(store: Path) -> dict[tuple[str, str], dict[str, object]]:
    """(run, evaluation) → its row, but for seconds."""
    found: dict[tuple[str, str], dict[str, object]] = {}
    for file in store.glob("runs/*/evaluations.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            row.pop("sampling_s"), row.pop("scoring_s")
            assert (file.parent.name, row["key"]) not in found
            found[file.parent.name, row["key"]] = row
    return found


def checkpoints(store: Path) -> dict[str, str]:
    """File → hash."""
    files = store.glob("runs/*/*.safetensors")
    return {f"{file.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Callable[[Path], Path]) -> Story:
    """Ctrl-C after the first score; the driver killed after two more; in the session that ends it, a worker killed."""
    story = Story(tmp_path_factory.mktemp("again"), tmp_path_factory.mktemp("home"))
    (story.folder / "again.yaml").write_text(SPACE)
    mlflow_database(story.store)

    process = story.begin("--workers", "1")
    wait_for(process, lambda: len(rows(story.store)) >= 1)
    process.send_signal(signal.SIGINT)
    story.end(process, 130)

    before = len(rows(story.store))
    process = story.begin("--workers", "1")
    wait_for(process, lambda: len(rows(story.store)) >= before + 2)
    process.kill()
    process.communicate()

    story.before, trained = story.history(), story.epochs()
    process = story.begin()
    for _ in moments(process):
        for key, worker in story.at_work().items():
            story.workers.add(worker.pid)
            if not story.killed and trained.get(key, 0) < story.epochs().get(key, 0) < EPOCHS:
                os.kill(worker.pid, signal.SIGSTOP)  # so that it doesn't end between the look and the kill
                if key in story.at_work() and story.epochs()[key] < EPOCHS:
                    os.kill(worker.pid, signal.SIGKILL)
                    story.killed = key
                else:
                    os.kill(worker.pid, signal.SIGCONT)
    story.end(process, 0)
    return story


def test_each_session_ends_with_what_it_has_to_say_and_nothing_of_rays(story: Story) -> None:
    interrupted, finished = story.said
    assert "Nothing is lost" in interrupted
    assert "report" in finished and (story.folder / "reports" / "again" / "report.md").exists()
    for said in story.said:
        assert "Traceback" not in said and "raylet" not in said


def test_it_ends_as_if_it_had_never_stopped(story: Story, tmp_path: Path) -> None:
    study = diffsearch.load(story.folder / "again.yaml", store=tmp_path)
    study.run(workers=0, tracking_uri="sqlite:////proc/none/mlflow.db")
    assert rows(story.store) == rows(tmp_path) and len(rows(tmp_path)) == 6 * 2 + 1
    assert checkpoints(story.store) == checkpoints(tmp_path)
    expected, found = study.history(from_store=True), story.history()
    assert [(r.key, r.stage, r.outcome) for r in found.runs] == [(r.key, r.stage, r.outcome) for r in expected.runs]


def test_a_killed_worker_costs_an_attempt_and_no_result(story: Story) -> None:
    assert story.before is not None
    earlier = {run.key: len(run.attempts) for run in story.before.runs}
    lost = {run.key: run.attempts[earlier.get(run.key, 0) :] for run in story.history().runs}
    states = {key: [attempt.state for attempt in attempts] for key, attempts in lost.items() if attempts}
    assert states == {story.killed: [State.KILLED]}
    assert {str(run.outcome.state) for run in story.history().runs} == {"finished"}


def test_workers_are_as_many_as_cores_and_reused_and_are_not_the_driver(story: Story) -> None:
    cores = len(os.sched_getaffinity(0))
    assert story.history().workers == cores
    assert 0 < len(story.workers) <= cores + 1 and not story.workers & {*story.drivers}  # one for the dead


def test_nothing_is_left_behind(story: Story) -> None:
    assert {path.name for path in story.store.iterdir()} - {"mlartifacts"} == {
        "runs",
        "studies",
        "references",
        "mlflow.db",
    }
    assert list(story.home.iterdir()) == []
    temporary = Path(host.TEMP)
    assert not [path for pid in story.drivers for path in temporary.glob(f"ds{pid}-*")]
    assert not [path for pid in story.drivers for path in temporary.glob(f"ray/session_*_{pid}")]


def test_no_lease_is_held(story: Story) -> None:
    held = [leases.is_held(path) for path in story.store.rglob("lease")]
    assert len(held) == 1 + 6 + 1 and held == [None] * len(held)
