"""Many pictures in one grid, as torchvision lays them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.utils import make_grid

from diffsearch.data.pixels import grid


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns"), [(1, 16), (2, 16), (16, 16), (17, 16), (5, 1), (128, 16)])
def test_a_grid_is_torchvisions(count: int, columns: int, channels: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, channels, 4, 6), dtype=np.uint8)
    theirs = make_grid(torch.from_numpy(images), nrow=columns, padding=1, pad_value=255)
    assert np.array_equal(grid(images, columns), theirs.permute(1, 2, 0).numpy())
