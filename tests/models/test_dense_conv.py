"""The two plain networks are report 002's, and refuse what can't be built."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.conv import Conv
from diffsearch.models.dense import Dense
from diffsearch.models.embeddings import sinusoidal


def test_conv_is_four_convolutions_with_the_time_as_a_channel() -> None:
    sizes = [m.weight.shape[:2] for m in Conv((1, 28, 28), 15).modules() if isinstance(m, nn.Conv2d)]
    assert sizes == [(4, 2), (4, 4), (4, 4), (1, 4)]
    assert Conv((3, 8, 8), 15, depth=1)(torch.ones(2, 3, 8, 8), torch.tensor([1, 2])).shape == (2, 3, 8, 8)


def test_dense_has_the_widths_it_was_given() -> None:
    widths = [m.out_features for m in Dense((1, 4, 4), 15, hidden=(7, 9)).modules() if isinstance(m, nn.Linear)]
    assert widths == [7, 9, 16]
    assert Dense((1, 4, 4), 15, hidden=())(torch.ones(2, 1, 4, 4), torch.tensor([1, 2])).shape == (2, 1, 4, 4)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(DiffsearchError, match="hidden"):
        Dense((1, 4, 4), 15, hidden=(8, 0))
    with pytest.raises(DiffsearchError, match="depth"):
        Conv((1, 4, 4), 15, depth=0)
    with pytest.raises(DiffsearchError, match="odd"):
        Conv((1, 4, 4), 15, kernel_size=2)


def test_the_embedding_depends_on_the_share_of_T_and_tells_all_steps_apart() -> None:
    assert torch.equal(sinusoidal(torch.tensor([3]), 15, 32), sinusoidal(torch.tensor([200]), 1000, 32))
    rows = sinusoidal(torch.arange(1, 1001), 1000, 32)
    assert rows.shape == (1000, 32) and (torch.cdist(rows, rows) + torch.eye(1000) * 9).min() > 0.1
