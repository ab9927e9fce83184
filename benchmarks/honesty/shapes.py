"""What scores over seeds look like: the scatter of the repeats in `reports/`, and distributions of that shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]

REPORTS = Path(__file__).resolve().parents[2] / "reports"
GOOD = ("finished", "stopped early")


@dataclass(frozen=True, slots=True)
class Repeats:
    """One configuration at one epoch and sampling point, over seeds."""

    report: str
    metric: str
    place: tuple[str, ...]  # stage, the axes' values, epoch, samples: all but the sampling point
    sampling: str
    scores: tuple[float, ...]  # in the order of their seeds


def repeats(folder: Path = REPORTS) -> list[Repeats]:
    """What committed reports hold of the first of their metrics, wherever there are two seeds or more."""
    found = []
    for path in sorted(folder.glob("*/table.csv")):
        table = pd.read_csv(path)
        names = list(table.columns)
        axes = names[names.index("epoch") + 1 : names.index("sampling")]
        metric = names[names.index("sampling") + 1]
        table = table[table["state"].isin(GOOD)]
        where = ["stage", *axes, "epoch", "samples"]
        for place, group in table.astype(dict.fromkeys(axes, str)).groupby([*where, "sampling"], sort=False):
            seeds = group.drop_duplicates("seed").sort_values("seed")
            if len(seeds) > 1:
                scores = tuple(float(score) for score in seeds[metric])
                found.append(Repeats(path.parent.name, metric, tuple(map(str, place[:-1])), str(place[-1]), scores))
    return found


def of_kind(measured: Sequence[Repeats], kind: str) -> list[Repeats]:
    """One sampling point of each place, so that no network counts twice."""
    own = [each for each in measured if each.metric.startswith(f"{kind}-")]
    return list({(each.report, each.place): each for each in reversed(own)}.values())[::-1]


@dataclass(frozen=True, slots=True)
class Scatter:
    """How the standard deviation of the logarithm of a score over seeds varies between configurations.

    Its square is `squared` · `freedom` / χ²(`freedom`): the prior of Smyth 2004 ("Linear Models and Empirical Bayes
    Methods"), under which variances of repeats are `squared` times F-distributed.
    """

    squared: float
    freedom: float
    configurations: int

    def quantile(self, share: float) -> float:
        return math.sqrt(self.squared * self.freedom / stats.chi2.ppf(1 - share, self.freedom))

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
        """Standard deviations; none above the 99th percentile, where the fit is a guess."""
        drawn = np.sqrt(self.squared * self.freedom / rng.chisquare(self.freedom, size))
        return np.minimum(drawn, self.quantile(0.99))


def fit(groups: Sequence[Repeats]) -> Scatter:
    """Maximum likelihood of the repeats' variances."""
    variance = np.array([np.log(each.scores).var(ddof=1) for each in groups])
    freedom = np.array([len(each.scores) - 1 for each in groups])

    def loss(guess: Floats) -> float:
        scale, prior = np.exp(guess)
        likely = np.sum(stats.f.logpdf(variance / scale, freedom, prior))
        return float(len(variance) * guess[0] - likely)

    best = optimize.minimize(loss, [np.log(np.median(variance)), 1.0], method="Nelder-Mead")
    squared, prior = np.exp(best.x)
    return Scatter(float(squared), float(prior), len(groups))


# --- distributions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Family:
    """Scores over seeds whose logarithm has about the standard deviation s; arrays of s go with `shape`."""

    name: str
    draw: Callable[[np.random.Generator, Floats | float, tuple[int, ...]], Floats]
    median: Callable[[float], float]
    mean: Callable[[float], float]


def _gamma(rng: np.random.Generator, s: Floats | float, shape: tuple[int, ...]) -> Floats:
    k = 1 / np.square(s)
    return rng.gamma(np.broadcast_to(k, shape)) / k


FLOOR = 1 / 3  # of the median score: what no training takes away, such as the bias of few images
BAD, WORSE = 0.1, 1.5  # one seed in ten trains worse by half


def _above_floor(s: Floats | float) -> Floats | float:
    """Of the part above the floor: so that the whole has about the logarithmic deviation s."""
    return np.asarray(s) * (1 + FLOOR)


def _unlucky_median(s: float) -> float:
    def excess(x: float) -> float:
        good, bad = (float(stats.norm.cdf(math.log(y) / s)) for y in (x, x / WORSE))
        return (1 - BAD) * good + BAD * bad - 0.5

    return float(optimize.brentq(excess, math.exp(-3 * s), math.exp(3 * s)))


FAMILIES = (
    Family(
        "log-normal",
        lambda rng, s, shape: np.exp(s * rng.normal(size=shape)),
        lambda s: 1.0,
        lambda s: math.exp(s * s / 2),
    ),
    Family("gamma", _gamma, lambda s: float(stats.gamma.median(1 / s**2) * s**2), lambda s: 1.0),
    Family(
        "log-normal above a floor",
        lambda rng, s, shape: FLOOR + np.exp(_above_floor(s) * rng.normal(size=shape)),
        lambda s: 1 + FLOOR,
        lambda s: FLOOR + math.exp(float(_above_floor(s)) ** 2 / 2),
    ),
    Family(
        "log-normal, a tenth of the seeds half as bad again",
        lambda rng, s, shape: np.exp(s * rng.normal(size=shape)) * np.where(rng.random(shape) < BAD, WORSE, 1.0),
        _unlucky_median,
        lambda s: math.exp(s * s / 2) * (1 + BAD * (WORSE - 1)),
    ),
)


def rows(measured: Sequence[Repeats]) -> list[tuple[str, str]]:
    found = []
    for kind in ("fd", "kd"):
        scatter = fit(of_kind(measured, kind))
        low, middle, high = (scatter.quantile(share) for share in (0.05, 0.5, 0.95))
        found.append(
            (
                f"{kind}: scatter over seeds of {scatter.configurations} repeated configurations in reports/",
                f"standard deviation of log score {middle:.2f} (90 % of configurations: {low:.2f} to {high:.2f})",
            )
        )
    return found
