"""What a study will take and what its budget will buy, told by playing it through: its rule, its workers, its limits.

Costs are given; scores are drawn. A rule's survivors depend on scores through their order alone, and on the order in
which runs come: about 1/reduction of each rung once many have come, but more of those that come first, which have few
to be compared with, and more where a search finds better points as it goes. So a study with a stopping rule is played
twice over many seeds, once with points that don't improve and once with points that do, and its forecast is an
interval; without a rule, the plays differ in the points that are drawn and in nothing else.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from diffsearch import registry
from diffsearch.search.stopping import Rule, Rung
from diffsearch.space.settings import Choice

PLAYS = 40  # of each kind, fewer where a study is long
MOST_RUNS = 20_000  # of a search that no limit ends
MOST_EVENTS = 10_000  # milestones over all plays
LIKENESS = 0.8  # correlation of a run's scores at two milestones
IMPROVEMENT = 3.0  # of the points of a search that learns, over the whole study, in standard deviations of a point
TAILS = 0.05  # of the plays, left out at either end of the interval
ERROR = 0.15  # relative, of the costs themselves, start and report among them: so much wider an interval is either way


@dataclass(frozen=True, slots=True)
class Leg:
    """A run from one milestone to the next, its evaluations there included. Seconds of one worker."""

    epochs: int = 0
    images: int = 0  # trained
    samples: int = 0
    train_s: float = 0.0
    draw_s: float = 0.0
    score_s: float = 0.0
    other_s: float = 0.0  # files, messages

    @property
    def seconds(self) -> float:
        return self.train_s + self.draw_s + self.score_s + self.other_s


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the search; None where there is none."""

    runs: int | None = None
    wall_s: float | None = None
    device_s: float | None = None  # of all workers
    images: int | None = None
    no_improvement: int | None = None


@dataclass
class Play:
    """One course of a study."""

    wall_s: float = 0.0
    runs: int = 0  # of the search
    by: str = ""  # the limit that ended the search
    busy: dict[str, float] = field(default_factory=dict)  # "epochs", "images", "samples", "train_s", ... over all runs
    reached: dict[int, int] = field(default_factory=dict)  # milestone's place → runs of the search that came there

    def take(self, leg: Leg) -> None:
        for name in ("epochs", "images", "samples", "train_s", "draw_s", "score_s", "other_s"):
            self.busy[name] = self.busy.get(name, 0.0) + getattr(leg, name)


@dataclass(frozen=True, slots=True)
class Game:
    """What is played.

    Args:
        candidate: (random numbers, how many came before) → the legs of the next run of the search.
        finalist: random numbers → the one leg of a finalist.
        batches: runs of the search that must all have ended before others begin, as an axis of a coordinate search;
            () : none.
        milestones: epochs of the legs' ends.
        full: random numbers → an evaluation that a screen let pass; None: there is no screen.
        screen: the share of the search's evaluations that pass, and the samples of each of those.
        finals: number of finalists.
        rule: None where runs aren't stopped.
    """

    candidate: Callable[[random.Random, int], Sequence[Leg]]
    finalist: Callable[[random.Random], Leg]
    workers: int
    limits: Limits
    rule: Rule | None
    finals: int
    milestones: tuple[int, ...] = (1, 2, 3)
    batches: tuple[int, ...] = ()
    full: Callable[[random.Random], Leg] | None = None
    screen: tuple[float, int] | None = None
    kept: float = 0.5  # of a limit at most, for the finals

    def play(self, rng: random.Random, improvement: float = 0.0) -> Play:
        """Play it through once.

        Args:
            improvement: of points over the whole search, in standard deviations.
        """
        return _Course(self, rng, improvement).run()


@dataclass(slots=True)
class _Run:
    legs: Sequence[Leg]
    quality: float
    curve: dict[int, float] = field(default_factory=dict)


