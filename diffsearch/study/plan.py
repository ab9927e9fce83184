"""What a study would cost before it begins: epochs and samples alone, with prefixes, with stopping; time and disk.

Time comes from what the store has of like runs, else from a few real steps on this machine just now, played through
with the study's rule, workers and budget (`forecast`). Disk comes from the size of the networks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median

from diffsearch.data.datasets import ImageData
from diffsearch.records import State
from diffsearch.space.axes import ends, finalist_points, grid_size, settings_at, walk
from diffsearch.space.settings import RunSettings, StudySpec
from diffsearch.store import Store
from diffsearch.study.budget import stamp_of
from diffsearch.study.forecast import Forecast, Game, Leg, Limits, foretell, rule_of
from diffsearch.study.identity import asks_hash
from diffsearch.study.ledger import Ledger
from diffsearch.study.requests import FRESH_SEEDS
from diffsearch.study.schedule import Schedule
from diffsearch.study.speed import Speeds, remember
from diffsearch.study.sweep import Calls, Sweep, plan_sweep, points_a_milestone, settled
from diffsearch.study.timing import MOST_PROBES, measure, measure_scoring
from diffsearch.training.memory import describe, resident_mb

PROBES = 3  # points of the space whose network is described
START_S = 19.5  # of a session until its first run trains, where none was measured: bounds, Ray, workers, their imports
AROUND_S = 17.0  # of the command, outside of its session: imports before it, the report after it
STEADY = ("random", "grid", "sequential")  # algorithms whose points don't get better as they go; all others' may


@dataclass(frozen=True, slots=True)
class Work:
    """An amount of computing."""

    epochs: float
    samples: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one worker beside the others: means over the points of the space."""

    images_per_s: float  # trained
    steps_per_s: float  # network calls of sampling, times images
    timed: int  # sorts of runs that were timed just now
    remembered: int  # sorts of runs whose speed the store has


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
    forecast: Forecast | None  # of what is left; None where nothing is
    workers: int
    disk_mb: float
    largest_mb: float  # device memory of the largest run's training, at least
    worker_mb: float  # resident memory of a process that trains it on the CPU, about
    sweep: Sweep | None = None  # where the sampling sweep is scored, and what each choice would cost
    calls: Mapping[str, float] = field(default_factory=dict)  # of the network, to sample the study, by that choice
    screen_samples: float = 0.0  # of `stopped`: drawn for the screen; 0 where there is none
    full: Work = Work(0, 0)  # of `stopped`: what a screen lets pass, in full
    refused: float = 0.0  # about which share of the space constraints refuse before it is trained

    @property
    def wall_s(self) -> float | None:
        """Seconds until the answer; None where no time was measured."""
        return self.forecast.wall_s if self.speed and self.forecast else None


def make_plan(spec: StudySpec, store: Store, data: ImageData, workers: int, *, calibrate: bool = True) -> Plan:
    """Count a study's work, and time a little of it.

    Args:
        workers: runs at once, for the estimate of wall time.
        calibrate: find out how fast this machine is: from the store, and by some seconds of training and sampling.
    """
    sweep = plan_sweep(spec, len(data.train))
    spec = settled(spec, len(data.train))
    schedule = Schedule(
        spec, store, data, Ledger.open(store.study(spec.name)), Speeds(data.image_shape, len(data.classes))
    )
    size = grid_size(spec)
    trainable = size if size is None else round(size * (1 - schedule.refused))
    asked = [n for n in (spec.search.runs, trainable) if n is not None]
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
    survivors = _survivors(spec, workers, count)
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
    stored, complete = _stored(schedule)
    start_s = median([each for of in _ledgers(store) for each in of.start.values()] or [START_S])
    speed = _calibrate(schedule, workers) if calibrate and not complete else None
    forecast = None if complete else _forecast(schedule, workers, runs, start_s, sure=speed is None)
    left = Work(0, 0) if complete else Work(stopped.epochs - stored.epochs, stopped.samples - stored.samples)
    if forecast is not None:
        left, count = Work(forecast.epochs, forecast.samples), round(forecast.runs)
        forecast = forecast if left.samples else None
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
        forecast=forecast,
        workers=workers,
        disk_mb=(count + finals.top * finals.repeats) * per_run * weights_mb,
        largest_mb=max(network.memory_mb for network in networks),
        worker_mb=resident_mb() + max(network.memory_mb for network in networks),
        sweep=sweep if spec.sampling_axes else None,
        calls={at: _all_calls(spec, each, survivors, count or 1) for at, each in sweep.calls.items()},
        screen_samples=count * expected * milestone_samples if screen else 0.0,
        full=full,
        refused=schedule.refused,
    )


def _all_calls(spec: StudySpec, calls: Calls, survivors: Sequence[float], runs: int) -> float:
    """Network calls of a study's sampling: of the search, of what its screen lets pass, and of the finalists."""
    finals, screen = spec.search.finalists, spec.evaluation.screen
    search = runs * sum(share * each for share, each in zip(survivors, calls.run, strict=True))
    in_full = screen.keep * search * spec.evaluation.samples / screen.samples if screen else 0.0
    return search + in_full + finals.top * finals.repeats * calls.finalist


