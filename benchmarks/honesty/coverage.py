"""How often a 95 % interval over n seeds holds what it is for, by method; also after a choice was made on scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.honesty.shapes import FAMILIES, Family, Floats, Repeats, Scatter, fit, of_kind

COUNTS = (2, 3, 4, 5, 7, 10)
DRAWS = 40_000
FEW_DRAWS, RESAMPLES = 1_000, 299  # of a bootstrap, and for these counts alone: it takes longer than all the rest
FEW_COUNTS = (3, 5, 10)
FINALISTS = 5  # whose variances are pooled
OURS, RAW, POOLED, BOOTSTRAP, OLD = (
    "Student t of logarithms, for the median",
    "Student t, for the mean",
    f"the same, variance pooled over {FINALISTS} finalists",
    "BCa bootstrap, for the mean",
    "mean ± standard error, for the mean",
)
METHODS = (OURS, RAW, POOLED, BOOTSTRAP, OLD)


@dataclass(frozen=True, slots=True)
class Off:
    """What a choice did to an interval."""

    held: float | None  # how often it holds the truth
    below: float | None  # how often it lies below, so that it promises too much
    low: float  # by which share the geometric mean is too low


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares that hold, of DRAWS sets of seeds each."""

    steady: Mapping[str, Mapping[int, list[float]]]  # method → n → of each family and each scatter
    linear: Mapping[int, list[float]]  # Student t of kernel distances, for the median
    chosen: Mapping[str, Off]  # what was chosen how → ours at n = 3


def measure(rng: np.random.Generator, measured: Sequence[Repeats]) -> Coverage:
    distances, kernels = (fit(of_kind(measured, kind)) for kind in ("fd", "kd"))
    steady: dict[str, dict[int, list[float]]] = {method: {} for method in METHODS}
    linear: dict[int, list[float]] = {n: [] for n in COUNTS}
    for family in FAMILIES:
        for share in (0.05, 0.5, 0.95):
            for n in COUNTS:
                for method, held in _held(rng, family, distances, distances.quantile(share), n).items():
                    steady[method].setdefault(n, []).append(held)
                scores = family.draw(rng, kernels.quantile(share), (DRAWS, n))
                linear[n].append(_holds(scores, family.median(kernels.quantile(share))))
    return Coverage(steady, linear, _after_choices(rng, distances))


def _held(rng: np.random.Generator, family: Family, scatter: Scatter, s: float, n: int) -> dict[str, float]:
    scores = family.draw(rng, s, (DRAWS, n))
    mean, median = family.mean(s), family.median(s)
    logs = np.log(scores)
    others = scatter.draw(rng, (DRAWS, FINALISTS - 1))[..., None] * rng.normal(size=(DRAWS, FINALISTS - 1, n))
    variances = np.concatenate([logs.var(axis=-1, ddof=1)[:, None], others.var(axis=-1, ddof=1)], axis=-1)
    pooled = stats.t.ppf(0.975, FINALISTS * (n - 1)) * np.sqrt(variances.mean(axis=-1) / n)
    error = scores.std(axis=-1, ddof=1) / np.sqrt(n)
    found = {BOOTSTRAP: _bootstrapped(rng, scores[:FEW_DRAWS], mean)} if n in FEW_COUNTS else {}
    return found | {
        OURS: _holds(logs, np.log(median)),
        RAW: _holds(scores, mean),
        POOLED: float(np.mean(np.abs(logs.mean(axis=-1) - np.log(median)) <= pooled)),
        OLD: float(np.mean(np.abs(scores.mean(axis=-1) - mean) <= error)),
    }


def _bootstrapped(rng: np.random.Generator, scores: Floats, mean: float) -> float:
    with np.errstate(all="ignore"):
        found = stats.bootstrap(
            (scores,), np.mean, axis=-1, n_resamples=RESAMPLES, method="BCa", rng=rng, vectorized=True
        )
    low, high = found.confidence_interval
    return float(np.mean((low <= mean) & (mean <= high)))  # an interval that is NaN holds nothing


def _holds(values: Floats, truth: float) -> float:
    """How often Student's interval of the last axis holds the truth: that of `statistics.summarise`, for all rows."""
    return float(np.mean(stats.ttest_1samp(values, truth, axis=-1).pvalue >= 0.05))


def _after_choices(rng: np.random.Generator, scatter: Scatter, n: int = 3, runs: int = 16) -> dict[str, Off]:
    """Log-normal scores of equal configurations, one of which was chosen."""
    s = scatter.draw(rng, (DRAWS, 1))
    first = s * rng.normal(size=(DRAWS, runs))  # the search's own scores, as logarithms
    fresh = s * rng.normal(size=(DRAWS, n))
    kept = np.concatenate([first.min(axis=-1, keepdims=True), fresh[:, 1:]], axis=-1)
    shared = s[..., None] * rng.normal(size=(DRAWS, 1, n))
    own = s[..., None] * rng.normal(size=(DRAWS, 3, n))
    tied = np.sqrt(0.7) * shared + np.sqrt(0.3) * own  # sampling points of the same networks
    best = np.take_along_axis(tied, tied.mean(axis=-1).argmin(axis=-1)[:, None, None], axis=1)[:, 0]
    return {
        f"the best of {runs} search runs, on {n} fresh seeds (ours)": _off(fresh),
        f"the best of {runs} search runs, on {n - 1} fresh seeds and the score that chose it": _off(kept),
        f"the best of {runs} search runs, on that score alone": Off(None, None, 1 - float(np.exp(kept[:, 0].mean()))),
        f"the best of 3 sampling points, chosen on the {n} seeds themselves": _off(best),
    }


def _off(logs: Floats) -> Off:
    """Of logarithms whose true median is 0."""
    tests = stats.ttest_1samp(logs, 0.0, axis=-1)
    below = (tests.pvalue < 0.05) & (tests.statistic < 0)
    return Off(float(np.mean(tests.pvalue >= 0.05)), float(np.mean(below)), 1 - float(np.exp(logs.mean())))


def rows(found: Coverage) -> list[tuple[str, str]]:
    def ranges(of: Mapping[int, list[float]]) -> str:
        return ", ".join(f"n {n}: {100 * min(held):.1f}–{100 * max(held):.1f} %" for n, held in of.items())

    cases = len(found.steady[OURS][COUNTS[0]])
    return [
        *((f"held by {method} ({cases} cases)", ranges(found.steady[method])) for method in METHODS),
        (f"held by Student t of kernel distances, for the median ({cases} cases)", ranges(found.linear)),
        *((f"{what}: interval holds; lies below; mean too low by", _said(off)) for what, off in found.chosen.items()),
    ]


def _said(off: Off) -> str:
    rates = [f"{100 * rate:.1f} %" for rate in (off.held, off.below) if rate is not None]
    return "; ".join([*(rates or ["no interval"]), f"{100 * off.low:.1f} %"])
