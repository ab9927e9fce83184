"""A Fréchet distance's bias in the number of images, and the distance that infinitely many would have.

Fitted to N images the distance is too large by A / N + O(1 / N²), where A depends on the network that drew them
(Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score", section 3). So a line through the distances of
several sample counts, against 1 / N, meets 1 / N = 0 at what no count biases.

Theirs are fifteen counts, each a random subset. Here the images are cut into m equal parts and the distances of the
parts averaged, for m = 1, 2, ...: counts that are evenly spaced in 1 / N, at each of which every image is used once. So
the extrapolated value varies from draw to draw no more than the distance itself (docs/statistics.md).
The reference's own count biases too, and that is left as it is: it is the same for all that is compared.
"""

from __future__ import annotations

import functools

import numpy as np

from diffsearch.scoring.features import moments
from diffsearch.scoring.reference import Reference

MOST, LEAST = 5, 3  # parts of the finest cut
PER_FEATURE = 2  # images that a part must have for each feature: with fewer the curve isn't straight


def to_infinity(features: np.ndarray, against: Reference) -> tuple[float, float]:
    """The distance at 1 / N = 0, and its standard error as a regression's intercept.

    Args:
        features: float32 (N, d), N ≥ LEAST * PER_FEATURE * d.
    """
    from scipy import stats

    parts = np.arange(1, min(MOST, len(features) // (PER_FEATURE * features.shape[1])) + 1)
    line = stats.linregress(parts / len(features), [mean_distance(features, against, int(m)) for m in parts])
    return float(line.intercept), float(line.intercept_stderr)


def bias(features: np.ndarray, against: Reference) -> float:
    """Estimate of how much too large the distance of all N images is: that of halves, on average, minus that of all.

    Halves have the bias 2 A / N. What is left out is O(1 / N²): with 3 images a feature the estimate is about a tenth
    too large, with 6 a twentieth.
    """
    return mean_distance(features, against, 2) - mean_distance(features, against, 1)


def mean_distance(features: np.ndarray, against: Reference, parts: int) -> float:
    """Mean Fréchet distance of that many equal parts of the images to the reference; always the same parts."""
    order = np.random.default_rng(0).permutation(len(features))
    return float(np.mean([_distance(features[rows], against) for rows in np.array_split(order, parts)]))


def _distance(features: np.ndarray, against: Reference) -> float:
    """`features.frechet_distance` by way of R C R, R = C'^½, whose eigenvalues are those of C C'.

    It is symmetric, so many times faster where there are thousands of features; the same but for rounding.
    """
    mean, cov = moments(features)
    root = _root(against)
    shared = np.sqrt(np.linalg.eigvalsh(root @ cov @ root).clip(min=0)).sum()
    apart = mean - against.mean
    return float(apart @ apart + np.trace(cov) + np.trace(against.cov) - 2 * shared)


@functools.lru_cache(maxsize=8)
def _root(against: Reference) -> np.ndarray:
    """(d, d): the symmetric square root of the reference's covariance."""
    values, vectors = np.linalg.eigh(against.cov)
    root: np.ndarray = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root
