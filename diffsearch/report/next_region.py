"""Where a model of a study's scores expects improvement: the values that the most promising points hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffsearch.report import phrases
from diffsearch.report.axes import show_value
from diffsearch.report.extend import between, rounded
from diffsearch.report.next_rules import WRONG, Evidence, Finding, percent, sentence
from diffsearch.report.phrases import number
from diffsearch.report.ranks import ranking_order
from diffsearch.report.surrogate import Expectation, Skill, Surrogate, comparable
from diffsearch.space.settings import Axis, Choices, Domain, Integers, LogUniform

PROMISING = 0.25  # share of the largest expected improvement that a point of the region must have
RARE = 0.5  # a value that is rarer than this in the region, in units of its share everywhere, is dropped
LEAST_BEST = 3  # runs whose values are kept, or the best tenth
LEAST_GAIN = 0.01  # expected improvement of a logarithm below which the space is used up


@dataclass(frozen=True, slots=True)
class Region:
    """Where improvement is expected, or why nothing is said of it."""

    skill: Skill | None
    findings: tuple[Finding, ...]
    words: str


def region(known: Evidence) -> Region:
    """The values that the most promising points hold, of the axes that matter; what the best runs had is kept."""
    ranked = comparable(known.history)
    if not known.spec.axes or not ranked:
        return Region(None, (), "No training axis varies, so there is no region to look for.")
    forest = Surrogate(known.history, known.spec, ranked)
    skill = forest.skill()
    if skill is None:
        return Region(
            None,
            (),
            f"{phrases.several(len(ranked), 'run')} are too few to see whether a model of the scores predicts any.",
        )
    told = (
        f"A random forest on the axes saves {max(0, round(100 * skill.gain))} % of the squared error of predicting "
        f"{skill.points} points left out in turn (Wilcoxon p {skill.p:.2g})"
    )
    if skill.p >= WRONG or skill.gain <= 0:
        return Region(skill, (), f"{told}: no more than chance can, so it narrows nothing.")
    expected = forest.expectation()
    if not expected.points:
        return Region(skill, (), f"{told}. But every point of this space was scored at the last milestone.")
    most = float(expected.improvement.max())
    if expected.logarithmic and most < LEAST_GAIN:
        return Region(
            skill, (), f"{told}. It expects less than {100 * LEAST_GAIN:.0f} % of improvement anywhere in this space."
        )
    inside = expected.improvement >= PROMISING * most
    gain = f"{100 * -math.expm1(-most):.0f} %" if expected.logarithmic else number(most)
    words = (
        f"{told}. Of {len(expected.points):,} points that were not scored at the last milestone it finds "
        f"{int(inside.sum()):,} promising: with a quarter or more of the largest expected improvement, {gain}."
    )
    findings = tuple(f for axis in known.spec.axes if (f := _narrowed(known, axis, expected, inside)) is not None)
    return Region(skill, findings, words)


def _narrowed(known: Evidence, axis: Axis, expected: Expectation, inside: Any) -> Finding | None:
    if axis.when or not (reason := known.matters(axis)) or axis.path not in known.point:
        return None
    everywhere = [point[axis.path] for point in expected.points if axis.path in point]
    chosen = [p[axis.path] for p, good in zip(expected.points, inside, strict=True) if good and axis.path in p]
    if isinstance(axis.domain, Choices):
        return _fewer(known, axis, axis.domain, everywhere, chosen, reason)
    return _shorter(known, axis, axis.domain, chosen, reason)


def _fewer(
    known: Evidence, axis: Axis, domain: Choices, everywhere: Sequence[Any], chosen: Sequence[Any], reason: str
) -> Finding | None:
    base, top = Counter(map(show_value, everywhere)), Counter(map(show_value, chosen))
    good = ranking_order(known.history)
    proven = [known.point[axis.path], *(run.point.get(axis.path) for run in good[: max(LEAST_BEST, len(good) // 10)])]
    held_by_best = {show_value(value) for value in proven}

    def rare(value: Any) -> bool:
        here, there = top[show_value(value)] / len(chosen), base[show_value(value)] / len(everywhere)
        return show_value(value) not in held_by_best and here < RARE * there

    kept = tuple(value for value in domain.values if not rare(value))
    if len(kept) == len(domain.values):
        return None
    gone = phrases.listing([show_value(value) for value in domain.values if rare(value)])
    held = sum(top[show_value(value)] for value in kept) / len(chosen)
    fair = sum(base[show_value(value)] for value in kept) / len(everywhere)
    names = phrases.listing([show_value(value) for value in kept])
    why = f"{axis.name}: {names} in {percent(held)} of the promising points ({percent(fair)} if it didn't matter); "
    return Finding(axis.path, Choices(kept), f"{why}left out: {gone}. {sentence(reason)}")


def _shorter(known: Evidence, axis: Axis, domain: Domain, chosen: Sequence[float], reason: str) -> Finding | None:
    """A range cut to the middle four fifths of the promising points and the winner's value, if a fifth of it goes."""
    assert not isinstance(domain, Choices)
    best = float(known.point[axis.path])
    low, high = (float(q) for q in np.quantile(np.array(chosen, dtype=np.float64), [0.1, 0.9]))
    whole = isinstance(domain, Integers)
    low, high = (rounded(min(low, best), -1, whole), rounded(max(high, best), 1, whole))
    low, high = max(low, domain.low), min(high, domain.high)
    scale = math.log if isinstance(domain, LogUniform) else float
    width = (scale(high) - scale(low)) / (scale(domain.high) - scale(domain.low))
    if not low < high or width > 0.8:
        return None
    why = f"{axis.name}: four fifths of the promising points and the best run lie in {percent(width)} of the range. "
    return Finding(axis.path, between(domain, low, high), why + sentence(reason))
