"""`diffsearch run` as a user meets it: Ctrl-C, `kill -9` of the driver, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import diffsearch

COMMAND = Path(sys.executable).parent / "diffsearch"
SPACE = """
name: again
data: {dataset: mnist-5k, images: 200}
model: {kind: unet, channels: [4, 8]}
diffusion: {steps: [2, 3], noise_process: [linear-noise, cosine]}
training: {loss: x0-l2, batch_size: 32, epochs: [1, 2], ema_half_life: [0, 500]}
evaluation: {objective: fd-digits, samples: 70}
search: {algorithm: random, runs: 4}
"""


@pytest.fixture
def begin(tmp_path: Path, mlflow_database: Callable[[Path], Path]) -> Callable[..., subprocess.Popen[str]]:
    (tmp_path / "again.yaml").write_text(SPACE)
    mlflow_database(tmp_path / ".diffsearch")

    def start(*options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, "run", "again.yaml", *options],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "100"},
        )

    return start


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool], deadline_s: float = 90.0) -> None:
    """Until a condition holds, while the process lives."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, "it took too long"
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended with {process.returncode}:\n{process.communicate()[0]}")


def rows(store: Path) -> dict[tuple[str, str], dict[str, object]]:
    found: dict[tuple[str, str], dict[str, object]] = {}
    for file in store.glob("runs/*/evaluations.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            row.pop("sampling_s"), row.pop("scoring_s")
            assert (file.parent.name, row["key"]) not in found
            found[file.parent.name, row["key"]] = row
    return found


def test_interrupted_killed_and_run_again_it_ends_as_if_it_had_never_stopped(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    store = tmp_path / ".diffsearch"

    process = begin("--workers", "1")
    wait_for(process, lambda: len(rows(store)) >= 1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130, said
    assert "Nothing is lost" in said

    before = len(rows(store))
    process = begin("--workers", "1")
    wait_for(process, lambda: len(rows(store)) >= before + 2)
    process.kill()
    process.communicate()

    process = begin()
    said = process.communicate(timeout=150)[0]
    assert process.returncode == 0, said
    assert "report" in said and "Traceback" not in said and "raylet" not in said
    assert (tmp_path / "reports" / "again" / "report.md").exists()

    whole = tmp_path / "whole"
    diffsearch.load(tmp_path / "again.yaml", store=whole).run(workers=0, tracking_uri="sqlite:////proc/none/mlflow.db")
    assert rows(store) == rows(whole)
