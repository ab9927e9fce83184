"""How far `diffsearch plan` is from the time that its study then takes: three small studies, without stopping and with.

Each study is planned and run as a user does, by command, in a store of its own: first without a rule, where nothing is
remembered and every speed is timed, then with asha and other seeds, where the store remembers the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "from diffsearch.cli import main; main()"
WITH_RULE = ("seed=1", "search.stopping=asha")
STUDIES: dict[str, tuple[str, ...]] = {
    "search_spaces/mnist_unet.yaml": (
        "data.images=1000",
        "training.epochs=[1, 2]",
        "evaluation.samples=200",
        "search={algorithm: tpe, runs: 10, finalists: {top: 1, repeats: 2, samples: 300, sampling: {ema: [0, 2k]}}}",
        "budget={wall: 1h}",
    ),
    "experiments/mnist_sequential/joint_cpu.yaml": (
        "data.images=1000",
        "model.channels=[[4, 8, 16], [8, 16, 32]]",
        "training.epochs=[1, 3]",
        "evaluation.samples=100",
        "search={algorithm: random, runs: 8}",
        "budget={wall: 1h}",
    ),
    "experiments/conditional_digits/cpu.yaml": (
        "repeats=1",
        "data.images=300",
        "training.epochs=[1, 2]",
        "sampling.steps=5",
        "evaluation.samples=100",
        "budget={wall: 1h}",
    ),
}


@dataclass(frozen=True)
class Told:
    """What a plan said, in seconds."""

    wall_s: float
    low_s: float
    high_s: float


def plan(file: str, overrides: Sequence[str], store: str) -> Told:
    forecast = json.loads(_said("plan", file, overrides, store, "--json"))["forecast"]
    return Told(forecast["wall_s"], forecast["low_s"], forecast["high_s"])


def run_s(file: str, overrides: Sequence[str], store: str) -> float:
    """Seconds of the whole command, the report included."""
    began = time.perf_counter()
    _said("run", file, overrides, store, "--quiet")
    return time.perf_counter() - began


def _said(command: str, file: str, overrides: Sequence[str], store: str, *options: str) -> str:
    changes = [word for override in overrides for word in ("--set", override)]
    words = [sys.executable, "-c", COMMAND, command, str(ROOT / file), *changes, "--store", store, *options]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, cwd=store, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout


def rows() -> Iterator[tuple[str, str]]:
    for file, overrides in STUDIES.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as store:
            name = Path(file).with_suffix("").as_posix()
            told = plan(file, overrides, store)
            took = run_s(file, overrides, store)
            error = f"{100 * (told.wall_s / took - 1):+.0f} % (target: within 25 %)"
            yield f"{name}, every speed timed", f"planned {told.wall_s:.0f} s, took {took:.0f} s: {error}"
            told = plan(file, (*overrides, *WITH_RULE), store)
            took = run_s(file, (*overrides, *WITH_RULE), store)
            holds = "holds it" if told.low_s <= took <= told.high_s else "does not hold it"
            between = f"planned {told.low_s:.0f} to {told.high_s:.0f} s (likely {told.wall_s:.0f})"
            yield f"{name}, with asha, speeds remembered", f"{between}, took {took:.0f} s: {holds}"
