"""How much each axis matters: Optuna's fANOVA over the ranked runs, how sure that is, and what shuffled scores give."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from diffsearch.records import StudyHistory
from diffsearch.report.axes import MAX_VALUES, is_numeric, show_value
from diffsearch.report.ranks import best_sheet, point_key, rankable

LEAST_RUNS = 10  # below that even a forest sees little but its own noise
SHUFFLES = 9
TREES = 32
SHUFFLED_TREES = 8  # fewer: the forests vary more, so the mark of chance lies a little too far out
RESAMPLED = 19  # bootstraps of the runs; between the second lowest and highest of 19 lie 80 % of further ones
FEW_RESAMPLED = 9  # of MANY_RUNS; between the lowest and highest of 9 lie 80 % too
RESAMPLED_TREES = 4  # of each forest
UNSURE = 0.1  # two axes can't be ranked if their order turns in more than this share of the bootstraps
MANY_RUNS = 150  # above, chance adds little, and shuffling would take longer than the rest of the report

_Space = dict[str, tuple[Any, list[Any]]]  # dotted path → Optuna's distribution, and the value of each run


@dataclass(frozen=True, slots=True)
class Importances:
    """Share of the score's variance over the space that each axis explains, or why there is none."""

    shares: tuple[tuple[str, float], ...]  # (dotted path, share), largest first; shares sum to 1
    chance: dict[str, float]  # each axis's largest share in SHUFFLES shuffles of the scores; empty where not computed
    runs: int
    logarithmic: bool  # of the score's logarithm, since scores span more than a decade
    left_out: tuple[str, ...]  # axes that don't exist in every run, or have one value only
    reason: str = ""  # why `shares` is empty
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 80 %, of each axis' share
    turned: dict[tuple[str, str], float] = field(default_factory=dict)  # share of bootstraps that turn a pair's order

    @property
    def unranked(self) -> tuple[str, ...]:
        """The first axis and those whose order with it isn't sure; empty where the first leads."""
        paths = [path for path, _ in self.shares]
        ties = [path for path in paths[1:] if self.turned.get((paths[0], path), 0.0) > UNSURE]
        return (paths[0], *ties) if ties else ()


NOTHING = Importances((), {}, 0, False, ())  # known of any axis


def importances(history: StudyHistory) -> Importances:
    """fANOVA (Hutter et al. 2014, Optuna's implementation) over each ranked run's best score.

    An axis without any effect exceeds its own `chance` one time in SHUFFLES + 1, since the shuffles are exchangeable
    with it. Intervals are of bootstraps of the runs, each with a forest of its own: how far the shares would move in
    another study of as many runs, not how far they are from the truth. Repeatable: all of it is seeded. The best score
    of a run that was stopped early is that of an earlier epoch; leaving those runs out would hide just the values that
    the rule found bad.
    """
    ranked = rankable(history)
    scores = [best_sheet(history, sheets).scores[history.objective].value for _, sheets in ranked]
    points = [run.point for run, _ in ranked]
    usable: list[str] = []
    left_out: list[str] = []
    for path in history.axes:
        present = [point[path] for point in points if path in point]
        varies = len({show_value(value) for value in present}) > 1
        (usable if varies and len(present) == len(points) else left_out).append(path)
    reason = _too_little(len(scores), usable, scores)
    if reason:
        return Importances((), {}, len(scores), False, tuple(left_out), reason)
    logarithmic = min(scores) > 0 and max(scores) / min(scores) > 10
    targets = [math.log(score) for score in scores] if logarithmic else scores
    space = {path: _encode([point[path] for point in points]) for path in usable}
    shares = _fanova(space, targets, TREES)
    ordered = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
    chance = _chance(space, targets) if len(scores) <= MANY_RUNS else {}
    drawn = _around(shares, _resampled(space, targets, [point_key(run) for run, _ in ranked]))
    turned = {
        (first, second): float(np.mean(drawn[second] >= drawn[first]))
        for first, second in itertools.combinations([path for path, _ in ordered], 2)
    }
    intervals = {path: _middle(values) for path, values in drawn.items()}
    return Importances(tuple(ordered), chance, len(scores), logarithmic, tuple(left_out), "", intervals, turned)


def _resampled(space: _Space, targets: Sequence[float], points: Sequence[str]) -> list[dict[str, float]]:
    """Importances of studies that might have been: points drawn with all their seeds, each time with another forest."""
    random, found = np.random.default_rng(1), list[dict[str, float]]()
    seeds_of = [[i for i, point in enumerate(points) if point == each] for each in dict.fromkeys(points)]
    while len(found) < (RESAMPLED if len(points) <= MANY_RUNS else FEW_RESAMPLED):
        places = [i for place in random.integers(len(seeds_of), size=len(seeds_of)) for i in seeds_of[place]]
        if len({targets[i] for i in places}) > 1:
            drawn = [targets[i] for i in places]
            found.append(_fanova(space, drawn, RESAMPLED_TREES, seed=len(found) + 1, places=places))
    return found


def _around(shares: dict[str, float], drawn: Sequence[dict[str, float]]) -> dict[str, npt.NDArray[np.float64]]:
    """The bootstraps moved so that their mean is the share itself: by themselves they tend towards equal shares."""
    found = {path: np.array([each[path] for each in drawn]) for path in shares}
    return {path: np.clip(share + found[path] - found[path].mean(), 0.0, 1.0) for path, share in shares.items()}


def _middle(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """80 % of them."""
    cut, ordered = (1 if len(values) > FEW_RESAMPLED else 0), np.sort(values)
    return float(ordered[cut]), float(ordered[-1 - cut])


def _chance(space: _Space, targets: Sequence[float]) -> dict[str, float]:
    random = np.random.default_rng(0)
    rounds = [_fanova(space, random.permutation(targets).tolist(), SHUFFLED_TREES) for _ in range(SHUFFLES)]
    return {path: max(found[path] for found in rounds) for path in space}


def _too_little(count: int, usable: Sequence[str], scores: Sequence[float]) -> str:
    if count < LEAST_RUNS:
        return f"Too few runs: {count} of them rank, and below {LEAST_RUNS} importances are noise."
    if len(usable) < 2:
        return "Importances compare axes; fewer than two vary in every run."
    if max(scores) == min(scores):
        return "All runs have the same score."
    return ""


def _fanova(
    space: _Space, targets: Sequence[float], trees: int, seed: int = 0, places: Sequence[int] | None = None
) -> dict[str, float]:
    """Normalised importances of an in-memory study that is filled with these points and scores.

    Args:
        places: which of the space's points each score belongs to; each in turn by default.
    """
    distributions = {path: distribution for path, (distribution, _) in space.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.add_trials(
            [
                optuna.create_trial(
                    params={path: values[i] for path, (_, values) in space.items()},
                    distributions=distributions,
                    value=float(target),
                )
                for i, target in zip(places or range(len(targets)), targets, strict=True)
            ]
        )
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {path: float(share) for path, share in found.items()}


def _encode(values: list[Any]) -> tuple[Any, list[Any]]:
    """Many numbers as a range (logarithmic over a decade), all else as categories, which are strings to Optuna."""
    if is_numeric(values) and len(set(values)) > MAX_VALUES:
        low, high = float(min(values)), float(max(values))
        log = low > 0 and high / low >= 10**0.9  # a log axis over one decade rarely draws both its ends
        return optuna.distributions.FloatDistribution(low, high, log=log), [float(value) for value in values]
    texts = [show_value(value) for value in values]
    return optuna.distributions.CategoricalDistribution(sorted(set(texts))), texts
