"""`kill -9` at any write, then the same command again: every row is what an uninterrupted run writes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

import diffsearch
from diffsearch.store import Store

SPACE = """
name: killed
data: {dataset: mnist-5k, images: 160}
model: {kind: unet, channels: [4]}
diffusion: {steps: [2, 3], noise_process: linear-noise}
training: {loss: [x0-l2, epsilon-l2], batch_size: 40, epochs: [1, 2], ema_half_life: [0, 100]}
evaluation: {objective: fd-digits, samples: 70}
search: {algorithm: grid, finalists: {top: 1, repeats: 2, samples: 80, sampling: {ema: [0, 100]}}}
"""


def run(space: Path, store: Path) -> None:
    # an address where nothing listens: MLflow is a view, and must not hold up what is tested here
    diffsearch.load(space, store=store).run(workers=0, tracking_uri="sqlite:////proc/none/mlflow.db")


def run_and_die(space: Path, store: Path, write: int) -> bool:
    """Run in a forked child that kills itself at its n-th flush to disk; whether it was killed."""
    child = os.fork()
    if child == 0:
        flush, count = os.fsync, itertools.count(1)

        def fsync(descriptor: int) -> None:
            if next(count) == write:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(descriptor)

        os.fsync = fsync
        try:
            run(space, store)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def rows(store: Path) -> dict[tuple[str, str], str]:
    """(run, evaluation) → everything of the row but its seconds."""
    found = {}
    for folder in (store / "runs").iterdir():
        for line in (folder / "evaluations.jsonl").read_text().splitlines():
            row = json.loads(line)
            row.pop("sampling_s"), row.pop("scoring_s")
            where = (folder.name, row["key"])
            assert where not in found, f"{where} was written twice"
            found[where] = json.dumps(row, sort_keys=True)
    return found


def weights(store: Path) -> dict[str, str]:
    """Checkpoint → hash of its tensors."""
    return {
        f"{file.parent.name}/{file.name}": hashlib.sha256(
            b"".join(tensor.numpy().tobytes() for _, tensor in sorted(load_file(file).items()))
        ).hexdigest()
        for file in store.glob("runs/*/*.safetensors")
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    space = tmp_path_factory.mktemp("space") / "killed.yaml"
    space.write_text(SPACE)
    store = tmp_path_factory.mktemp("whole")
    run(space, store)
    return space, store


def test_a_study_killed_at_many_writes_ends_as_if_it_had_never_stopped(
    uninterrupted: tuple[Path, Path], tmp_path: Path
) -> None:
    space, whole = uninterrupted
    rng = random.Random(0)
    kills = 0
    while run_and_die(space, tmp_path, write=rng.randint(8, 60)):
        kills += 1
        assert kills < 60, "no progress between kills"
    assert kills >= 4
    run(space, tmp_path)
    assert rows(tmp_path) == rows(whole)
    assert weights(tmp_path) == weights(whole)
    expected = diffsearch.load(space, store=whole).history(from_store=True)
    found = diffsearch.load(space, store=tmp_path).history(from_store=True)
    assert [(r.key, r.stage, r.outcome) for r in found.runs] == [(r.key, r.stage, r.outcome) for r in expected.runs]


def test_the_second_time_nothing_is_computed(uninterrupted: tuple[Path, Path]) -> None:
    space, store = uninterrupted
    before = {file: file.stat().st_mtime_ns for file in Store.open(store).root.glob("runs/*/*.safetensors")}
    summary = diffsearch.load(space, store=store).run(workers=0, tracking_uri="sqlite:////proc/none/mlflow.db")
    assert (summary.trained_epochs, summary.evaluations, summary.runs) == (0, 0, 6)
    assert before == {file: file.stat().st_mtime_ns for file in store.glob("runs/*/*.safetensors")}
