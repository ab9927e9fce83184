"""The nearest image is scipy's, and copies are told from new images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm

from diffsearch.scoring.neighbours import memorised, nearest


@pytest.mark.parametrize(("count", "others", "dim"), [(1, 1, 1), (7, 30, 3), (600, 500, 64), (300, 40, 2048)])
def test_the_nearest_is_scipys(count: int, others: int, dim: int) -> None:
    rng = np.random.default_rng(dim)
    ours, theirs = rng.normal(3, 1, (count, dim)).astype(np.float32), rng.normal(3, 1, (others, dim)).astype(np.float32)
    index, distance = nearest(ours, theirs)
    expected = cdist(ours, theirs)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-12)


def test_a_copy_is_found_at_distance_nought() -> None:
    others = np.random.default_rng(0).normal(1000, 1, (50, 10)).astype(np.float32)  # far off: squares would round
    index, distance = nearest(others[[3, 41]], others)
    assert index.tolist() == [3, 41] and distance.tolist() == [0.0, 0.0]


def test_the_share_of_what_is_nearer_than_half_of_the_unseen() -> None:
    """On normal distances it is the normal law's: 0.5 for the same law, Φ(2) where drawn ones lie 2 σ nearer."""
    rng = np.random.default_rng(0)
    unseen = rng.normal(10, 1, 4001)
    five_errors = 5 * np.sqrt(0.25 / 4000 + 0.25 / 4000)
    assert memorised(rng.normal(10, 1, 4000), unseen) == pytest.approx(0.5, abs=five_errors)
    assert memorised(rng.normal(8, 1, 4000), unseen) == pytest.approx(norm.cdf(2), abs=five_errors)
    assert memorised(np.zeros(5), unseen) == 1.0
