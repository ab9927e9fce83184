"""Attention: between the pixels of a feature map, and gates on its channels and pixels."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.blocks import GroupNorm, group_count, zeroed


class SelfAttention(nn.Module):
    """Each pixel reads from all others (Vaswani et al. 2017; in a U-Net, Ho et al. 2020), added to what it was.

    Its last layer starts at zero, so that the untrained block passes its input on.

    Args:
        channels: in and out; a multiple of `heads`.
        heads: attended to side by side.
        groups: of the GroupNorm before; None adapts to the channels.

    Raises:
        DiffsearchError: heads that don't divide the channels.
    """

    def __init__(self, channels: int, heads: int = 1, groups: int | None = None) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise DiffsearchError(f"model.heads: {heads} heads don't divide {channels} channels")
        self.heads = heads
        self.norm = GroupNorm(group_count(channels, groups), channels)
        self.read = nn.Conv2d(channels, 3 * channels, 1)  # query, key and value
        self.write = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        batch, channels, height, width = x.shape
        flat = self.read(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = flat.transpose(3, 4).unbind(1)  # each (B, heads, pixels, channels of a head)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = x + self.write(mixed.transpose(2, 3).reshape(batch, channels, height, width))
        return output


GateRange: TypeAlias = Literal["half", "full"]


class Gates(nn.Module):
    """Channels, then pixels, each scaled by a sigmoid of what they hold (Woo et al. 2018, the CBAM block in small).

    Channels: their means through two linear layers. Pixels: mean and maximum over the channels through a 7×7
    convolution.

    Args:
        channels: in and out.
        span: "full": factors in (0, 1); "half": in (½, 1), so that no pixel can be blotted out.
    """

    def __init__(self, channels: int, span: GateRange) -> None:
        super().__init__()
        narrow = max(1, channels // 4)
        self.first, self.second = nn.Linear(channels, narrow), nn.Linear(narrow, channels)
        self.pixels = nn.Conv2d(2, 1, 7, padding=3)
        self.span = span

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        of_channels = self.second(nn.functional.silu(self.first(x.mean((2, 3)))))
        x = x * of_channels.sigmoid()[:, :, None, None]
        seen = self.pixels(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)).sigmoid()
        return x * (seen if self.span == "full" else (1 + seen) / 2)


class Attended(nn.Module):
    """A block and the attention after it."""

    def __init__(self, block: nn.Module, attention: nn.Module) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """As the block alone."""
        output: Tensor = self.attention(self.block(x, time))
        return output


class Chain(nn.Module):
    """Blocks at one resolution, one after another, each told the time."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """As its blocks."""
        for block in self.blocks:
            x = block(x, time)
        return x