def _calibrate(schedule: Schedule, workers: int) -> Speed:
    """Find out what work costs here: what the store doesn't tell is timed, at a few points that span the space."""
    data, speeds, settings = schedule.data, schedule.speeds, schedule.settings()
    scorings = schedule.scorings()
    remember(speeds, schedule.store, settings, scorings)
    remembered = len(speeds.known)
    measure(speeds, speeds.spread(settings, MOST_PROBES), data, workers)
    for metrics in scorings.keys() - speeds.scoring.keys():
        counts = sorted(scorings[metrics])
        speeds.scoring[metrics] = {n: measure_scoring(metrics, n, data, schedule.store) for n in counts}
    every = [speeds.rates(each) for each in settings]
    return Speed(
        images_per_s=1 / fmean(rates.s_per_image for rates in every),
        steps_per_s=1 / fmean(rates.s_per_call for rates in every),
        timed=len(speeds.known) - remembered,
        remembered=remembered,
    )


def _forecast(schedule: Schedule, workers: int, runs: int | None, start_s: float, *, sure: bool) -> Forecast | None:
    """Play what is left; without a calibration no time is known, so none of its limits either."""
    spec, game = schedule.spec, schedule.game(workers, runs, start_s)
    if sure:
        limits = replace(game.limits, wall_s=None, device_s=None)
        if limits == Limits():
            return None
        game = replace(game, limits=limits)
    return foretell(
        game,
        start_s=start_s,
        around_s=AROUND_S,
        learns=spec.search.algorithm.name not in STEADY,
        milestones=len(spec.milestones),
        seed=spec.seed,
        sure=sure,
    )


def _ledgers(store: Store) -> Iterator[Ledger]:
    return (Ledger.open(store.study(name)) for name in store.studies())


def _probes(spec: StudySpec) -> list[RunSettings]:
    rng = random.Random(spec.seed)
    drawn = [walk(spec.axes, spec.fixed, lambda axis: rng.choice(ends(axis))) for _ in range(PROBES)]
    return [settings_at(spec, point, spec.seed + FRESH_SEEDS - 1) for point in drawn]


def _survivors(spec: StudySpec, workers: int, count: int) -> Sequence[float]:
    """Share of the runs that trains towards each milestone, as the stopping rule is expected to leave it."""
    milestones, rule = len(spec.milestones), rule_of(spec.search.stopping)
    if rule is None or not count:
        return [1.0] * milestones
    whole = [Leg(train_s=1.0)] * milestones
    game = Game(lambda rng, number: whole, lambda rng: Leg(), workers, Limits(runs=count), rule, 0, spec.milestones)
    learns = spec.search.algorithm.name not in STEADY
    return foretell(game, start_s=0, around_s=0, learns=learns, milestones=milestones, sure=True).shares


def _sequential_runs(spec: StudySpec) -> int:
    """Runs of a coordinate search: each axis's values, those of the winners before it counted once."""
    values = [len(ends(axis)) for axis in spec.axes]
    return 1 + sum(count - 1 for count in values)


def _stored(schedule: Schedule) -> tuple[Work, bool]:
    """What the store has of what this study asked for, and whether the study has ended as it stands."""
    spec, store, data = schedule.spec, schedule.store, schedule.data
    folder = store.study(spec.name)
    if not folder.is_dir():
        return Work(0, 0), False
    ledger = Ledger.open(folder)
    asks = asks_hash(spec, data.content)
    epochs, samples, open_, search, refused, full = 0, 0, 0, 0, 0, 0
    for asked in ledger.of(asks):
        run = store.run(asked.run_key)
        trained = (record for record in run.epochs() if record.epoch <= asked.milestones[-1])
        epochs += len(list(trained)) if asked.stage != "full" else 0
        samples += sum(
            evaluation.samples
            for evaluation in run.evaluations().values()
            if (evaluation.samples, evaluation.noise_seed) == (asked.samples, asked.noise_seed)
        )
        end = ledger.end_of(asked)
        open_ += end is None
        search += asked.stage == "search"
        refused += end is not None and end.state is State.INFEASIBLE
        full += asked.stage == "full"
    size, sequential = grid_size(spec), spec.search.algorithm.name == "sequential"
    enough = search - refused >= (spec.search.runs or math.inf) or search >= (size or math.inf)
    over = ledger.search_ended.get(asks, {"by": "", "stamp": ""})
    spent = over["by"].startswith("budget.") and over["stamp"] == stamp_of(spec)
    finals = [asked for asked in ledger.of(asks) if asked.stage == "finalist"]
    complete = (
        search > 0 and not open_ and (full > 0 or spec.evaluation.screen is None) and (spent or sequential or enough)
    )
    repeated = bool(finals) and all(map(schedule.is_current, finals))
    return Work(epochs, samples), complete and (repeated or not spec.search.finalists.top)