class _Course:
    def __init__(self, game: Game, rng: random.Random, improvement: float) -> None:
        self._game, self._rng, self._improvement = game, rng, improvement
        self._play, self._curves = Play(), list[dict[int, float]]()  # milestone → score, of every run so far
        self._best, self._without, self._ahead, self._images = math.inf, 0, 0, 0
        self._ending = game.finalist(rng) if game.finals else Leg()  # what one finalist is expected to be
        self._order = itertools.count()
        self._events: list[tuple[float, int, int, _Run]] = []  # (end of a leg, -, its place, run)
        self._barriers = list(itertools.accumulate(game.batches))

    def run(self) -> Play:
        now, free = 0.0, self._game.workers
        while True:
            while free and self._begins(now):
                free -= 1
            if not self._events:
                break
            now, _, place, run = heapq.heappop(self._events)
            if not self._goes_on(now, place, run):
                free += 1
        self._play.wall_s = now + self._finals_s()
        return self._play

    # --- the search ---

    def _begins(self, now: float) -> bool:
        """Let one more run begin, if a limit allows it."""
        play, limits = self._play, self._game.limits
        if play.runs >= (MOST_RUNS if limits.runs is None else limits.runs):
            play.by = play.by or "runs"
            return False
        if by := self._used_up(now):
            play.by = play.by or by
            return False
        if self._events and any(play.runs == barrier for barrier in self._barriers):
            return False
        legs = list(self._game.candidate(self._rng, play.runs))
        images = sum(leg.images for leg in legs)
        out = limits.images is not None and self._images + self._ahead + images > limits.images - self._kept(
            limits.images, self._game.finals * self._ending.images
        )
        tired = limits.no_improvement is not None and self._without >= limits.no_improvement
        if out or tired:
            play.by = play.by if self._events else play.by or ("images" if out else "no_improvement")
            return False
        share = play.runs / max(1, (limits.runs or 100) - 1)
        run = _Run(legs, self._rng.gauss(0, 1) - self._improvement * min(1.0, share))
        self._curves.append(run.curve)
        play.runs += 1
        self._ahead += images
        heapq.heappush(self._events, (now + legs[0].seconds, next(self._order), 0, run))
        return True

    def _goes_on(self, now: float, place: int, run: _Run) -> bool:
        """Take the end of a leg; whether its run has another."""
        leg, play, last = run.legs[place], self._play, place == len(run.legs) - 1
        play.take(leg)
        play.reached[place] = play.reached.get(place, 0) + 1
        self._ahead, self._images = self._ahead - leg.images, self._images + leg.images
        noise = math.sqrt(1 - LIKENESS**2) * self._rng.gauss(0, 1)
        score = LIKENESS * run.quality + noise - 100 * place  # a later milestone is a better one
        others = [curve for curve in self._curves if curve is not run.curve]
        epoch, ahead = self._game.milestones[place], self._game.milestones[place + 1 : len(run.legs)]
        run.curve[epoch] = score
        stops = not last and self._game.rule is not None and self._game.rule(Rung(epoch, run.curve, ahead, others))
        if last or stops or self._used_up(now):
            self._ahead -= sum(leg.images for leg in run.legs[place + 1 :])
            self._without = 0 if score < self._best else self._without + 1
            self._best = min(self._best, score)
            return False
        heapq.heappush(self._events, (now + run.legs[place + 1].seconds, next(self._order), place + 1, run))
        return True

    # --- limits and finals ---

    def _used_up(self, now: float) -> str:
        limits, one_s = self._game.limits, self._ending.seconds
        finals, workers = self._game.finals, self._game.workers
        if limits.wall_s is not None:
            kept = self._kept(limits.wall_s, math.ceil(finals / workers) * one_s)
            if now >= limits.wall_s - kept:
                return "wall"
        if limits.device_s is not None and now * workers >= limits.device_s - self._kept(
            limits.device_s, finals * one_s
        ):
            return "device_hours"
        return ""

    def _kept(self, limit: float, wanted: float) -> float:
        return min(limit * self._game.kept, wanted)

    def _finals_s(self) -> float:
        """Time of what comes after the search: what a screen let pass, scored in full, and then the finals."""
        game, passed_s = self._game, 0.0
        if game.screen is not None and game.full is not None:
            keep, samples = game.screen
            passed_s = self._side_by_side(game.full, math.ceil(keep * self._play.busy.get("samples", 0.0) / samples))
        return passed_s + self._side_by_side(game.finalist, game.finals if self._play.runs else 0)

    def _side_by_side(self, leg_of: Callable[[random.Random], Leg], count: int) -> float:
        """Time of so many, each on the first worker that is free."""
        free = [0.0] * max(1, self._game.workers)
        for _ in range(count):
            leg = leg_of(self._rng)
            self._play.take(leg)
            heapq.heappush(free, heapq.heappop(free) + leg.seconds)
        return max(free)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of a study as it stands, from now on; work that the store answers left out."""

    wall_s: float
    low_s: float  # equal to `wall_s` where nothing is stopped
    high_s: float
    start_s: float  # of `wall_s`: before the first run trains
    around_s: float  # and outside of the study's own time: imports, the report
    runs: float  # of the search that will end
    runs_low: int
    runs_high: int
    ended_by: str  # the limit that most plays end by: "runs", "wall", ...
    train_s: float  # busy seconds of all workers together
    draw_s: float
    score_s: float
    epochs: float
    images: float
    samples: float
    shares: tuple[float, ...]  # of the search's runs that come to each milestone


def foretell(
    game: Game, *, start_s: float, around_s: float, learns: bool, milestones: int, seed: int = 0, sure: bool = False
) -> Forecast:
    """Play a game many times.

    Args:
        start_s: of the study's time, before the first run trains.
        around_s: outside of its time.
        learns: whether the search's points may get better as it goes.
        sure: costs are counts and have no error.
    """
    first = game.play(random.Random(seed))
    events = max(1, sum(first.reached.values()))
    count = max(4, min(PLAYS, MOST_EVENTS // events))
    kinds = (0.0, IMPROVEMENT) if learns and game.rule is not None else (0.0,)
    plays = [game.play(random.Random(f"{seed}-{kind}-{number}"), kind) for kind in kinds for number in range(count)]
    walls = sorted(play.wall_s for play in plays)
    out = int(TAILS * len(walls))
    wall, error = median(walls), 0.0 if sure else ERROR
    low, high = (walls[out], walls[-1 - out]) if game.rule is not None else (wall, wall)
    widen = (1 / (1 + error), 1 + error) if game.rule is not None else (1.0, 1.0)
    runs = sorted(play.runs for play in plays)
    mean = {name: fmean(play.busy.get(name, 0.0) for play in plays) for name in plays[0].busy} if plays[0].busy else {}
    beside = start_s + around_s
    by = [play.by for play in plays]
    return Forecast(
        wall_s=wall + beside,
        low_s=(low + beside) * widen[0],
        high_s=(high + beside) * widen[1],
        start_s=start_s,
        around_s=around_s,
        runs=fmean(runs),
        runs_low=runs[out],
        runs_high=runs[-1 - out],
        ended_by=max(set(by), key=by.count),
        train_s=mean.get("train_s", 0.0),
        draw_s=mean.get("draw_s", 0.0),
        score_s=mean.get("score_s", 0.0),
        epochs=mean.get("epochs", 0.0),
        images=mean.get("images", 0.0),
        samples=mean.get("samples", 0.0),
        shares=tuple(
            fmean(play.reached.get(place, 0) / play.runs if play.runs else 0.0 for play in plays)
            for place in range(milestones)
        ),
    )


def rule_of(stopping: Choice) -> Rule | None:
    """The rule to play by; None for `none` and for schedulers of Ray's, which can't be asked."""
    if stopping.name == "none" or stopping.name not in registry.stopping_rule:
        return None
    return registry.stopping_rule.build(stopping.name, **stopping.kwargs)  # type: ignore[no-any-return]
