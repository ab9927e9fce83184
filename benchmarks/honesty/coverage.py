"""How often a 95 % interval over n seeds holds what it is for, by method; also after a choice was made on scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.honesty.shapes import FAMILIES, Family, Floats, Repeats, Scatter, fit, of_kind

COUNTS = (2, 3, 4, 5, 7, 10)
DRAWS = 40_000
FEW_DRAWS = 1_500  # of a bootstrap
RESAMPLES = 499
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
class Coverage:
    """Shares that hold, of DRAWS sets of seeds each."""

    steady: Mapping[str, Mapping[int, list[float]]]  # method → n → of each family and each scatter
    linear: Mapping[int, list[float]]  # Student t of kernel distances
    chosen: Mapping[str, float]  # what chose → ours, n = 3


def measure(rng: np.random.Generator, measured: Sequence[Repeats]) -> Coverage:
    distances, kernels = (fit(of_kind(measured, kind)) for kind in ("fd", "kd"))
    steady = {method: {n: [] for n in COUNTS} for method in METHODS}
    linear: dict[int, list[float]] = {n: [] for n in COUNTS}
    for family in FAMILIES:
        for share in (0.05, 0.5, 0.95):
            for n in COUNTS:
                for method, held in _held(rng, family, distances, distances.quantile(share), n).items():
                    steady[method][n].append(held)
                scores = family.draw(rng, kernels.quantile(share), (DRAWS, n))
                linear[n].append(_holds(scores, family.mean(kernels.quantile(share))))
    return Coverage(steady, linear, _after_choices(rng, distances))


def _held(rng: np.random.Generator, family: Family, scatter: Scatter, s: float, n: int) -> dict[str, float]:
    scores = family.draw(rng, s, (DRAWS, n))
    mean, median = family.mean(s), family.median(s)
    logs = np.log(scores)
    others = scatter.draw(rng, (DRAWS, FINALISTS - 1))[..., None] * rng.normal(size=(DRAWS, FINALISTS - 1, n))
    variances = np.concatenate([logs.var(axis=-1, ddof=1)[:, None], others.var(axis=-1, ddof=1)], axis=-1)
    pooled = stats.t.ppf(0.975, FINALISTS * (n - 1)) * np.sqrt(variances.mean(axis=-1) / n)
    error = scores.std(axis=-1, ddof=1) / np.sqrt(n)
    few = scores[:FEW_DRAWS]
    with np.errstate(all="ignore"):
        resampled = stats.bootstrap(
            (few,), np.mean, axis=-1, n_resamples=RESAMPLES, method="BCa", rng=rng, vectorized=True
        ).confidence_interval
    inside = (resampled.low <= mean) & (mean <= resampled.high)  # of n equal values there is none: not held
    return {
        OURS: _holds(logs, np.log(median)),
        RAW: _holds(scores, mean),
        POOLED: float(np.mean(np.abs(logs.mean(axis=-1) - np.log(median)) <= pooled)),
        BOOTSTRAP: float(np.mean(inside)),
        OLD: float(np.mean(np.abs(scores.mean(axis=-1) - mean) <= error)),
    }


def _holds(values: Floats, truth: float) -> float:
    """How often Student's interval of the last axis holds the truth: that of `statistics.summarise`, for all rows."""
    return float(np.mean(stats.ttest_1samp(values, truth, axis=-1).pvalue >= 0.05))


def _after_choices(rng: np.random.Generator, scatter: Scatter, n: int = 3, runs: int = 16) -> dict[str, float]:
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
        f"the best of {runs} search runs, on {n} fresh seeds (ours)": _holds(fresh, 0.0),
        f"the best of {runs} search runs, on {n - 1} fresh seeds and the score that chose it": _holds(kept, 0.0),
        f"the best of 3 sampling points, chosen on the {n} seeds themselves": _holds(best, 0.0),
    }


def rows(found: Coverage) -> list[tuple[str, str]]:
    def ranges(of: Callable[[int], list[float]]) -> str:
        return ", ".join(f"n {n}: {100 * min(of(n)):.1f}–{100 * max(of(n)):.1f} %" for n in COUNTS)

    cases = len(found.steady[OURS][COUNTS[0]])
    return [
        *((f"held by {method} ({cases} cases)", ranges(lambda n, m=method: found.steady[m][n])) for method in METHODS),
        ("held by Student t of kernel distances, for the mean", ranges(lambda n: found.linear[n])),
        *((f"held after a choice: {what}", f"{100 * held:.1f} %") for what, held in found.chosen.items()),
    ]
