"""A run small enough to train in a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.space.settings import Choice, RunSettings, TrainingSettings

TINY = Path(__file__).with_name("tiny.py")

SETTINGS = RunSettings(
    dataset=Choice.of("mnist-5k"),
    model=Choice.of("tiny"),
    noise_process=Choice.of("linear-noise"),
    steps=5,
    terminal="data-mean",
    training=TrainingSettings(
        loss="x0-l2",
        batch_size=16,
        normalization=(-1.0, 1.0),
        optimizer="adamw",
        learning_rate=1e-3,
        schedule="constant",
        warmup=0,
        weight_decay=0.01,
        gradient_clip=None,
        ema_half_life=(0, 20, 200),
        precision="fp32",
        deterministic=True,
        horizon=None,
    ),
    seed=0,
)


@pytest.fixture(scope="session", autouse=True)
def tiny_model() -> None:
    registry.use(TINY)


@pytest.fixture(scope="session")
def settings() -> Callable[..., RunSettings]:
    """Settings with changes: those of the run itself by name, those of training in `training`."""

    def change(training: dict[str, Any] | None = None, **run: Any) -> RunSettings:
        changed = dataclasses.replace(SETTINGS.training, **(training or {}))
        return dataclasses.replace(SETTINGS, training=changed, **run)

    return change


@pytest.fixture(scope="session")
def blobs() -> ImageData:
    """40 images (1, 8, 8) of one bright blob each, on black."""
    y, x = np.mgrid[:8, :8]
    centres = np.random.default_rng(0).uniform(2, 6, size=(40, 2))
    pictures = [255 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 2) for a, b in centres]
    return ImageData.of("blobs", np.stack(pictures)[:, None].astype(np.uint8))
