"""The Fréchet distance of infinitely many images, and the bias of few, where both are known in closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from diffsearch.data.datasets import ImageData
from diffsearch.records import Score
from diffsearch.scoring import extrapolation
from diffsearch.scoring.features import extractor, frechet_distance, moments
from diffsearch.scoring.metrics import score
from diffsearch.scoring.reference import Reference, reference
from diffsearch.space.settings import as_json

DIM = 16
RNG = np.random.default_rng(0)
MEAN, DEVIATIONS = RNG.normal(0, 0.5, DIM), RNG.uniform(0.5, 2, (2, DIM))
DISTANCE = float(np.sum(MEAN**2) + np.sum((DEVIATIONS[0] - DEVIATIONS[1]) ** 2))  # diagonal covariances
KNOWN = Reference(np.zeros(DIM), np.diag(DEVIATIONS[1] ** 2), np.zeros((1, DIM), np.float32), 10**9, "0" * 16, "0" * 16)


def draw(count: int, seed: int) -> np.ndarray:
    """Features whose distance to KNOWN is DISTANCE, were there infinitely many."""
    return MEAN + DEVIATIONS[0] * np.random.default_rng(seed).normal(size=(count, DIM))


def test_the_distances_of_parts_are_the_existing_ones_averaged() -> None:
    features = draw(200, 1)
    order = np.random.default_rng(0).permutation(200)
    for parts in (1, 2, 3):
        expected = [
            frechet_distance(*moments(features[rows]), KNOWN.mean, KNOWN.cov) for rows in np.array_split(order, parts)
        ]
        assert extrapolation.mean_distance(features, KNOWN, parts) == pytest.approx(np.mean(expected), rel=1e-9)


@pytest.mark.parametrize(("count", "share"), [(120, 0.15), (400, 0.1)])
def test_it_meets_the_closed_form_where_the_distance_itself_is_biased(count: int, share: float) -> None:
    """Over 120 draws; within 4 standard errors, and within a share of the bias for what is beyond 1 / N."""
    infinite, finite, told = (np.empty(120) for _ in range(3))
    for seed in range(120):
        features = draw(count, seed)
        infinite[seed] = extrapolation.to_infinity(features, KNOWN)[0]
        finite[seed] = extrapolation.mean_distance(features, KNOWN, 1)
        told[seed] = extrapolation.bias(features, KNOWN)
    error = infinite.std() / math.sqrt(120)
    bias = finite.mean() - DISTANCE
    assert bias > 10 * error, "there is something to take away"
    assert abs(infinite.mean() - DISTANCE) < 4 * error + share * bias
    assert told.mean() == pytest.approx(bias, rel=share, abs=4 * error)
    assert infinite.std() < 1.1 * finite.std(), "every image is used at each count, so nothing is lost"


def test_the_spread_is_the_intercepts_standard_error() -> None:
    """Least squares in 1 / N by numpy's own formulas."""
    features = draw(400, 3)
    x = np.arange(1, 6) / 400
    y = np.array([extrapolation.mean_distance(features, KNOWN, m) for m in range(1, 6)])
    (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
    assert extrapolation.to_infinity(features, KNOWN) == pytest.approx((intercept, math.sqrt(covariance[1, 1])))
    assert slope > 0


def test_the_same_images_give_the_same_number() -> None:
    assert extrapolation.to_infinity(draw(200, 5), KNOWN) == extrapolation.to_infinity(draw(200, 5), KNOWN)


def test_real_digits_are_at_no_distance_from_others_of_their_kind(digits: ImageData, tmp_path: Path) -> None:
    """Training digits to the 10,000 test digits: of 500, most of the distance is bias."""
    images = np.array(digits.train[::10])
    found = score(images, ["fd-digits", "fd-infinity-digits"], digits, tmp_path)
    distance, infinite = found["fd-digits"], found["fd-infinity-digits"]
    assert distance.bias is not None and 0.5 * distance.value < distance.bias < 1.5 * distance.value
    assert abs(infinite.value) < 0.5 * distance.value and infinite.spread > 0 and infinite.bias is None


def test_the_bias_is_told_where_halves_have_enough_images_and_is_written_only_then(
    digits: ImageData, tmp_path: Path
) -> None:
    few, enough = (
        score(np.array(digits.train[:count]), ["fd-digits"], digits, tmp_path)["fd-digits"] for count in (129, 130)
    )
    assert few.bias is None and "bias" not in as_json(few) and Score(**as_json(few)) == few
    assert enough.bias > 0 and Score(**as_json(enough)) == enough


def test_the_score_itself_is_what_it_was(digits: ImageData, tmp_path: Path) -> None:
    features = extractor("digits").extract(digits.train[:300])
    against = reference(digits, "test", extractor("digits"), tmp_path)
    expected = frechet_distance(*moments(features), against.mean, against.cov)
    assert score(np.array(digits.train[:300]), ["fd-digits"], digits, tmp_path)["fd-digits"].value == expected
