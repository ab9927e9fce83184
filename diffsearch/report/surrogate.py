"""A forest over a study's scores: what it expects of points that were not tried, and whether it can be believed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffsearch.records import Evaluation, RunHistory, State, StudyHistory
from diffsearch.report.axes import is_numeric
from diffsearch.report.ranks import Ranked, point_key, rankable, sign
from diffsearch.space.axes import grid, grid_size, walk
from diffsearch.space.settings import (
    Axis,
    Choice,
    Choices,
    Integers,
    LogUniform,
    Point,
    StudySpec,
    canonical,
    choice_from_json,
    to_value,
)

CANDIDATES = 2048  # points of the space that are looked at; all of them where it has no more
TREES = 64
SMALL = 4  # trees of a small forest
FOLDS = 5
_ABSENT = -1.0  # of a column in 0 to 1: where an axis doesn't exist
_FAILURES = frozenset({State.DIVERGED, State.FAILED, State.OUT_OF_MEMORY})

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Skill:
    """How well points are predicted that the forest did not see, against the mean of all others."""

    gain: float  # share of that mean's squared error that the forest saves; < 0: it is worse
    p: float  # Wilcoxon's signed ranks over points, one-sided: that it saves anything
    points: int


@dataclass(frozen=True, slots=True)
class Expectation:
    """Candidates and what the forest expects of each at the last milestone."""

    points: tuple[Point, ...]  # not scored there yet
    improvement: Floats  # (N,) of the score's logarithm where it is logarithmic; ≥ 0
    logarithmic: bool


def value_of(plain: Any) -> Any:
    """An axis value from a history, which may be JSON's, as a study file's axes have it."""
    if isinstance(plain, Mapping) and "name" in plain:
        return choice_from_json(plain)
    return plain if isinstance(plain, Choice) else to_value(plain)


def comparable(history: StudyHistory) -> list[Ranked]:
    """The search's ranked runs, and the finalists where they were scored on as many samples by the same extractor."""
    search = rankable(history)
    measure = {(s.samples, s.scores[history.objective].extractor) for _, sheets in search for s in sheets}
    finals = []
    for run, sheets in rankable(history, "finalist"):
        alike = tuple(s for s in sheets if (s.samples, s.scores[history.objective].extractor) in measure)
        finals += [(run, alike)] if alike else []
    return [*search, *finals]


