"""An invented study: 20 runs, stopped by successive halving, one diverged, the best two repeated over three seeds.

No network was trained for it: its numbers come from a seeded formula, and it exists for tests alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import pytest
from PIL import Image

from diffsearch.records import Bounds, EpochRecord, Evaluation, Outcome, RunHistory, Score, State, StudyHistory
from diffsearch.report.markdown import Pictures
from diffsearch.space.settings import Choice, RunSettings, SamplingPoint, TrainingSettings

MILESTONES = (1, 3, 9)
IMAGES = 5000
AXES = (
    "model.channels",
    "diffusion.steps",
    "diffusion.noise_process",
    "training.loss",
    "training.batch_size",
    "training.normalization",
    "training.learning_rate",
)
LOSS = {"x0-l2": 1.0, "v-l2": 1.25, "x-prev-l2": 2.2, "mu-tilde-l2": 2.0, "mu-tilde-l1": 3.6, "epsilon-l2": 3.0}
PROCESS = {"linear-noise": 1.0, "cosine": 1.08, "linear-alpha-bar": 1.3, "linear-x": 1.7}
TEXT = """name: mnist_unet
seed: 0
data: {dataset: mnist-5k}
model: {channels: [[8, 16, 32], [16, 32, 64]]}
diffusion:
  steps: [5, 10, 15]
  noise_process: [linear-noise, cosine, linear-alpha-bar, linear-x]
training:
  loss: [x0-l2, v-l2, x-prev-l2, mu-tilde-l2, mu-tilde-l1, epsilon-l2]      # a | in a comment
  batch_size: [32, 64, 128, 256]
  normalization: [[-1, 1], [0, 1]]
  learning_rate: {log: [3e-4, 3e-3]}
  epochs: [1, 3, 9]
