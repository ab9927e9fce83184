"""How often a winner is named that is none, and how often one that is, by method: of finalists over n seeds each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.honesty.shapes import FAMILIES, Floats, Scatter
from diffsearch.scoring.statistics import WRONG, against_first, holm

COUNTS = (3, 5, 10)
FINALISTS = (2, 3, 5)
DRAWS = 20_000
BETTER = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # by which share the best one's median lies below all others'
OURS, HOLM, GAMES_HOWELL, TUKEY, OLD = (
    "Welch, corrected (ours)",
    "Welch, Holm alone",
    "Games & Howell",
    "Tukey, pooled",
    "mean ± standard error don't overlap",
)
METHODS = (OURS, HOLM, GAMES_HOWELL, TUKEY, OLD)
STEPS = {  # log medians: the best are equal, so that any winner is false
    "two equal, one 5 % worse": (0, 0, 0.05),
    "two equal, one 15 % worse": (0, 0, 0.15),
    "two equal, one 35 % worse": (0, 0, 0.3),
    "two equal, three 65 % worse": (0, 0, 0.5, 0.5, 0.5),
    "two equal, three far worse": (0, 0, 1, 1, 1),
    "two equal, others ever worse": (0, 0, 0.3, 0.6, 0.9),
}


@dataclass(frozen=True, slots=True)
class Claims:
    """Shares of DRAWS studies."""

    equal: Mapping[str, Mapping[tuple[int, int], list[float]]]  # method → (k, n) → any claim, by family and scatter
    steps: Mapping[tuple[str, int], float]  # (case, n) → any false claim of ours
    power: Mapping[str, Mapping[tuple[int, int, float], float]]  # method → (k, n, better) → names the best as winner
    wrong: Mapping[tuple[int, int, float], float]  # ours names another one
    lowest: Mapping[tuple[int, int, float], float]  # the lowest of k n single scores is not the best one's


def measure(rng: np.random.Generator, scatter: Scatter) -> Claims:
    equal: dict[str, dict[tuple[int, int], list[float]]] = {m: {} for m in METHODS}
    for k in FINALISTS:
        for n in COUNTS:
            for family in FAMILIES:
                alike = np.full((DRAWS, k, 1), scatter.quantile(0.5))
                # where scatters differ, medians are equal for the log-normal family alone
                cases = [alike, scatter.draw(rng, (DRAWS, k, 1))] if family is FAMILIES[0] else [alike]
                for s in cases:
                    claimed = _claims(family.draw(rng, s, (DRAWS, k, n)))
                    for method in METHODS:
                        equal[method].setdefault((k, n), []).append(float(claimed[method].any(axis=-1).mean()))
    steps = {}
    for case, medians in STEPS.items():
        for n in COUNTS:
            scores, centre = _scores(rng, scatter, medians, n)
            first = np.log(scores).mean(axis=-1).argmin(axis=-1)
            false = _claims(scores, (OURS,))[OURS] & (centre[first][:, None] >= centre)
            steps[case, n] = float(false.any(axis=-1).mean())
    power: dict[str, dict[tuple[int, int, float], float]] = {m: {} for m in METHODS}
    wrong, lowest = {}, {}
    for k in FINALISTS:
        for n in COUNTS:
            for better in BETTER:
                scores, _ = _scores(rng, scatter, (np.log1p(-better), *[0.0] * (k - 1)), n)
                first = np.log(scores).mean(axis=-1).argmin(axis=-1)
                for method, claims in _claims(scores, (OURS, HOLM)).items():
                    wins = claims.sum(axis=-1) == k - 1
                    power[method][k, n, better] = float((wins & (first == 0)).mean())
                    if method == OURS:
                        wrong[k, n, better] = float((wins & (first != 0)).mean())
                single, _ = _scores(rng, scatter, (np.log1p(-better), *[0.0] * (k * n - 1)), 1)
                lowest[k, n, better] = float((single[..., 0].argmin(axis=-1) != 0).mean())
    return Claims(equal, steps, power, wrong, lowest)


def _scores(rng: np.random.Generator, scatter: Scatter, medians: tuple[float, ...], n: int) -> tuple[Floats, Floats]:
    """(DRAWS, k, n) log-normal scores, each configuration with a scatter of its own, and the log medians."""
    centre = np.array(medians, dtype=np.float64)
    s = scatter.draw(rng, (DRAWS, len(centre), 1))
    return np.exp(centre[:, None] + s * rng.normal(size=(DRAWS, len(centre), n))), centre


def _claims(scores: Floats, methods: tuple[str, ...] = METHODS) -> dict[str, npt.NDArray[np.bool_]]:
    """Method → (DRAWS, k): what the first is called better than; (DRAWS, k, n) scores."""
    k, n = scores.shape[1:]
    logs = np.log(scores)
    mean, variance = logs.mean(axis=-1), logs.var(axis=-1, ddof=1)
    first = mean.argmin(axis=-1)
    here, there = np.triu_indices(k, 1)
    deviation = np.sqrt(variance)
    tests = stats.ttest_ind_from_stats(
        mean[:, here], deviation[:, here], n, mean[:, there], deviation[:, there], n, equal_var=False
    )
    p_of_pair: Floats = np.asarray(tests.pvalue)
    gap, both = np.abs(mean[:, here] - mean[:, there]), variance[:, here] + variance[:, there]
    freedom = both**2 / (variance[:, here] ** 2 + variance[:, there] ** 2) * (n - 1)
    with_all = np.sqrt(2 * variance.mean(axis=-1, keepdims=True) / n)
    raw, error = scores.mean(axis=-1), scores.std(axis=-1, ddof=1) / np.sqrt(n)
    apart = np.abs(raw[:, here] - raw[:, there]) > error[:, here] + error[:, there]
    p: dict[str, Callable[[], Floats]] = {
        HOLM: lambda: holm(p_of_pair),
        GAMES_HOWELL: lambda: _at_level(np.sqrt(2) * gap / np.sqrt(both / n), k, freedom),
        TUKEY: lambda: _at_level(np.sqrt(2) * gap / with_all, k, np.full((1, 1), float(k * (n - 1)))),
        OLD: lambda: np.where(apart, 0.0, 1.0),
    }
    claims = {method: _of_first(p[method](), first, k) < WRONG for method in methods if method in p}
    return {OURS: against_first(p_of_pair, first, k) < WRONG, **claims}


def _of_first(p: Floats, first: npt.NDArray[np.intp], k: int) -> Floats:
    here, there = np.triu_indices(k, 1)
    square = np.ones((len(p), k, k))
    square[:, here, there] = square[:, there, here] = p
    row: Floats = np.take_along_axis(square, first[:, None, None], axis=1)[:, 0]
    return row


def _at_level(q: Floats, k: int, freedom: Floats) -> Floats:
    """0 where the studentised range is significant at 5 %, else 1; its quantile is read off a table of degrees."""
    degrees, critical = _critical(k)
    return np.where(q > np.interp(1 / freedom, 1 / degrees[::-1], critical[::-1]), 0.0, 1.0)


@functools.cache
def _critical(k: int) -> tuple[Floats, Floats]:
    degrees = np.array([2, 2.5, 3, 4, 5, 6, 8, 12, 20, 50.0])
    return degrees, np.array([stats.studentized_range.ppf(0.95, k, df) for df in degrees])


def rows(found: Claims) -> list[tuple[str, str]]:
    def at(method: str, k: int) -> str:
        return ", ".join(f"n {n}: {100 * max(found.equal[method][k, n]):.1f} %" for n in COUNTS)

    rates = [
        (f"{k} identical finalists, some named better by {method} (worst case)", at(method, k))
        for method in METHODS
        for k in FINALISTS
    ]
    worst = max(found.steps, key=lambda case: found.steps[case])
    named = [
        (
            f"{k} finalists × {n} seeds, one 30 % better: named by ours; by Holm alone; another named by ours; "
            f"another is the lowest of {k * n} single scores",
            f"{100 * found.power[OURS][k, n, 0.3]:.0f} %; {100 * found.power[HOLM][k, n, 0.3]:.0f} %; "
            f"{100 * found.wrong[k, n, 0.3]:.1f} %; {100 * found.lowest[k, n, 0.3]:.0f} %",
        )
        for k in FINALISTS
        for n in COUNTS
    ]
    return [
        *rates,
        ("N identical configurations, one score each, the lowest called the winner", "100 %: it always names one"),
        (
            f"{len(found.steps)} cases where the best two are equal: any false claim of ours, at worst",
            f"{100 * found.steps[worst]:.1f} % ({worst[0]}, n {worst[1]})",
        ),
        *named,
    ]