class Surrogate:
    """Random forest of the score at the last milestone over the training axes, as in SMAC (Hutter et al. 2011).

    Scores are their logarithm where all are positive, and low is good. A run counts once, with its best sampling point
    at its deepest milestone, carried to the last one by the mean step of the runs that went on: as if all curves were
    parallel, which is rough. A forest expects nothing beyond the scores that it saw, and takes an axis that doesn't
    exist at a point for a value of its own.

    Args:
        spec: whose axes the columns are.
        ranked: runs with evaluations that may be compared, at least one.
    """

    def __init__(self, history: StudyHistory, spec: StudySpec, ranked: Sequence[Ranked]) -> None:
        self._history, self._spec = history, spec
        self._columns = [_Column.of(axis) for axis in spec.axes]
        self.logarithmic = all(s.scores[history.objective].value > 0 for _, sheets in ranked for s in sheets)
        self._target = np.array(carried([self._curve(sheets) for _, sheets in ranked], history.milestones))
        self._rows = self._encode(run.point for run, _ in ranked)
        names: dict[str, int] = {}
        self._group = np.array([names.setdefault(point_key(run), len(names)) for run, _ in ranked])
        self._forest = _forest().fit(self._rows, self._target)

    def _curve(self, sheets: Sequence[Evaluation]) -> dict[int, float]:
        """Epoch → best score there, low is good."""
        found: dict[int, float] = {}
        for sheet in sheets:
            score = sheet.scores[self._history.objective].value
            low = sign(self._history) * (math.log(score) if self.logarithmic else score)
            found[sheet.epoch] = min(low, found.get(sheet.epoch, low))
        return found

    def _encode(self, points: Iterable[Point]) -> Floats:
        return np.array([[cell for column in self._columns for cell in column.cells(point)] for point in points])

    def skill(self) -> Skill | None:
        """Points left out, a fifth at a time with all their seeds; None with fewer than two for each part."""
        from scipy import stats
        from sklearn.model_selection import GroupKFold

        count = int(self._group.max()) + 1
        if count < 2 * FOLDS:
            return None
        errors = np.zeros((2, len(self._target)))
        for train, test in GroupKFold(FOLDS).split(self._rows, groups=self._group):
            forest = _forest(TREES // 2).fit(self._rows[train], self._target[train])
            errors[0, test] = self._target[test] - self._target[train].mean()
            errors[1, test] = self._target[test] - forest.predict(self._rows[test])
        plain, modelled = (np.bincount(self._group, e**2) / np.bincount(self._group) for e in errors)
        if not plain.any():
            return None
        p = float(stats.wilcoxon(plain - modelled, alternative="greater").pvalue)
        return Skill(float(1 - modelled.sum() / plain.sum()), p, count)

    def expectation(self) -> Expectation:
        """Expected improvement (Jones et al. 1998) of what was not scored at the last milestone.

        It is over the best that the forest expects of a scored point, not over the luckiest score. The spread is that
        between small forests: single trees differ mostly by the noise that each learned by heart, and their spread
        draws a search to where scores are bad. All is multiplied by how sure a second forest is that the run doesn't
        fail, where some did.
        """
        last = self._history.milestones[-1]
        done = {point_key(run) for run, sheets in rankable(self._history) if any(s.epoch == last for s in sheets)}
        points = tuple(point for point in candidates(self._spec) if canonical(dict(point)) not in done)
        if not points:
            return Expectation((), np.zeros(0), self.logarithmic)
        rows = self._encode(points)
        trees = np.array([tree.predict(rows) for tree in self._forest.estimators_])
        ahead = float(self._forest.predict(self._rows).min()) - trees.mean(axis=0)
        deviation = np.maximum(trees.reshape(TREES // SMALL, SMALL, -1).mean(axis=1).std(axis=0), 1e-12)
        gain = expected_improvement(ahead, deviation)
        return Expectation(points, gain * self._survival(rows), self.logarithmic)

    def _survival(self, rows: Floats) -> Floats:
        """(N,) how sure a forest over the runs' ends is that a run at a point ends well."""
        from sklearn.ensemble import RandomForestClassifier

        runs = [run for run in self._history.runs if run.outcome.ok or _is_failure(run)]
        ended_well = [run.outcome.ok for run in runs]
        if all(ended_well):
            return np.ones(len(rows))
        forest = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=0)
        forest.fit(self._encode(run.point for run in runs), ended_well)
        found: Floats = forest.predict_proba(rows)[:, -1]  # False < True
        return found


def expected_improvement(ahead: Floats, deviation: Floats) -> Floats:
    """E max(X, 0) of normal X with mean `ahead` and that standard deviation, > 0 (Jones et al. 1998, eq. 15)."""
    from scipy import stats

    z = ahead / deviation
    gain: Floats = np.maximum(ahead * stats.norm.cdf(z) + deviation * stats.norm.pdf(z), 0.0)
    return gain


def carried(curves: Sequence[Mapping[int, float]], milestones: Sequence[int]) -> list[float]:
    """Each curve's last value, and the mean steps from there to the last milestone."""
    ahead = dict.fromkeys(milestones, 0.0)
    for here, there in reversed(list(itertools.pairwise(milestones))):
        steps = [curve[there] - curve[here] for curve in curves if here in curve and there in curve]
        ahead[here] = ahead[there] + (math.fsum(steps) / len(steps) if steps else 0.0)
    return [curve[max(curve)] + ahead.get(max(curve), 0.0) for curve in curves]


def _is_failure(run: RunHistory) -> bool:
    return run.outcome.state in _FAILURES and not run.outcome.by_machine


def candidates(spec: StudySpec) -> list[Point]:
    """Every point of a small space, else CANDIDATES seeded draws, each axis uniform in its own scale."""
    size = grid_size(spec)
    if size is not None and size <= CANDIDATES:
        return list(grid(spec) or ())
    random = np.random.default_rng(0)
    drawn = [walk(spec.axes, spec.fixed, lambda axis: _draw(axis, random)) for _ in range(CANDIDATES)]
    return list({canonical(dict(point)): point for point in drawn}.values())


def _draw(axis: Axis, random: np.random.Generator) -> Any:
    domain = axis.domain
    if isinstance(domain, Choices):
        return domain.values[int(random.integers(len(domain.values)))]
    if isinstance(domain, Integers):
        return int(random.integers(domain.low, domain.high + 1))
    if isinstance(domain, LogUniform):
        return float(math.exp(random.uniform(math.log(domain.low), math.log(domain.high))))
    return float(random.uniform(domain.low, domain.high))


@dataclass(frozen=True, slots=True)
class _Column:
    """One axis as numbers: its place between the ends, or a column for each value."""

    path: str
    scale: Callable[[float], float] | None  # None: one column a value
    low: float
    high: float
    values: tuple[Any, ...]

    @classmethod
    def of(cls, axis: Axis) -> _Column:
        ends = axis.domain.values if isinstance(axis.domain, Choices) else (axis.domain.low, axis.domain.high)
        if not is_numeric(ends) or min(ends) == max(ends):
            return cls(axis.path, None, 0.0, 1.0, ends)
        scale: Callable[[float], float] = math.log if min(ends) > 0 else float
        return cls(axis.path, scale, scale(min(ends)), scale(max(ends)), ())

    def cells(self, point: Point) -> list[float]:
        absent = self.path not in point
        value = None if absent else value_of(point[self.path])
        if self.scale is None:
            return [0.0 if absent else float(value == known) for known in self.values]
        if not isinstance(value, int | float) or (self.scale is math.log and value <= 0):
            return [_ABSENT]
        return [(self.scale(float(value)) - self.low) / (self.high - self.low)]


def _forest(trees: int = TREES) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(trees, max_features=0.5, random_state=0)
