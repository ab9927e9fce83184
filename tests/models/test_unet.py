"""The U-Net takes any number of resolutions, any image size, and says which groups don't fit."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.attention import Attended, SelfAttention
from diffsearch.models.blocks import Block, group_count
from diffsearch.models.unet import UNet


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [1, 2, 3, 7, 28])
def test_any_number_of_levels_fits_any_image(levels: int, side: int) -> None:
    network = UNet((1, side, side + 1), 15, channels=(4, 8, 8, 16, 16)[:levels])
    nn.init.ones_(network.head.weight)
    x = torch.randn(2, 1, side, side + 1)
    output = network(x, torch.tensor([1, 15]))
    assert output.shape == x.shape and output.isfinite().all()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 2 * (2 * levels - 1), "ten convolutions for three levels, as in report 002"


@pytest.mark.parametrize(("levels", "reach"), [(1, 2), (4, 12)])
def test_a_pixel_sees_as_far_as_its_levels_reach(levels: int, reach: int) -> None:
    """Two 3×3 convolutions see 2 pixels far; through 13 → 7 → 4 → 2 pixels and back, each sees all: no side is lost.

    The norms, through which everything sees everything, are taken out.
    """
    network = UNet((1, 13, 13), 15, channels=(8,) * levels)
    nn.init.ones_(network.head.weight)
    for block in (*network.down, network.middle, *network.up):
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    x = torch.randn((1, 1, 13, 13), generator=torch.Generator().manual_seed(0)).requires_grad_()
    for row, column in itertools.product((0, 6, 12), repeat=2):
        (gradient,) = torch.autograd.grad(network(x, torch.tensor([3]))[0, 0, row, column], x)
        near = torch.zeros(13, 13, dtype=torch.bool)
        near[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = True
        assert torch.equal(gradient[0, 0] != 0, near)


def test_the_groups_adapt_to_the_channels() -> None:
    assert [group_count(c, None) for c in (1, 7, 8, 12, 31, 62, 128)] == [1, 7, 8, 6, 1, 2, 8]
    assert group_count(62, 31) == 31
    assert UNet((1, 28, 28), 15, channels=(62, 128, 256)).down[0].norm1.num_groups == 2


def test_groups_that_do_not_divide_are_refused_by_name() -> None:
    with torch.device("meta"), pytest.raises(DiffsearchError, match=r"8 groups don't divide 62 channels"):
        UNet((1, 28, 28), 15, channels=(62, 128, 256), groups=8)
    with pytest.raises(DiffsearchError, match="0 groups"):
        UNet((1, 28, 28), 15, groups=0)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": ()},
        {"channels": (8, 0)},
        {"time_dim": 5},
        {"blocks": 0},
        {"dropout": 1.0},
        {"attention": (28,), "heads": 5},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(DiffsearchError):
        UNet((1, 28, 28), 15, **options)  # type: ignore[arg-type]


def test_attention_stands_where_it_was_asked_for() -> None:
    network = UNet((1, 28, 28), 15, channels=(8, 8, 16), attention=(7, 14), heads=2)
    assert not any(isinstance(m, SelfAttention) for m in network.down[0].modules())
    for stage in (network.down[1], network.middle, network.up[0]):
        assert isinstance(stage, Attended) and stage.attention.heads == 2
    assert isinstance(network.up[1], Block)
    with pytest.raises(DiffsearchError, match=r"no resolution is 16 pixels high; they are 28, 14, 7"):
        UNet((1, 28, 28), 15, channels=(8, 8, 16), attention=(16,))


@pytest.mark.parametrize("down", ["average", "max", "conv"])
@pytest.mark.parametrize("up", ["nearest", "nearest-conv", "transposed"])
def test_either_way_fits_odd_sides(down: str, up: str) -> None:
    network = UNet((3, 13, 10), 15, channels=(4, 8, 8), down=down, up=up, attention=(4,), blocks=2)  # type: ignore[arg-type]
    nn.init.ones_(network.head.weight)
    output = network(torch.randn(2, 3, 13, 10), torch.tensor([1, 15]))
    assert output.shape == (2, 3, 13, 10) and output.isfinite().all()


def test_dropout_acts_while_training_alone() -> None:
    network = UNet((1, 8, 8), 15, channels=(8,), dropout=0.5)
    nn.init.ones_(network.head.weight)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 15])
    assert not torch.equal(network.train()(x, t), network(x, t)) and torch.equal(network.eval()(x, t), network(x, t))
