"""How sure a score is: 95 % intervals over training seeds, and what the best one is told apart from.

`docs/statistics.md` says why these methods; `python -m benchmarks honesty` measures how often their claims are wrong.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from diffsearch.space.metric_names import Scale

Direction = Literal["min", "max"]
Floats = npt.NDArray[np.float64]

LEVEL = 0.95  # of every interval
WRONG = 0.05  # the share of studies in which a claim may be false


@dataclass(frozen=True, slots=True)
class Summary:
    """Repeats of one measurement."""

    mean: float  # geometric on the log scale
    n: int  # ≥ 1
    interval: tuple[float, float] | None = None  # 95 %; None where n = 1


def summarise(values: Iterable[float], scale: Scale = "linear") -> Summary:
    """Mean and Student's t interval with n - 1 degrees of freedom, of the values or of their logarithms.

    The interval is for the median over seeds: half of all seeds score better. The log scale, on which the mean is the
    geometric one, suits what is positive and varies by a share of itself, as a Fréchet distance does. A value ≤ 0 has
    no logarithm: then all are taken as they are.

    Raises:
        ValueError: no values, or one that isn't finite: a failure is never a score.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        raise ValueError("nothing to summarise: at least one value is needed")
    if not np.all(np.isfinite(array)):
        raise ValueError("only finite values can be summarised")
    if array.size == 1:
        return Summary(float(array[0]), 1)
    from scipy import special  # here, and scipy.stats below: they take a second, and most of a study needs neither

    logarithmic = _logarithmic(scale, array)
    taken = np.log(array) if logarithmic else array
    quantile = special.stdtrit(taken.size - 1, (1 + LEVEL) / 2)
    mean, half = float(taken.mean()), float(quantile * taken.std(ddof=1)) / math.sqrt(taken.size)
    back = _exp if logarithmic else float
    return Summary(back(mean), taken.size, (back(mean - half), back(mean + half)))


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one measurement lies above another."""

    value: float  # b - a; on the log scale the factor b / a
    interval: tuple[float, float]  # 95 %, for this one comparison
    p: float  # two-sided, for this one comparison


def difference(
    a: Sequence[float], b: Sequence[float], scale: Scale = "linear", paired: bool = False
) -> Difference | None:
    """Welch's t test of b against a (unequal variances), or Student's of the differences b[i] - a[i].

    Args:
        a, b: scores, two or more of each; as many of each where they are `paired`.
        scale: where `log`, logarithms are compared, so that the difference is a factor.
        paired: whether a[i] and b[i] share all that varies besides what is compared.

    Returns:
        None where nothing can be tested: too few values, or no spread in any of them.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    logarithmic = _logarithmic(scale, first, second)
    if logarithmic:
        first, second = np.log(first), np.log(second)
    if min(first.size, second.size) < 2 or all(_still(x) for x in ([second - first] if paired else [first, second])):
        return None
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of one side without spread, which Welch's test can bear
        found = stats.ttest_rel(second, first) if paired else stats.ttest_ind(second, first, equal_var=False)
    inside = found.confidence_interval(LEVEL)
    back = _exp if logarithmic else float
    ends = back(float(inside.low)), back(float(inside.high))
    return Difference(back(float(second.mean() - first.mean())), ends, float(found.pvalue))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the best of several measurements is told apart from."""

    first: int  # index of the best mean
    p: tuple[
        float, ...
    ]  # of each: that it is as good as the first, corrected for all that was compared; 1 of the first

    @property
    def ties(self) -> tuple[int, ...]:
        """Those that the first isn't told apart from."""
        return tuple(i for i, p in enumerate(self.p) if p >= WRONG and i != self.first)

    @property
    def wins(self) -> bool:
        """Whether the first is told apart from every other."""
        return len(self.p) > 1 and not self.ties


