"""The runs that a study has ahead of it, each as legs with their cost; what the store answers costs nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from diffsearch.data.datasets import ImageData
from diffsearch.records import CUT, Outcome, State
from diffsearch.search.samplers import draw
from diffsearch.search.sequential import EPOCHS
from diffsearch.space.axes import grid, picked, points_at, settings_at, walk
from diffsearch.space.settings import (
    Choices,
    Point,
    RunSettings,
    SamplingPoint,
    StudySpec,
    canonical,
)
from diffsearch.store import Store
from diffsearch.study.budget import MOST_KEPT, Spending
from diffsearch.study.facts import environment
from diffsearch.study.forecast import Game, Leg, Limits, rule_of
from diffsearch.study.inherit import points_again
from diffsearch.study.ledger import Asked, Ledger, Stage
from diffsearch.study.requests import FRESH_SEEDS, Requests
from diffsearch.study.speed import Speeds, drawn
from diffsearch.study.sweep import network_calls
from diffsearch.trial import missing

DRAWN = 100  # points that stand for a space
MOST_GRID = 2000  # points of a grid that are looked up in the store
RUN_S, MILESTONE_S = 0.3, 0.3  # beside training, sampling, scoring: to begin a run; files and messages of a milestone


@dataclass
class Schedule:
    """The runs of a study.

    Args:
        ledger: the study's own; only read.
        speeds: what work costs here.
    """

    spec: StudySpec
    store: Store
    data: ImageData
    ledger: Ledger
    speeds: Speeds

    def __post_init__(self) -> None:
        data = self.data
        self._requests = Requests(
            self.spec,
            self.store,
            data.content,
            self.ledger,
            "plan",
            environment(),
            image_shape=data.image_shape,
            classes=len(data.classes),
            train_images=len(data.train),
        )

    # --- points -----------------------------------------------------------------------------------------------------

    @cached_property
    def drawn(self) -> list[Point]:
        """Points that stand for all that may be trained: at random, the same ones at each call."""
        return [point for point, refused in self._anywhere if not refused] or [point for point, _ in self._anywhere]

    @property
    def refused(self) -> float:
        """About which share of the space constraints refuse before it is trained."""
        return sum(refused for _, refused in self._anywhere) / DRAWN

    @cached_property
    def _anywhere(self) -> list[tuple[Point, bool]]:
        """Points of the whole space, and whether a constraint refuses them."""
        rng = random.Random(self.spec.seed)
        points = [walk(self.spec.axes, self.spec.fixed, lambda axis: draw(axis, rng)) for _ in range(DRAWN)]
        return [(point, self._requests.is_refused(point)) for point in points]

    @cached_property
    def known(self) -> list[Sequence[Leg]]:
        """What is left of each run that the search has asked for, or is known to ask for, in this order."""
        asks = self._requests.asks
        asked = [each for each in self.ledger.of(asks) if each.stage == "search"]
        seen = {canonical(dict(each.point)) for each in asked}
        found = [self._left_of(each) for each in asked if not self._was_refused(each)]
        again = [] if self._is_sequential else [proposal.point for proposal in points_again(self._requests)]
        again += self._grid if self.spec.search.algorithm.name == "grid" else []
        for point in again:
            if canonical(dict(point)) not in seen and not self._requests.is_refused(point):
                seen.add(canonical(dict(point)))
                for repeat in range(self.spec.repeats):
                    found.append(self._left_of(self._requests.search_run(point, repeat, None)))
        return found

    def _was_refused(self, asked: Asked) -> bool:
        """Whether it is known and was no run: a constraint refuses it."""
        outcome = self.ledger.end_of(asked)
        return outcome is not None and outcome.state is State.INFEASIBLE

    @property
    def _grid(self) -> list[Point]:
        return [point for _, point in zip(range(MOST_GRID), grid(self.spec) or (), strict=False)]

    @property
    def _is_sequential(self) -> bool:
        return self.spec.search.algorithm.name == "sequential"

    def settings(self) -> list[RunSettings]:
        """Of the points that stand for the space."""
        return [settings_at(self.spec, point, self.spec.seed + FRESH_SEEDS - 1) for point in self.drawn]

    # --- legs -------------------------------------------------------------------------------------------------------

    def legs(self, settings: RunSettings, milestones: Sequence[int]) -> tuple[Leg, ...]:
        """A run from its beginning, none of it in the store."""
        points = self._requests.searched(settings)
        only, legs = picked(self.spec, milestones, len(points)), []
        for before, epoch in zip((0, *milestones), milestones, strict=False):
            legs.append(self._leg(settings, epoch - before, points_at(points, only, epoch), "search"))
        return tuple(_longer(leg, RUN_S) if place == 0 else leg for place, leg in enumerate(legs))

    def finalist(self, settings: RunSettings) -> Leg:
        """A repetition of a finalist, to the last milestone."""
        points = self._requests.repeated(settings)
        return _longer(self._leg(settings, self.spec.max_epochs, points, "finalist"), RUN_S)

    def in_full(self, settings: RunSettings) -> Leg:
        """One evaluation that a screen let pass."""
        return _longer(self._leg(settings, 0, self._requests.searched(settings)[:1], "full"), RUN_S)

    def is_current(self, finalist: Asked) -> bool:
        """Whether a finalist was asked for as the study asks now; of several objectives the front chose its points."""
        points = self._requests.repeated(finalist.settings)
        alike = finalist.points == points or (self._requests.judge.several and set(finalist.points) <= set(points))
        return alike and finalist.samples == self._requests.scoring("finalist").samples

    def scorings(self) -> dict[tuple[str, ...], set[int]]:
        """Metrics → the sample counts at which the study scores by them."""
        found: dict[tuple[str, ...], set[int]] = {}
        stages: dict[Stage, bool] = {
            "search": True,
            "full": self.spec.evaluation.screen is not None,
            "finalist": self.spec.search.finalists.top > 0,
        }
        for scoring in (self._requests.scoring(stage) for stage, has in stages.items() if has):
            found.setdefault(scoring.metrics, set()).add(scoring.samples)
        return found

    def _leg(self, settings: RunSettings, epochs: int, points: Sequence[SamplingPoint], stage: Stage) -> Leg:
        scoring, samples = self._requests.scoring(stage), self._requests.scoring(stage).samples
        rates, images = self.speeds.rates(settings), epochs * len(self.data.train)
        calls = drawn(samples) * network_calls(points, settings)
        return Leg(
            epochs=epochs,
            images=images,
            samples=samples * len(points),
            train_s=images * rates.s_per_image,
            draw_s=calls * rates.s_per_call,
            score_s=len(points) * self.speeds.scoring_s(scoring.metrics, samples),
            other_s=MILESTONE_S,
        )

    def _left_of(self, asked: Asked) -> Sequence[Leg]:
        """What the store and the ledger leave of a run: nothing of one that has ended."""
        ended = self.ledger.end_of(asked)
        if ended is not None and not ended.by_machine and CUT not in ended.details:
            return [Leg()] * _milestones_of(asked, ended)
        folder = self.store.run(asked.run_key)
        if not folder.path.is_dir():
            return self.legs(asked.settings, asked.milestones)
        lacking = missing(folder, self._requests.request(asked))
        deepest = max((record.epoch for record in folder.epochs()), default=0)
        legs = []
        for before, epoch in zip((0, *asked.milestones), asked.milestones, strict=False):
            points = [point for at, point in lacking if at == epoch]
            epochs = max(0, epoch - max(before, deepest)) if points else 0
            legs.append(self._leg(asked.settings, epochs, points, asked.stage) if points else Leg())
        return legs

    # --- the game ---------------------------------------------------------------------------------------------------

    def game(self, workers: int, count: int | None, start_s: float) -> Game:
        """What a forecast plays.

        Args:
            count: runs that the search asks for in all, repeats included; None where no number ends it.
            start_s: working time before the first run trains.
        """
        spec, finals = self.spec, self.spec.search.finalists
        pool = [self.legs(settings, spec.milestones) for settings in self.settings()]
        repeated = [self.finalist(settings) for settings in self.settings()]
        screen, whole = spec.evaluation.screen, [self.in_full(settings) for settings in self.settings()]
        short, later = self._sequential_milestones()
        known = self.known

        def candidate(rng: random.Random, number: int) -> Sequence[Leg]:
            if number < len(known):
                return known[number]
            legs = rng.choice(pool)
            return legs[: later if number + 1 == count else short] if self._is_sequential else legs

        done = [each for each in self.ledger.of(self._requests.asks) if each.stage == "finalist"]
        ended = sum(self.ledger.end_of(each) is not None for each in done)
        return Game(
            candidate=candidate,
            finalist=lambda rng: rng.choice(repeated),
            workers=max(1, workers),
            limits=self._limits(count, start_s),
            rule=rule_of(spec.search.stopping),
            milestones=spec.milestones,
            finals=max(0, finals.top * finals.repeats - ended),
            batches=self._batches(),
            kept=MOST_KEPT,
            screen=None if screen is None else (screen.keep, screen.samples),
            full=None if screen is None else lambda rng: rng.choice(whole),
        )

    def _limits(self, count: int | None, start_s: float) -> Limits:
        """What is left of the budget."""
        budget, ledger = self.spec.budget, self.ledger
        wall = None if budget.wall_s is None else max(0.0, budget.wall_s - ledger.wall_s - start_s)
        device = None if budget.device_s is None else max(0.0, budget.device_s - ledger.device_s)
        images = budget.images
        if images is not None:
            images = max(0, images - Spending(self._requests, lambda: ledger.wall_s).images)
        patience = None if budget.no_improvement is None else budget.no_improvement * self.spec.repeats
        return Limits(count, wall, device, images, patience)

    # --- one axis after the other -----------------------------------------------------------------------------------

    def _sequential_milestones(self) -> tuple[int, int]:
        """Milestones of a run before the epochs are tuned, and of the run that tunes them."""
        every = len(self.spec.milestones)
        start: Any = self.spec.search.algorithm.kwargs.get("start") or {}
        begins = start.get(EPOCHS) if self._is_sequential else None
        return (self.spec.milestones.index(begins) + 1 if begins in self.spec.milestones else every), every

    def _batches(self) -> tuple[int, ...]:
        """Runs side by side at each axis of a coordinate search: the values that the one before didn't settle."""
        if not self._is_sequential:
            return ()
        sizes = [len(axis.domain.values) for axis in self.spec.axes if isinstance(axis.domain, Choices)]
        return tuple(size - (place > 0) for place, size in enumerate(sizes) if size - (place > 0)) or (1,)


def _milestones_of(asked: Asked, ended: Outcome) -> int:
    """Milestones that a run came to."""
    last = ended.details.get("epoch", asked.milestones[-1])
    return max(1, sum(epoch <= last for epoch in asked.milestones))


def _longer(leg: Leg, seconds: float) -> Leg:
    return replace(leg, other_s=leg.other_s + seconds)