evaluation: {objective: fd-digits, samples: 1000}
search: {algorithm: tpe, runs: 20}
"""


def hex_of(*parts) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:16]


def settings_of(point, seed) -> RunSettings:
    training = TrainingSettings(
        point["training.loss"],
        point["training.batch_size"],
        point["training.normalization"],
        "adamw",
        point["training.learning_rate"],
        "constant",
        0,
        0.0,
        1.0,
        (0, 2000, 8000),
        "fp32",
        False,
        None,
    )
    model = Choice.of("unet", channels=point["model.channels"])
    process = Choice.of(point["diffusion.noise_process"])
    return RunSettings(Choice.of("mnist-5k"), model, process, point["diffusion.steps"], "data-mean", training, seed)


def score_of(point, epoch, rng, samples) -> float:
    """Fréchet-like: falls with epochs towards a level that the settings set; 4 % noise a seed."""
    level = 5.0 * LOSS[point["training.loss"]] * PROCESS[point["diffusion.noise_process"]]
    level *= {(16, 32, 64): 1.0, (8, 16, 32): 1.6}[point["model.channels"]]
    level *= 1 + 0.3 * abs(math.log(point["training.learning_rate"] / 1.2e-3))
    return (level * (1 + 9 / epoch**1.3) + 1400 / samples) * math.exp(0.04 * rng.normal())


def evaluation_of(run_key, point, epoch, samples, rng, ema=2000, noise_seed=0) -> Evaluation:
    sampling = SamplingPoint(Choice.of("ancestral"), None, ema)
    value = score_of(point, epoch, rng, samples) * (1.15 if ema == 0 else 1.0)
    calls = samples * point["diffusion.steps"]
    scores = {
        "fd-digits": Score(value, samples, "e1" * 8),
        "kd-digits": Score(value / 900, samples, "e1" * 8, spread=value / 9000),
    }
    key = hex_of(run_key, epoch, ema, samples, noise_seed)
    return Evaluation(key, run_key, epoch, sampling, samples, noise_seed, scores, calls, calls / 2650, samples / 900)


def epochs_of(point, count, rng) -> tuple[EpochRecord, ...]:
    speed = 840.0 if point["model.channels"] == (16, 32, 64) else 1400.0
    return tuple(
        EpochRecord(e, 0.08 + 0.3 / e, e * IMAGES, speed, IMAGES / speed * (1 + 0.02 * rng.random()), 410.0)
        for e in range(1, count + 1)
    )


def draw(rng, order) -> dict:
    """A random point; the later runs keep to the better losses and processes, as a model-based search would."""
    late = order > 8
    return {
        "model.channels": [(8, 16, 32), (16, 32, 64)][rng.integers(2)],
        "diffusion.steps": int(rng.choice([5, 10, 15])),
        "diffusion.noise_process": str(rng.choice(list(PROCESS)[: 2 if late else 4])),
        "training.loss": str(rng.choice(list(LOSS)[: 3 if late else 6])),
        "training.batch_size": int(rng.choice([32, 64, 128, 256])),
        "training.normalization": [(-1.0, 1.0), (0.0, 1.0)][rng.integers(2)],
        "training.learning_rate": float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-3)))),
    }


def make_history(count=20, finalists=True, stopping=True, diverged=True, seed=7) -> StudyHistory:
    rng = np.random.default_rng(seed)
    runs = []
    points = [draw(rng, order) for order in range(1, count + 1)]
    level = {order: score_of(point, 1, np.random.default_rng(order), 1000) for order, point in enumerate(points, 1)}
    order_of = sorted((order for order in level if not (diverged and order == 4)), key=level.__getitem__)
    thirds = order_of[: max(1, round(count / 3))], order_of[: max(1, round(count / 6))]
    for order, point in enumerate(points, 1):
        settings, key = settings_of(point, 0), hex_of("search", order)
        if diverged and order == 4:
            outcome = Outcome(State.DIVERGED, "loss became NaN at epoch 2, step 31")
            kept = (evaluation_of(key, point, 1, 1000, rng),)
            kept = (dataclasses.replace(kept[0], scores={"fd-digits": Score(0.5, 1000, "e1" * 8)}),)  # tempting
            runs.append(
                RunHistory(key, settings, point, "search", order, outcome, epochs_of(point, 1, rng), kept, 0, 0)
            )
            continue
        sheets = [evaluation_of(key, point, epoch, 1000, rng) for epoch in MILESTONES]
        reach = 3 if not stopping or order in thirds[1] else 2 if order in thirds[0] else 1
        outcome = (
            Outcome(State.FINISHED) if reach == 3 else Outcome(State.STOPPED_EARLY, f"epoch {MILESTONES[reach - 1]}")
        )
        attempts = (Outcome(State.KILLED, "signal 9"),) if order == 6 else ()
        trained = epochs_of(point, MILESTONES[reach - 1], rng)
        reused = len(trained) if order == 2 else 0
        environment = {"host": "one", "device": "cpu"}
        runs.append(
            RunHistory(
                key,
                settings,
                point,
                "search",
                order,
                outcome,
                trained,
                tuple(sheets[:reach]),
                reused,
                reach if reused else 0,
                attempts,
                environment,
            )
        )
    if finalists:
        good = [run for run in runs if run.outcome.state is State.FINISHED]
        good.sort(key=lambda run: run.evaluations[-1].scores["fd-digits"].value)
        for parent in good[:2]:
            for repeat in range(1, 4):
                key, order = hex_of("final", parent.key, repeat), len(runs) + 1
                sheets = tuple(evaluation_of(key, parent.point, 9, 2000, rng, ema, repeat) for ema in (0, 2000, 8000))
                trained = epochs_of(parent.point, 9, rng)
                settings = settings_of(parent.point, repeat)
                runs.append(
                    RunHistory(
                        key,
                        settings,
                        parent.point,
                        "finalist",
                        order,
                        Outcome(State.FINISHED),
                        trained,
                        sheets,
                        0,
                        0,
                    )
                )
    bounds = (
        Bounds("fd-digits", 1000, 1.42, 912.0),
        Bounds("fd-digits", 2000, 0.73, 911.0),
        Bounds("kd-digits", 1000, 0.0001, 1.31),
    )
    facts = {"python": "3.11.9", "torch": "2.14.0", "device": "cpu", "git sha": "abc1234", "extractor digits": "e1" * 8}
    return StudyHistory(
        "mnist_unet",
        "fd-digits",
        "min",
        ("fd-digits", "kd-digits"),
        1000,
        AXES,
        MILESTONES,
        tuple(runs),
        bounds,
        TEXT,
        "diffsearch run search_spaces/mnist_unet.yaml",
        362.0,
        2,
        2,
        IMAGES,
        "the store (.diffsearch)",
        facts,
    )


@pytest.fixture
def history() -> StudyHistory:
    return make_history()


@pytest.fixture
def make():
    return make_history


def discs(count, seed=0) -> np.ndarray:
    """uint8 (count, 1, 28, 28): soft discs and rings, a stand-in for images."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28]
    centre, radius = rng.uniform(9, 19, size=(count, 2, 1, 1)), rng.uniform(3, 9, size=(count, 1, 1))
    distance = np.abs(np.hypot(y - centre[:, 0], x - centre[:, 1]) - radius)
    return (255 * np.exp(-((distance / 1.7) ** 2)))[:, None].astype(np.uint8)


@pytest.fixture(scope="session")
def study_with_pictures():
    """The whole study and its pictures, in a folder: grids for every finalist, settings to copy for every run."""

    def build(folder):
        history = make_history()
        tiles = discs(128, seed=1)[:, 0].reshape(8, 16, 28, 28).swapaxes(1, 2).reshape(8 * 28, 16 * 28)
        path = folder / "grid.png"
        Image.fromarray(tiles).save(path)
        samples = {e.key: path for run in history.runs if run.stage == "finalist" for e in run.evaluations}
        yaml_of = {run.key: f"training:\n  loss: {run.point['training.loss']}\n" for run in history.runs}
        return history, Pictures(samples, discs(200), yaml_of)

    return build