def judge(
    samples: Sequence[Sequence[float]], direction: Direction, scale: Scale = "linear", paired: bool = False
) -> Verdict:
    """The best of some measurements against each other one: see `against_first` for the correction.

    Args:
        samples: scores of each, in the same order of seeds where they are `paired`.
        direction: whether low or high scores are good.

    Raises:
        ValueError: no samples.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in samples]
    if _logarithmic(scale, *arrays):
        arrays = [np.log(array) for array in arrays]
    sign = 1.0 if direction == "min" else -1.0
    first = int(np.argmin([sign * array.mean() for array in arrays]))
    alone = _paired_p(arrays) if paired else _welch_p(arrays)
    corrected = against_first(alone[None], np.array([first]), len(arrays))[0]
    return Verdict(first, tuple(float(p) for p in corrected))


def _welch_p(arrays: Sequence[Floats]) -> Floats:
    """p of each pair, in the order of `itertools.combinations`; NaN where there is nothing to test."""
    from scipy import stats

    here, there = np.triu_indices(len(arrays), 1)
    mean, count = np.array([array.mean() for array in arrays]), np.array([array.size for array in arrays])
    spread = np.array([array.std(ddof=1) if array.size > 1 else math.nan for array in arrays])
    spread[[array.size > 1 and _still(array) for array in arrays]] = 0.0
    sides = (mean[here], spread[here], count[here]), (mean[there], spread[there], count[there])
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.ttest_ind_from_stats(*sides[0], *sides[1], equal_var=False).pvalue
    return np.where((spread[here] > 0) | (spread[there] > 0), p, math.nan)


def _paired_p(arrays: Sequence[Floats]) -> Floats:
    """The same of the differences, seed by seed."""
    found = (difference(list(a), list(b), paired=True) for a, b in itertools.combinations(arrays, 2))
    return np.array([math.nan if each is None else each.p for each in found], dtype=np.float64)


def holm(p: Floats) -> Floats:
    """Holm's 1979 step-down correction along the last axis; NaN, a test that couldn't be made, doesn't count.

    The chance that any true hypothesis of the family is rejected at level α is at most α, whatever the dependence.
    """
    order = np.argsort(p, axis=-1)  # NaN last
    left = np.isfinite(p).sum(axis=-1, keepdims=True) - np.arange(p.shape[-1])
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * np.maximum(left, 1), axis=-1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(stepped, 1), axis=-1)
    return corrected


def against_first(p: Floats, first: npt.NDArray[np.intp], k: int) -> Floats:
    """Corrected p of the best of k measurements against each other one, where data chose the best.

    The smaller of two, each of which is honest by itself: Holm's over all k (k - 1) / 2 pairs, which holds for any pair
    and so for those of the chosen one; and the largest uncorrected p of the first against any other. The second is
    the intersection-union test (Berger 1982) of "it is better than all others", which needs no correction for how many
    the others are, nor for having been chosen (Gutmann & Maymin 1987).

    Args:
        p: (..., k (k - 1) / 2) of each pair, in the order of `itertools.combinations`; NaN where there was no test.
        first: (...,) index of the best.

    Returns:
        (..., k): 1 of the first itself, and where there was no test.
    """
    corrected, alone = (_row_of(first, values, k) for values in (holm(p), p))
    others = np.arange(k) != first[..., None]
    largest = np.max(alone, axis=-1, keepdims=True, where=others, initial=0.0)
    return np.where(others, np.minimum(corrected, largest), 1.0)


def _row_of(first: npt.NDArray[np.intp], pairs: Floats, k: int) -> Floats:
    """(..., k): of the values of all pairs, those of one member with each other one; 1 where there is none."""
    here, there = np.triu_indices(k, 1)
    square = np.ones((*pairs.shape[:-1], k, k))
    square[..., here, there] = square[..., there, here] = np.where(np.isnan(pairs), 1.0, pairs)
    row: Floats = np.take_along_axis(square, first[..., None, None], axis=-2)[..., 0, :]
    return row


def _logarithmic(scale: Scale, *arrays: Floats) -> bool:
    return scale == "log" and all(bool(np.all(array > 0)) for array in arrays)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # beyond, it is no float: the interval of two seeds can be that wide


def _still(values: Floats) -> bool:
    """Whether values are equal but for rounding: a spread of nothing proves anything."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
