"""What a study would cost before it begins: epochs and samples alone, with prefixes, with stopping; time and disk.

Time comes from a few real steps on this machine just now, and is an estimate; disk from the size of the networks.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from diffsearch.data.datasets import ImageData
from diffsearch.space.axes import ends, finalist_points, grid_size, settings_at, walk
from diffsearch.space.settings import RunSettings, StudySpec
from diffsearch.store import Store
from diffsearch.study.identity import asks_hash
from diffsearch.study.ledger import Ledger
from diffsearch.study.requests import FRESH_SEEDS
from diffsearch.study.sweep import Calls, Sweep, plan_sweep, points_a_milestone, settled
from diffsearch.training.loop import start, train
from diffsearch.training.memory import describe
from diffsearch.trial import SAMPLING_BATCH

PROBES = 3  # points of the space that are timed
PROBE_IMAGES = 256  # trained on for the timing of one point


@dataclass(frozen=True, slots=True)
class Work:
    """An amount of computing."""

    epochs: float
    samples: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on one worker just now."""

    images_per_s: float  # trained
    steps_per_s: float  # network calls of sampling, times images


@dataclass(frozen=True, slots=True)
class Plan:
    """What `diffsearch plan` shows."""

    points: int | None  # of the training axes; None where one is a range
    runs: int | None  # that the search will ask for; None where nobody knows
    finalists: int
    alone: Work  # every milestone trained from scratch by itself
    prefixes: Work  # milestones as points along one run
    stopped: Work  # and with the stopping rule, as expected
    stored: Work  # in the store already, of what this study asked for
    left: Work
    speed: Speed | None
    training_s: float | None  # of the left work, over all workers
    sampling_s: float | None
    workers: int
    disk_mb: float
    largest_mb: float  # memory of the largest run's training
    sweep: Sweep | None = None  # where the sampling sweep is scored, and what each choice would cost
    calls: Mapping[str, float] = field(default_factory=dict)  # of the network, to sample the study, by that choice
    screen_samples: float = 0.0  # of `stopped`: drawn for the screen; 0 where there is none
    full: Work = Work(0, 0)  # of `stopped`: what a screen lets pass, in full

    @property
    def wall_s(self) -> float | None:
        if self.training_s is None or self.sampling_s is None:
            return None
        return (self.training_s + self.sampling_s) / max(1, self.workers)


def make_plan(spec: StudySpec, store: Store, data: ImageData, workers: int, *, calibrate: bool = True) -> Plan:
    """Count a study's work, and time a little of it.

    Args:
        workers: runs at once, for the estimate of wall time.
        calibrate: train and sample a few batches at three points of the space; seconds.
    """
    sweep = plan_sweep(spec, len(data.train))
    spec = settled(spec, len(data.train))
    size = grid_size(spec)
    asked = [n for n in (spec.search.runs, size) if n is not None]
    if spec.search.algorithm.name == "sequential":
        asked = [n for n in (spec.search.runs, _sequential_runs(spec)) if n is not None]
    runs = min(asked) * spec.repeats if asked else None
    count = runs or 0
    finals = spec.search.finalists
    probes = _probes(spec)
    screen = spec.evaluation.screen
    swept = points_a_milestone(spec, probes[0])
    milestone_samples = screen.samples if screen else spec.evaluation.samples
    finalist_samples = (finals.samples or spec.evaluation.samples) * len(finalist_points(spec, probes[0]))
    extra = Work(finals.top * finals.repeats * spec.max_epochs, finals.top * finals.repeats * finalist_samples)
    survivors = _survivors(spec)
    gaps = [after - before for before, after in zip((0, *spec.milestones), spec.milestones, strict=False)]
    expected = sum(share * points for share, points in zip(survivors, swept, strict=True))
    full = Work(0, 0)
    if screen and count:
        passed = max(math.ceil(screen.keep * count * expected), finals.top * spec.repeats)
        full = Work(0, passed * spec.evaluation.samples)
        extra = Work(extra.epochs, extra.samples + full.samples)
    every = count * sum(swept) * milestone_samples
    alone = Work(count * sum(spec.milestones) + extra.epochs, every + extra.samples)
    prefixes = Work(count * spec.max_epochs + extra.epochs, every + extra.samples)
    stopped = Work(
        count * sum(share * gap for share, gap in zip(survivors, gaps, strict=True)) + extra.epochs,
        count * expected * milestone_samples + extra.samples,
    )
    stored, complete = _stored(spec, store, data)
    left = Work(max(0.0, stopped.epochs - stored.epochs), max(0.0, stopped.samples - stored.samples))
    if complete:
        left = Work(0, 0)
    speed = measure_speed(probes, data) if calibrate and (left.epochs or left.samples) else None
    steps = sum(probe.steps for probe in probes) / len(probes)
    networks = [describe(probe, data.image_shape, len(data.classes)) for probe in probes]
    tracks = 1 + len(set(spec.fixed["training.ema_half_life"]) - {0})
    weights_mb = max(network.parameters for network in networks) * 4 * tracks / 2**20
    per_run = min(sum(survivors), {"last": 1, "best": 2}.get(spec.keep if not screen else "", math.inf)) + 1.5
    return Plan(
        points=size,
        runs=runs,
        finalists=finals.top * finals.repeats,
        alone=alone,
        prefixes=prefixes,
        stopped=stopped,
        stored=stored,
        left=left,
        speed=speed,
        training_s=left.epochs * len(data.train) / speed.images_per_s if speed else None,
        sampling_s=left.samples * steps / speed.steps_per_s if speed else None,
        workers=workers,
        disk_mb=(count + finals.top * finals.repeats) * per_run * weights_mb,
        largest_mb=max(network.memory_mb for network in networks),
        sweep=sweep if spec.sampling_axes else None,
        calls={at: _all_calls(spec, each, survivors, count or 1) for at, each in sweep.calls.items()},
        screen_samples=count * expected * milestone_samples if screen else 0.0,
        full=full,
    )


