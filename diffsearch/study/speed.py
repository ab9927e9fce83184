"""How fast a study's runs train, sample and score here: from what the store has of runs like them, else a few steps.

A run is *like* another where all that its speed depends on is equal (`Sort`). What was never measured is told from what
was: seconds of an optimiser step as a sum, with coefficients ≥ 0, of a constant, the network's parameters (optimiser
and averages), and for each image of the batch its operations and what autograd keeps of it (least squares of relative
errors). So a handful of timed points carries over to a whole space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TypeAlias

import numpy as np
from scipy.optimize import nnls

from diffsearch.records import Evaluation
from diffsearch.space.settings import RunSettings, canonical
from diffsearch.store import RunFolder, Store
from diffsearch.study.facts import device_name
from diffsearch.training.memory import Description, describe
from diffsearch.trial import SAMPLING_BATCH

FEWEST_FOR_A_FIT = 3
LEAST_REMEMBERED_S = 0.2  # of training or sampling, for a run's own speed to count

Sort: TypeAlias = str


def sort_of(settings: RunSettings) -> Sort:
    """All that the speed of a run depends on. T, loss, noise process and learning rate are not in it."""
    training = settings.training
    size = settings.dataset.kwargs.get("size")
    return canonical(
        [
            (settings.dataset.name, size, settings.model, settings.time),
            (training.batch_size, training.precision, training.deterministic, training.optimizer),
            (training.conditioning, training.learned_variance, training.augmentation, len(training.ema_half_life)),
        ]
    )


def drawn(samples: int) -> int:
    """Images that are computed for so many samples: whole batches, of which the last is cut off."""
    return math.ceil(samples / SAMPLING_BATCH) * SAMPLING_BATCH


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one sort of run on one worker, all workers being busy."""

    s_per_image: float  # trained
    s_per_call: float  # of the network in sampling, for one image that is computed


NOMINAL = Rates(1e-3, 3e-4)


@dataclass
class Speeds:
    """What was measured, and what follows for runs that were not.

    Args:
        shape: of the images, (C, H, W).
        classes: of the data set.
        known: sort → (settings of one such run, rates).
        scoring: metrics → images → seconds to score them by these.
    """

    shape: tuple[int, int, int]
    classes: int
    known: dict[Sort, tuple[RunSettings, Rates]] = field(default_factory=dict)
    scoring: dict[tuple[str, ...], dict[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._described: dict[Sort, Description] = {}

    def rates(self, settings: RunSettings) -> Rates:
        """Measured, or as the fit says; nominal where nothing was measured."""
        if not self.known:
            return NOMINAL
        sort = sort_of(settings)
        if sort in self.known:
            return self.known[sort][1]
        step, call = self._fits
        batch = settings.training.batch_size
        return Rates(float(self._step_features(settings) @ step) / batch, float(self._call_features(settings) @ call))

    def scoring_s(self, metrics: Sequence[str], samples: int) -> float:
        """Seconds to score so many images: straight lines between those measured, proportional beyond the largest."""
        known = self.scoring.get(tuple(metrics), {})
        counts = sorted(known)
        if not counts:
            return 0.0
        if samples > counts[-1]:
            return known[counts[-1]] * samples / counts[-1]
        return float(np.interp(samples, counts, [known[count] for count in counts]))

    def spread(self, settings: Sequence[RunSettings], most: int) -> list[RunSettings]:
        """At most so many of these, of sorts that aren't known, from the cheapest to the dearest."""
        unknown = {sort_of(each): each for each in settings if sort_of(each) not in self.known}
        if len(unknown) > most:
            ordered = sorted(unknown.values(), key=lambda each: float(self._step_features(each)[2:].sum()))
            places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
            return [ordered[place] for place in dict.fromkeys(places.tolist())]
        return list(unknown.values())

    @cached_property
    def _fits(self) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of a step's and of a call's features."""
        rows = list(self.known.values())
        steps = [(self._step_features(s), rates.s_per_image * s.training.batch_size) for s, rates in rows]
        calls = [(self._call_features(s), rates.s_per_call) for s, rates in rows]
        return fit(steps), fit(calls)

    def _step_features(self, settings: RunSettings) -> np.ndarray:
        """(4,) of one optimiser step, each near 1 for a small network."""
        found, batch = self._describe(settings), settings.training.batch_size
        state = found.parameters * (3 + len(settings.training.ema_half_life)) / 1e5
        return np.array([1.0, state, batch * found.flops / 1e9, found.activation_mb / 10])

    def _call_features(self, settings: RunSettings) -> np.ndarray:
        """(3,) of one network call of sampling, for one image."""
        found, batch = self._describe(settings), settings.training.batch_size
        return np.array([1 / SAMPLING_BATCH, found.flops / 1e9, found.activation_mb / batch])

    def _describe(self, settings: RunSettings) -> Description:
        sort = sort_of(settings)
        if sort not in self._described:
            self._described[sort] = describe(settings, self.shape, self.classes)
        return self._described[sort]


def fit(rows: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    """Coefficients ≥ 0 that tell seconds from features with the least relative error.

    With too few rows the last feature alone is scaled, which tells networks of one make apart.
    """
    features = np.array([row for row, _ in rows]) / np.array([[seconds] for _, seconds in rows])
    if len(rows) < FEWEST_FOR_A_FIT:
        found = np.zeros(features.shape[1])
        found[-1] = median(1 / row for row in features[:, -1])
        return found
    return np.asarray(nnls(features, np.ones(len(rows)))[0])


# --- what the store remembers -------------------------------------------------------------------------------------


def remember(speeds: Speeds, store: Store, wanted: Sequence[RunSettings], metrics: Iterable[tuple[str, ...]]) -> None:
    """Take up what runs of the wanted sorts took on this same device, and their scoring by each of these metrics."""
    sorts, here = {sort_of(each) for each in wanted}, device_name()
    found: dict[Sort, list[tuple[RunSettings, Rates]]] = {}
    scored: list[Evaluation] = []
    for folder in map(store.run, store.keys()):
        header = folder.header()
        if header["environment"].get("device") != here:
            continue
        settings = RunSettings.from_json(header["settings"])
        if sort_of(settings) in sorts:
            sheets = list(folder.evaluations().values())
            rates = _rates_of(folder, sheets)
            found.setdefault(sort_of(settings), []).extend([(settings, rates)] if rates else [])
            scored += sheets
    for sort, runs in found.items():
        if runs:
            train_s, call_s = (median(getattr(r, name) for _, r in runs) for name in ("s_per_image", "s_per_call"))
            speeds.known[sort] = runs[0][0], Rates(train_s, call_s)
    for each in metrics:
        took: dict[int, list[float]] = {}
        for sheet in scored:
            if set(sheet.scores) == set(each):
                took.setdefault(sheet.samples, []).append(sheet.scoring_s)
        if took:
            speeds.scoring[each] = {samples: median(seconds) for samples, seconds in took.items()}


def _rates_of(folder: RunFolder, sheets: Sequence[Evaluation]) -> Rates | None:
    epochs = folder.epochs()
    trained_s, drawn_s = sum(record.wall_s for record in epochs), sum(sheet.sampling_s for sheet in sheets)
    if min(trained_s, drawn_s) < LEAST_REMEMBERED_S:
        return None
    images = sum(record.images_seen / record.epoch for record in epochs)
    calls = sum(sheet.network_calls * drawn(sheet.samples) / sheet.samples for sheet in sheets)
    return Rates(trained_s / images, drawn_s / calls)
