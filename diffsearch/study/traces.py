"""What many replays of one search say together: the interquartile mean of their best scores, with its band.

As Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the statistical precipice") ask for where runs are
few: the mean of the middle half, which one lucky or unlucky seed moves little, and a bootstrap over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffsearch.study.simulated import Moment

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Band:
    """Of one quantity over several seeds, at each of several places."""

    iqm: Floats  # (places,)
    low: Floats  # the 95 % interval of the interquartile mean, percentile bootstrap over seeds
    high: Floats


def at(traces: Sequence[Sequence[Moment]], places: Floats, along: str = "worker_s", what: str = "best") -> Floats:
    """A quantity of each trace when `along` had come to each place: (seeds, places); NaN before the first score."""
    values = np.full((len(traces), len(places)), np.nan)
    for row, trace in zip(values, traces, strict=True):
        reached = np.searchsorted([getattr(moment, along) for moment in trace], places, side="right") - 1
        known = np.asarray([getattr(moment, what) for moment in trace], dtype=np.float64)
        row[reached >= 0] = known[reached[reached >= 0]]
    return values


def band(values: Floats) -> Band:
    """The interquartile mean over seeds, and its interval; NaN where a seed has no value yet.

    Args:
        values: (seeds, places).
    """
    from scipy import stats

    def iqm(sample: Floats, axis: int) -> Floats:
        return np.asarray(stats.trim_mean(sample, 0.25, axis=axis))

    centre = np.full(values.shape[1], np.nan)
    low, high = centre.copy(), centre.copy()
    known = np.isfinite(values).all(axis=0)
    if not known.any():
        return Band(centre, low, high)
    centre[known] = iqm(values[:, known], 0)
    low[known], high[known] = centre[known], centre[known]
    differ = known & (np.ptp(np.nan_to_num(values), axis=0) > 0)
    if len(values) > 1 and differ.any():
        interval = stats.bootstrap(
            (values[:, differ],), iqm, n_resamples=RESAMPLES, method="percentile", axis=0, rng=np.random.default_rng(0)
        ).confidence_interval
        low[differ], high[differ] = np.asarray(interval.low), np.asarray(interval.high)
    return Band(centre, low, high)


def reached(trace: Sequence[Moment], target: float, sign: float, along: str = "worker_s") -> float:
    """Where a trace's best score came to a target; infinite where it never did.

    Args:
        sign: 1 where a lower score is better, else -1.
    """
    return next((float(getattr(m, along)) for m in trace if sign * m.best <= sign * target), float("inf"))
