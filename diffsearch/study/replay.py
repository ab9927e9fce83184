"""Replays a recorded table: a study's own search and stopping code, with recorded runs instead of training.

A replay is a study without a disk: its ledger and its search history are in memory, its store is what it simulated.
Each replay draws, for each point, with which of the recorded training seeds it is answered.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from diffsearch import registry
from diffsearch.errors import DataError
from diffsearch.space.axes import ends, grid, sampling_points, settings_at
from diffsearch.space.load import loads
from diffsearch.space.settings import Axis, Choices, FinalistSettings, Point, SamplingPoint, StudySpec, canonical
from diffsearch.study.conductor import Conductor
from diffsearch.study.identity import asks_hash
from diffsearch.study.journal import SearchJournal
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.study.recording import RecordedRun, Recording
from diffsearch.study.requests import Requests
from diffsearch.study.simulated import Costs, Moment, SimulatedStore, Simulation


@dataclass(frozen=True)
class Replays:
    """Studies on one table: the same search with different seeds.

    Args:
        spec: of the study, see `study`; its `seed` is that of the first replay.
        workers: simulated ones, at least 1.
    """

    recording: Recording
    spec: StudySpec
    workers: int = 1
    costs: Costs = field(default_factory=Costs)

    def run(self, seed: int) -> list[Moment]:
        """The trace of one replay."""
        simulation, conductor = self.begin(seed)
        return simulation.run(conductor)

    def begin(self, seed: int) -> tuple[Simulation, Conductor]:
        """A replay at its beginning, and who decides in it."""
        facts, spec = self.recording.facts, replace(self.spec, seed=seed)
        simulation = Simulation(Drawn(self, seed), SimulatedStore(self.costs.reuse), self.workers, self.costs)
        measured = {metric: facts.measures[metric] for metric in spec.evaluation.metrics}
        requests = Requests(spec, simulation.store, facts.content, Ledger(None), "replay", {}, measured)
        name = f"{spec.name}-{asks_hash(spec, facts.content)}"
        journal = SearchJournal(None, name, spec.axes, spec.fixed, spec.search.algorithm, spec.seed)
        return simulation, Conductor(requests, journal, facts.image_shape, lambda: simulation.now_s)

    @cached_property
    def points(self) -> int:
        """Of the space that is replayed."""
        return sum(1 for _ in grid(self.spec) or ())


@dataclass
class Drawn:
    """The recorded runs as one replay sees them."""

    replays: Replays
    seed: int

    def run(self, asked: Asked) -> RecordedRun:
        """One of its point's recorded seeds: drawn by the replay's seed, the next one for each further repeat."""
        runs = self.replays.recording.of(asked.settings)
        digest = hashlib.sha256(f"{self.seed}|{canonical(dict(asked.point))}".encode()).digest()
        return runs[(digest[0] + asked.settings.seed - self.seed) % len(runs)]

    def truth(self, asked: Asked, epoch: int, point: SamplingPoint) -> float:
        """The objective's mean over all recorded seeds."""
        found = (run.evaluations.get((epoch, point)) for run in self.replays.recording.of(asked.settings))
        objective = self.replays.spec.evaluation.objective
        return float(np.mean([each.scores[objective].value for each in found if each is not None]))


def study(recording: Recording, overrides: Sequence[str] = ()) -> StudySpec:
    """The recorded study on the largest sub-grid that is recorded whole, with overrides as `--set` takes them.

    They may choose among what was recorded (axis values, milestones, sampling points, metrics), and set the search and
    the budget. Repeats are 1 and finalists none unless they say otherwise.

    Raises:
        ConfigError: a mistake in an override.
        DataError: something is asked for that the table doesn't have, or a rule that can't be replayed.
    """
    given = {override.partition("=")[0].strip() for override in overrides}
    spec = loads(recording.facts.study, "the table's study", overrides)
    spec = replace(
        spec,
        repeats=spec.repeats if "repeats" in given else 1,
        search=replace(spec.search, finalists=FinalistSettings()),
    )
    if spec.search.stopping.name not in registry.stopping_rule:
        raise DataError(
            f"search.stopping: {spec.search.stopping.name} needs Ray; a replay knows {registry.stopping_rule.names()}."
        )
    lacking = set(spec.evaluation.metrics) - set(recording.facts.measures)
    if lacking:
        raise DataError(f"the table has no {', '.join(lacking)}. It has: {', '.join(recording.facts.measures)}.")
    return _restricted(spec, recording)


def _restricted(spec: StudySpec, recording: Recording) -> StudySpec:
    """The study on the values of its axes whose every combination is recorded."""
    points = grid(spec)
    if points is None:
        raise DataError("a replay searches the recorded points: an axis can't be a range.")
    gaps = [lacks for point in points if (lacks := _lacks(spec, recording, point))]
    while gaps:
        worst = _worst(spec, [point for point, _ in gaps])
        if worst is None:
            raise DataError(f"the table has no complete sub-grid of this study: {gaps[0][1]}.")
        spec = replace(spec, axes=tuple(_without(axis, *worst) for axis in spec.axes))
        gaps = [(point, why) for point, why in gaps if worst[1] != point.get(worst[0])]
    return spec


def _lacks(spec: StudySpec, recording: Recording, point: Point) -> tuple[Point, str] | None:
    """The point and what the table lacks of it; None where it has all that the study could ask for."""
    settings = settings_at(spec, point, 0)
    runs, sampled = recording.of(settings), sampling_points(spec, settings)
    if len(runs) < spec.repeats:
        return point, f"it has {len(runs)} of {spec.repeats} seeds of {canonical(dict(point))}"
    for run in runs:
        until = spec.max_epochs if run.diverged is None else run.diverged.details["epoch"] - 1
        for epoch in spec.milestones:
            for each in sampled:
                if epoch <= until and (epoch, each) not in run.evaluations:
                    known = sorted({e for e, _ in run.evaluations}), sorted({str(p) for _, p in run.evaluations})
                    return point, f"nothing at epoch {epoch}, {each}; it has epochs {known[0]}, samplings {known[1]}"
    return None


def _worst(spec: StudySpec, gaps: Sequence[Point]) -> tuple[str, object] | None:
    """(path, value): the axis value that lacks the greatest share of its points; None where none can be left out."""
    worst, most = None, 0
    for axis in spec.axes:
        values = ends(axis)
        for value in values if len(values) > 1 else ():
            lacking = len(values) * sum(point.get(axis.path) == value for point in gaps)
            if lacking > most:
                worst, most = (axis.path, value), lacking
    return worst


def _without(axis: Axis, path: str, value: object) -> Axis:
    if axis.path != path or not isinstance(axis.domain, Choices):
        return axis
    return replace(axis, domain=Choices(tuple(v for v in axis.domain.values if v != value)))


def replay_all(replays: Replays, table: Path, seeds: Sequence[int], jobs: int = 1) -> Iterator[list[Moment]]:
    """The traces of several seeds, in their order, over so many processes."""
    if jobs == 1:
        yield from map(replays.run, seeds)
        return
    context = multiprocessing.get_context("spawn")
    given = (table, replays.spec, replays.workers, replays.costs)
    with ProcessPoolExecutor(min(jobs, len(seeds)), context, _take, given) as pool:
        yield from pool.map(_run, seeds)


_taken: list[Replays] = []  # of a process of its own


def _take(table: Path, spec: StudySpec, workers: int, costs: Costs) -> None:
    _taken[:] = [Replays(Recording.read(table), spec, workers, costs)]


def _run(seed: int) -> list[Moment]:
    return _taken[0].run(seed)
