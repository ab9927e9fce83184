"""What common noise is worth: in the reports' own scores, between sampling points and between configurations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.honesty.shapes import Repeats
from diffsearch.scoring.statistics import difference


def rows(measured: Sequence[Repeats]) -> list[tuple[str, str]]:
    found, every = [], []
    for report in dict.fromkeys(each.report for each in measured):
        own = [each for each in measured if each.report == report]
        points = [pair for place in _by(own, "place") for pair in itertools.combinations(place, 2)]
        every += points
        sampling = _narrower(points)
        if sampling:
            found.append((f"{report}, {own[0].metric}: sampling points of the same networks", sampling))
        alike = [
            [each for each in group if len(each.scores) > 2]
            for group in _by([each for each in own if each.place[0]], "sampling")
        ]
        same = [pair for group in alike for pair in itertools.combinations(group, 2) if _share_epoch(pair)]
        between = _narrower(same)
        if between:
            found.append((f"{report}, {own[0].metric}: configurations, same seeds and noise", between))
    return [("all reports: sampling points of the same networks", _narrower(every)), *found]


def _by(measured: Iterable[Repeats], what: str) -> list[list[Repeats]]:
    groups: dict[object, list[Repeats]] = {}
    for each in measured:
        groups.setdefault(getattr(each, what), []).append(each)
    return list(groups.values())


def _share_epoch(pair: tuple[Repeats, Repeats]) -> bool:
    """Stage, epoch and sample count alike."""
    return all(pair[0].place[i] == pair[1].place[i] for i in (0, -2, -1))


def _narrower(pairs: Iterable[tuple[Repeats, Repeats]]) -> str:
    """Correlation of the logarithms over seeds, and how many times narrower the paired interval is; medians."""
    factors, together = [], []
    for a, b in pairs:
        if len(a.scores) != len(b.scores):
            continue
        paired, apart = (difference(a.scores, b.scores, "log", paired=way) for way in (True, False))
        if paired is None or apart is None:
            continue
        wide = [np.log(each.interval[1] / each.interval[0]) for each in (paired, apart)]
        factors.append(wide[1] / wide[0])
        x, y = (np.log(each.scores) - np.mean(np.log(each.scores)) for each in (a, b))
        together.append((float(x @ y), float(x @ x), float(y @ y)))
    if not factors:
        return ""
    xy, xx, yy = np.array(together).T
    correlation = xy.sum() / np.sqrt(xx * yy).sum()
    quartiles = np.percentile(factors, [25, 50, 75])
    return (
        f"correlation {correlation:.2f}; paired intervals {quartiles[1]:.2g} times as narrow "
        f"(quartiles {quartiles[0]:.2g} to {quartiles[2]:.2g}, {len(factors)} pairs)"
    )
