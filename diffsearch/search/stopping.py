"""When to stop a run early: pure functions of scores, whose rungs are the study's milestones.

Every rule is built with its options and then asked, at each milestone but the last: `rule(rung) -> bool`, True stops
the run. **Lower is better** in every score. A run that diverged or failed is never among those compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from diffsearch.errors import DiffsearchError
from diffsearch.registry import stopping_rule

Curve: TypeAlias = Mapping[int, float]  # milestone → score
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rung:
    """A run at a milestone, and all that its study knows to compare it with."""

    epoch: int
    curve: Curve  # the run's own, up to this milestone
    ahead: tuple[int, ...]  # milestones that are left to it, at least one
    others: Sequence[Curve]  # of the study's other search runs, as far as each came
    stored: Sequence[Curve] = ()  # of other studies' runs on the same images, scored alike; for rules that read them

    @property
    def value(self) -> float:
        return self.curve[self.epoch]

    @property
    def scores(self) -> list[float]:
        """What the others scored at this milestone."""
        return [other[self.epoch] for other in self.others if self.epoch in other]


Rule: TypeAlias = Callable[[Rung], bool]


@stopping_rule.register("none", needs_milestones=False)
def none() -> Rule:
    """Every run goes on to its last milestone."""
    return lambda rung: False


@stopping_rule.register("asha", needs_milestones=True)
def asha(*, reduction: float = 3.0) -> Rule:
    """Asynchronous successive halving (Li et al. 2020): about the best 1/reduction of each rung go on.

    The first run at a rung goes on; a later one stops if it is worse than the 1/reduction quantile of those before it
    (linear interpolation, as in Ray's ASHAScheduler, to which it is tested equal on milestones 1, 3, 9).

    Args:
        reduction: > 1. With milestones that grow by the same factor each rung costs the same.
    """
    if not reduction > 1:
        raise DiffsearchError(f"asha: reduction must be greater than 1, got {reduction}")

    def rule(rung: Rung) -> bool:
        others = rung.scores
        return bool(others) and rung.value > float(np.percentile(np.asarray(others), 100 / reduction))

    return rule


@stopping_rule.register("median", needs_milestones=True)
def median(*, minimum: int = 3) -> Rule:
    """The median rule (Golovin et al. 2017): a run stops if it is worse than the median of the others at its rung.

    Args:
        minimum: others needed at the rung before any run is stopped, ≥ 1.
    """
    if minimum < 1:
        raise DiffsearchError(f"median: minimum must be at least 1, got {minimum}")

    def rule(rung: Rung) -> bool:
        others = rung.scores
        return len(others) >= minimum and rung.value > float(np.median(np.asarray(others)))

    return rule


@stopping_rule.register("curves", needs_milestones=True, reads_store=True)
def curves(*, chance: float = 0.05, minimum: int = 8, draws: int = 256) -> Rule:
    """Stop where, by all curves that the store has, the run will hardly beat the study's best score.

    In the spirit of freeze-thaw (Swersky et al. 2014), without its Gaussian process: the curve is carried on, one
    milestone at a time, by steps that other curves took from a like place (kernel-weighted bootstrap, see
    `carried_on`), also curves that were stopped later on and those of other studies. Where fewer than `minimum` curves
    took one of the steps nothing is known, and the run goes on.

    Args:
        chance: stop where fewer of the futures than this share beat the study's best score, in (0, 1).
        minimum: curves that a step is drawn from, at least 2.
        draws: futures that are drawn; the share's standard error is at most 0.5 / sqrt(draws).
    """
    if not 0 < chance < 1:
        raise DiffsearchError(f"curves: chance must lie between 0 and 1, got {chance}")
    if minimum < 2 or draws < 1:
        raise DiffsearchError(f"curves: needs minimum ≥ 2 and draws ≥ 1, got {minimum} and {draws}")

    def rule(rung: Rung) -> bool:
        incumbent = min((min(other.values()) for other in rung.others if other), default=np.inf)
        if min(rung.curve.values()) <= incumbent:
            return False
        future = carried_on(rung, minimum, draws)
        return future is not None and float(np.mean(future < incumbent)) < chance

    return rule


def carried_on(rung: Rung, minimum: int, draws: int) -> Floats | None:
    """The best score of each of `draws` futures of a run: (draws,); None where fewer than `minimum` show a step.

    A step of the future is one that another curve took between the same two milestones, drawn with a Gaussian kernel's
    weight on where it started and how it had come there (both in standard deviations; Scott's bandwidth), plus the
    kernel's own noise (smoothed bootstrap). Logarithms are carried on where every score is positive. The same rung has
    the same futures: the generator is seeded here.
    """
    known = [*rung.others, *rung.stored]
    positive = min(min(curve.values(), default=1.0) for curve in (rung.curve, *known)) > 0
    scale, back = (np.log, np.exp) if positive else (np.asarray, np.asarray)
    rng = np.random.default_rng(0)
    before = [epoch for epoch in rung.curve if epoch < rung.epoch][-1:]
    places = np.tile(scale([rung.curve[epoch] for epoch in (*before, rung.epoch)]), (draws, 1))
    best = np.full(draws, np.inf)
    path = (*before, rung.epoch)
    for after in rung.ahead:
        seen = [[curve[epoch] for epoch in (*path, after)] for curve in known if {*path, after} <= curve.keys()]
        if len(seen) < minimum:
            return None
        places = np.column_stack([places[:, -1], _step(places, scale(np.asarray(seen)), rng)])
        best = np.minimum(best, places[:, -1])
        path = (path[-1], after)
    return np.asarray(back(best), dtype=np.float64)


def _step(places: Floats, seen: Floats, rng: np.random.Generator) -> Floats:
    """Where each of (draws, 1 or 2) places comes to by steps like those of (curves, 2 or 3) seen ones: (draws,)."""
    came, steps = _coordinates(seen[:, :-1]), seen[:, -1] - seen[:, -2]
    width = came.std(axis=0) + 1e-12
    bandwidth = len(seen) ** (-1 / (came.shape[1] + 4))
    apart = (_coordinates(places)[:, None, :] - came[None, :, :]) / (width * bandwidth)
    squares = (apart**2).sum(axis=2)
    weights = np.exp(-(squares - squares.min(axis=1, keepdims=True)) / 2)  # the nearest counts, however far it is
    sums = np.cumsum(weights, axis=1)
    drawn = (sums < rng.uniform(size=(len(places), 1)) * sums[:, -1:]).sum(axis=1)
    return np.asarray(places[:, -1] + steps[drawn] + bandwidth * steps.std() * rng.standard_normal(len(places)))


def _coordinates(places: Floats) -> Floats:
    """(n, 1 or 2): where a curve is, and the step that brought it there, if there was one."""
    return np.column_stack([places[:, -1], *np.diff(places, axis=1).T])