def _all_calls(spec: StudySpec, calls: Calls, survivors: Sequence[float], runs: int) -> float:
    """Network calls of a study's sampling: of the search, of what its screen lets pass, and of the finalists."""
    finals, screen = spec.search.finalists, spec.evaluation.screen
    search = runs * sum(share * each for share, each in zip(survivors, calls.run, strict=True))
    in_full = screen.keep * search * spec.evaluation.samples / screen.samples if screen else 0.0
    return search + in_full + finals.top * finals.repeats * calls.finalist


def measure_speed(probes: list[RunSettings], data: ImageData) -> Speed:
    """Train and sample a little at each probe, one thread as a worker has; harmonic means over the probes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    few = data.first(PROBE_IMAGES)
    train_s, sample_s = [], []
    try:
        for probe in probes:
            state = start(probe, "probe", few, torch.device("cpu"))
            began = time.perf_counter()
            record = next(iter(train(state, few, 1)))
            train_s.append((time.perf_counter() - began) / record.images_seen)
            denoiser = state.denoiser(0)
            if denoiser.classes:
                denoiser = denoiser.given(torch.zeros(min(SAMPLING_BATCH, 64), denoiser.classes))
            images = min(SAMPLING_BATCH, 64)
            short = denoiser.timesteps(None)[:4]  # each step costs the same
            began = time.perf_counter()
            with torch.inference_mode():
                for t in short:
                    denoiser.output(torch.randn(images, *data.image_shape), t)
            sample_s.append((time.perf_counter() - began) / (images * len(short)))
    finally:
        torch.set_num_threads(threads)
    return Speed(len(train_s) / sum(train_s), len(sample_s) / sum(sample_s))


def _probes(spec: StudySpec) -> list[RunSettings]:
    rng = random.Random(spec.seed)
    drawn = [walk(spec.axes, spec.fixed, lambda axis: rng.choice(ends(axis))) for _ in range(PROBES)]
    return [settings_at(spec, point, spec.seed + FRESH_SEEDS - 1) for point in drawn]


def _survivors(spec: StudySpec) -> list[float]:
    """Share of the runs that trains towards each milestone, as the stopping rule is expected to leave it."""
    rule = spec.search.stopping
    keep = {"asha": 1 / float(rule.kwargs.get("reduction", 3.0)), "median": 0.5}.get(rule.name, 1.0)
    return [keep**index for index in range(len(spec.milestones))]


def _sequential_runs(spec: StudySpec) -> int:
    """Runs of a coordinate search: each axis's values, those of the winners before it counted once."""
    values = [len(ends(axis)) for axis in spec.axes]
    return 1 + sum(count - 1 for count in values)


def _stored(spec: StudySpec, store: Store, data: ImageData) -> tuple[Work, bool]:
    """What the store has of what this study asked for, and whether the study has ended as it stands."""
    folder = store.study(spec.name)
    if not folder.is_dir():
        return Work(0, 0), False
    ledger = Ledger.open(folder)
    asks = asks_hash(spec, data.content)
    epochs, samples, open_, search, full = 0, 0, 0, 0, 0
    for asked in ledger.of(asks):
        run = store.run(asked.run_key)
        trained = (record for record in run.epochs() if record.epoch <= asked.milestones[-1])
        epochs += len(list(trained)) if asked.stage != "full" else 0
        samples += sum(
            evaluation.samples
            for evaluation in run.evaluations().values()
            if (evaluation.samples, evaluation.noise_seed) == (asked.samples, asked.noise_seed)
        )
        open_ += ledger.end_of(asked) is None
        search += asked.stage == "search"
        full += asked.stage == "full"
    wanted = spec.search.runs if spec.search.algorithm.name != "sequential" else None
    finals = sum(asked.stage == "finalist" for asked in ledger.of(asks))
    complete = (
        search > 0
        and not open_
        and (full > 0 or spec.evaluation.screen is None)
        and (wanted is None or search >= min(wanted, grid_size(spec) or wanted))
    )
    return Work(epochs, samples), complete and (finals > 0 or not spec.search.finalists.top)
