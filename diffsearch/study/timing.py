"""A few real steps, timed as a study's workers would take them: one thread each, side by side."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.scoring.features import Outputs, outputs
from diffsearch.scoring.metrics import extractor_of, reference_for, score_outputs
from diffsearch.space.metric_names import parse
from diffsearch.space.settings import RunSettings
from diffsearch.store import Store
from diffsearch.study.speed import Rates, Speeds, sort_of
from diffsearch.training.loop import start, train
from diffsearch.trial import SAMPLING_BATCH

T = TypeVar("T")
MOST_PROBES = 5  # points that are timed
TIMED_S = 0.4  # at least so long for each of its two timings, after a step that warms up
FEATURES_SCORED = 64  # images whose pass through an extractor is timed


def measure(speeds: Speeds, probes: Sequence[RunSettings], data: ImageData, workers: int) -> None:
    """Time a little of each, with the other cores as busy as the study's workers will keep them.

    On a GPU one process is timed alone, and a step counted as many times as runs share the GPU: an upper bound.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    crowd = 1.0 if device.type == "cpu" else max(1.0, workers / torch.cuda.device_count())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has
    try:
        with _others(workers - 1 if device.type == "cpu" else 0, probes, data):
            for probe in probes:
                speeds.known[sort_of(probe)] = probe, _time(probe, data, device, crowd)
    finally:
        torch.set_num_threads(threads)


def measure_scoring(metrics: Sequence[str], samples: int, data: ImageData, store: Store) -> float:
    """Seconds to score so many images by all metrics, their reference at hand; 0 where they can't be scored here."""
    rng, spent = np.random.default_rng(0), 0.0
    try:
        made: dict[str, Outputs] = {}
        for name in map(parse, metrics):
            images = rng.integers(0, 256, (min(samples, FEATURES_SCORED), *data.image_shape), np.uint8)
            against = reference_for(name, data, store.references)
            if name.extractor not in made:
                made[name.extractor], took_s = _second(outputs, extractor_of(name), images)
                spent += took_s * samples / len(images)
            many = _resized(made[name.extractor], max(samples, name.minimum_samples), rng)
            spent += _second(score_outputs, name, many, against)[1]
    except MetricError:
        return 0.0
    return spent


def _second(call: Callable[..., T], *given: Any) -> tuple[T, float]:
    """What a call gives, and the seconds of its second time: the first sets up."""
    call(*given)
    began = time.perf_counter()
    return call(*given), time.perf_counter() - began


def _resized(few: Outputs, count: int, rng: np.random.Generator) -> Outputs:
    """As many rows as are asked for, no two alike."""
    features = np.resize(few.features, (count, few.features.shape[1]))
    features = features + features.std() * rng.standard_normal(features.shape, np.float32)
    return Outputs(features, None if few.logits is None else np.resize(few.logits, (count, few.logits.shape[1])))


def _tame(settings: RunSettings) -> RunSettings:
    """The same work at a rate at which nothing diverges."""
    training = replace(settings.training, learning_rate=1e-5, schedule="constant", warmup=0, horizon=None)
    return replace(settings, training=training)


def _time(settings: RunSettings, data: ImageData, device: torch.device, crowd: float) -> Rates:
    batch = min(settings.training.batch_size, len(data.train))
    few = data.first(2 * batch)
    state = start(_tame(settings), "probe", few, device)
    epochs, images, spent = train(state, few, 1_000_000), 0, 0.0
    next(epochs)
    while spent < TIMED_S:
        began = time.perf_counter()
        next(epochs)
        spent, images = spent + time.perf_counter() - began, images + len(few.train)
    denoiser = state.denoiser(0)
    if denoiser.classes:
        denoiser = denoiser.given(torch.zeros(SAMPLING_BATCH, denoiser.classes))
    noise = torch.randn(SAMPLING_BATCH, *data.image_shape, device=device)
    calls, drawing_s = 0, 0.0
    with torch.inference_mode():
        denoiser.output(noise, denoiser.timesteps(None)[0])
        while drawing_s < TIMED_S:
            began = time.perf_counter()
            denoiser.output(noise, denoiser.timesteps(None)[0]).sum().item()  # waits for a GPU
            drawing_s, calls = drawing_s + time.perf_counter() - began, calls + 1
    return Rates(crowd * spent / images, crowd * drawing_s / (calls * SAMPLING_BATCH))


@contextlib.contextmanager
def _others(count: int, probes: Sequence[RunSettings], data: ImageData) -> Iterator[None]:
    """So many processes beside this one that train the same, as far as there are cores for them."""
    count = min(count, len(os.sched_getaffinity(0)) - 1)
    if count < 1 or not probes or "fork" not in multiprocessing.get_all_start_methods():
        yield
        return
    context = multiprocessing.get_context("fork")  # what is loaded is there at once; each has one thread from here on
    others = [
        context.Process(target=_keep_busy, args=(probes[i % len(probes)], data), daemon=True) for i in range(count)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: none is used there
        for other in others:
            other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.join()


def _keep_busy(settings: RunSettings, data: ImageData) -> None:
    """Train until this process is ended, or its parent is gone."""
    parent = os.getppid()
    few = data.first(2 * min(settings.training.batch_size, len(data.train)))
    for _ in train(start(_tame(settings), "busy", few, torch.device("cpu")), few, 1_000_000):
        if os.getppid() != parent:
            return
