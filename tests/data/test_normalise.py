"""Normalisations are exact both ways, and say what range their images lie in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffsearch import registry
from diffsearch.data.normalise import Normalization, build
from diffsearch.errors import DataError, DiffsearchError

IMAGES = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
CHOICES = [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.3, 17.1), (-1e-3, 1e-3), *registry.normalization.names()]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_normalization_is_inverted_exactly(choice: str | tuple[float, float]) -> None:
    normalization = build(choice, IMAGES.numpy())
    encoded = normalization.encode(IMAGES)
    assert encoded.dtype == torch.float32 and torch.equal(normalization.decode(encoded), IMAGES)
    assert encoded.min().item() == pytest.approx(normalization.low, rel=1e-6)
    assert encoded.max().item() == pytest.approx(normalization.high, rel=1e-6)


def test_decode_rounds_and_clamps() -> None:
    normalization = Normalization(-1, 1)
    x = torch.tensor([-7.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.0, 9.0])
    assert normalization.decode(x).tolist() == [0, 0, 1, 255, 255]


def test_mean_variance_has_mean_zero_and_variance_one() -> None:
    train = np.random.default_rng(0).integers(0, 200, (5000, 1, 4, 4), np.uint8)
    encoded = build("mean-variance", train).encode(torch.from_numpy(train)).double()
    assert encoded.mean().item() == pytest.approx(0, abs=1e-6)
    assert encoded.var(unbiased=False).item() == pytest.approx(1, abs=1e-6)


def test_a_set_of_one_value_has_no_variance() -> None:
    with pytest.raises(DataError, match="the same"):
        build("mean-variance", np.full((3, 1, 2, 2), 9, np.uint8))


@pytest.mark.parametrize("pair", [(1.0, -1.0), (0.0, 0.0), (0.0, float("nan"))])
def test_a_pair_that_is_no_range_is_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(DiffsearchError, match="the lower first"):
        build(pair, IMAGES.numpy())
