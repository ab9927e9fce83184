"""What one search came to, and when it had reached what another found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.search.searches import Traces
from diffsearch.study.traces import band, reached


@dataclass(frozen=True, slots=True)
class Answer:
    """What one search came to."""

    traces: Traces
    final: tuple[float, float, float]  # interquartile mean of the best score at the end, and its 95 % interval
    worth: float  # interquartile mean of what those winners score on average over the recorded seeds
    worker_s: float  # median over replays, of the whole search
    to_target_s: float  # median over replays of the workers' time to the target; inf: fewer than half reached it
    share: float  # of the replays that reached it

    @classmethod
    def of(cls, traces: Traces, targets: Sequence[float], sign: float) -> Answer:
        ends = [trace[-1] for trace in traces.traces]
        best, worth = (band(np.asarray([[getattr(end, what)] for end in ends])) for what in ("best", "truth"))
        times = times_to(traces, targets, sign, "worker_s")
        return cls(
            traces,
            (float(best.iqm[0]), float(best.low[0]), float(best.high[0])),
            float(worth.iqm[0]),
            float(np.median([end.worker_s for end in ends])),
            float(np.median(times)),
            float(np.mean(np.isfinite(times))),
        )


def times_to(traces: Traces, targets: Sequence[float], sign: float, along: str) -> list[float]:
    """Of each replay, when it had reached what sequential found in the same one; infinite where it didn't."""
    pairs = zip(traces.traces, targets, strict=True)
    return [reached(trace, target, sign, along) for trace, target in pairs]
