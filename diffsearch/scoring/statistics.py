"""How sure a score is: mean ± standard error over repeats, what can be told apart, and groups of ties."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Direction = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Repeats of one measurement."""

    mean: float
    se: float | None  # standard error of the mean; None where n = 1
    n: int  # ≥ 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """Mean ± one standard error; holds the true mean in 68 % of cases where n is large, 58 % at n = 3."""
        return None if self.se is None else (self.mean - self.se, self.mean + self.se)


def summarise(values: Iterable[float]) -> Summary:
    """Mean and standard error s / sqrt(n), with s the sample standard deviation (n - 1 in its denominator).

    Raises:
        ValueError: no values, or one that isn't finite: a failure is never a score.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        raise ValueError("nothing to summarise: at least one value is needed")
    if not np.all(np.isfinite(array)):
        raise ValueError("only finite values can be summarised")
    se = float(array.std(ddof=1)) / math.sqrt(array.size) if array.size > 1 else None
    return Summary(float(array.mean()), se, int(array.size))


def told_apart(a: Summary, b: Summary) -> bool:
    """Whether the intervals of mean ± standard error don't overlap. Without a standard error (n = 1): never.

    A rule of thumb, not a test: see `chance_of_telling_equals_apart`.
    """
    if a.interval is None or b.interval is None:
        return False
    return a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]


def tie_groups(summaries: Sequence[Summary], direction: Direction) -> list[int]:
    """Group number of each summary, 1 the best; members of a group can't be told apart from its best member.

    From the best mean downwards: whoever isn't told apart from the group's first joins it, the first that is
    told apart opens the next group. "Not told apart" isn't transitive, so this is relative to the group's first.
    """
    sign = 1.0 if direction == "min" else -1.0
    order = sorted(range(len(summaries)), key=lambda index: (sign * summaries[index].mean, index))
    groups = [0] * len(summaries)
    group, leader = 0, -1
    for index in order:
        if leader < 0 or told_apart(summaries[leader], summaries[index]):
            group, leader = group + 1, index
        groups[index] = group
    return groups


def welch_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of Welch's t test (unequal variances); None where a side has < 2 values, or neither any spread."""
    if min(len(a), len(b)) < 2:
        return None
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.std() + second.std() == 0:
        return None
    from scipy import stats  # here, as below: it takes a second, and most tables need no test

    p = float(stats.ttest_ind(first, second, equal_var=False).pvalue)
    return p if math.isfinite(p) else None


def chance_of_telling_equals_apart(n: int) -> float:
    """How often `told_apart` is true of two equal normal populations with n values each, n ≥ 2: 0.25 at n = 3.

    The rule |d| > se_a + se_b is |t| > sqrt(B) + sqrt(1 - B), with t Student's with 2 (n - 1) degrees of freedom and,
    independent of it, B = se_a² / (se_a² + se_b²) ~ Beta((n - 1) / 2, (n - 1) / 2). Exact but for the quadrature.
    """
    if n < 2:
        raise ValueError("one value has no standard error")
    from scipy import integrate, special, stats

    half = (n - 1) / 2
    # B = sin² u takes the poles of the density at 0 and 1 away (n = 2, 3)
    value, _ = integrate.quad(
        lambda u: (
            2
            * stats.t.sf(math.sin(u) + math.cos(u), 4 * half)
            * 2
            * (math.sin(u) * math.cos(u)) ** (2 * half - 1)
            / special.beta(half, half)
        ),
        0.0,
        math.pi / 2,
    )
    return float(value)
