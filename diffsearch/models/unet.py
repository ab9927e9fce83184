"""A plain U-Net: two convolutions a resolution, joined across by skips."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.attention import Attended, Chain, Gates, SelfAttention
from diffsearch.models.blocks import Block, How, Norm, zeroed
from diffsearch.models.embeddings import Context
from diffsearch.registry import model


@model.register("unet")
class UNet(nn.Module):
    """Ronneberger et al. 2015 in small: 2·(2·levels - 1) convolutions, ten for three levels, and a 1×1 head.

    Any image size will do: where a side is odd, the last row or column is averaged over what there is of it, and the
    way up is cropped to the size that the way down had. At 28×28 five levels see 28, 14, 7, 4 and 2 pixels.

    Args:
        image_shape: (C, H, W).
        steps: T.
        classes: K that it can be told; 0: it is unconditional.
        outputs: channels of the output; None: the image's.
        channels: of each resolution, finest first; as many as there are resolutions (≥ 1).
        groups: of every GroupNorm; None takes the largest divisor of the channels up to 8.
        time_dim: length of the time embedding (even, ≥ 4).
        blocks: of two convolutions each, at every resolution on either way.
        norm, dropout, residual, context: of every block, see `Block`; "concat" joins time and label in a perceptron
            before any block reads them.
        down: to half the size by the mean of 2×2 pixels, their maximum, or a 3×3 convolution with stride 2.
        up: to twice the size by repeating pixels, that and a 3×3 convolution, or a transposed 2×2 convolution.
        attention: heights in pixels of the resolutions whose blocks are followed by self-attention.
        heads: of each attention.
        gate: after every block its channels and pixels are scaled by what they hold, see `Gates`.
        output: "tanh" bounds the output, for targets within [-1, 1].

    Raises:
        DiffsearchError: no channels, channels below 1, groups or heads that don't divide them, no blocks, dropout
            outside of [0, 1), a height that no resolution has, or an odd time_dim.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        steps: int,
        classes: int = 0,
        outputs: int | None = None,
        *,
        channels: tuple[int, ...] = (32, 64, 128),
        groups: int | None = None,
        time_dim: int = 64,
        blocks: int = 1,
        norm: Norm = "group",
        dropout: float = 0.0,
        residual: bool = False,
        context: How = "scale-shift",
        down: Literal["average", "max", "conv"] = "average",
        up: Literal["nearest", "nearest-conv", "transposed"] = "nearest",
        attention: tuple[int, ...] = (),
        heads: int = 1,
        gate: Literal["none", "half", "full"] = "none",
        output: Literal["none", "tanh"] = "none",
    ) -> None:
        super().__init__()
        heights = [math.ceil(image_shape[1] / 2**level) for level in range(len(channels))]
        _check(channels, time_dim, blocks, dropout, attention, heights)
        label_dim = time_dim if classes and context != "concat" else 0

        def stage(inputs: int, level: int) -> nn.Module:
            """The blocks of one resolution on one way."""
            chain: list[nn.Module] = []
            for before in (inputs, *(channels[level],) * (blocks - 1)):
                block: nn.Module = Block(
                    before,
                    channels[level],
                    time_dim + label_dim,
                    groups,
                    norm=norm,
                    dropout=dropout,
                    residual=residual,
                    context=context,
                    label_dim=label_dim,
                )
                if gate != "none":
                    block = Attended(block, Gates(channels[level], gate))
                if heights[level] in attention:
                    block = Attended(block, SelfAttention(channels[level], heads, groups))
                chain.append(block)
            return chain[0] if blocks == 1 else Chain(chain)

        levels, coarsest = range(len(channels)), len(channels) - 1
        inputs = (image_shape[0], *channels[:-1])
        self.time = Context(steps, time_dim, classes, joined=context == "concat")
        self.down = nn.ModuleList(stage(inputs[level], level) for level in levels[:-1])
        self.middle = stage(inputs[-1], coarsest)
        self.up = nn.ModuleList(  # coarsest first, in the order of their use
            stage(channels[level + 1] + channels[level], level) for level in reversed(levels[:-1])
        )
        self.shrink = nn.ModuleList(_shrink(down, channels[level]) for level in levels[:-1])
        self.grow = nn.ModuleList(_grow(up, channels[level + 1]) for level in reversed(levels[:-1]))
        self.head = zeroed(nn.Conv2d(channels[0], image_shape[0] if outputs is None else outputs, 1))
        self.output = output

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B,) in 0..T and, for a conditional network, label rows (B, K) -> (B, outputs, H, W)."""
        told = self.time(t, labels)
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x = block(x, told)
            skips.append(x)
            x = shrink(x)
        x = self.middle(x, told)
        for block, grow in zip(self.up, self.grow, strict=True):
            skip, x = skips.pop(), grow(x)
            x = block(torch.cat([x[:, :, : skip.shape[2], : skip.shape[3]], skip], dim=1), told)
        output: Tensor = self.head(x)
        return output.tanh() if self.output == "tanh" else output


def _check(
    channels: tuple[int, ...],
    time_dim: int,
    blocks: int,
    dropout: float,
    attention: tuple[int, ...],
    heights: list[int],
) -> None:
    """Refuse what no U-Net can be built with, by the name of the option."""
    if not channels or min(channels) < 1:
        raise DiffsearchError(f"model.channels must be one or more numbers ≥ 1, got {list(channels)}")
    if time_dim < 4 or time_dim % 2:
        raise DiffsearchError(f"model.time_dim must be even and at least 4, got {time_dim}")
    if blocks < 1:
        raise DiffsearchError(f"model.blocks must be at least 1, got {blocks}")
    if not 0 <= dropout < 1:
        raise DiffsearchError(f"model.dropout must lie in [0, 1), got {dropout:g}")
    if strange := [height for height in attention if height not in heights]:
        known = ", ".join(map(str, heights))
        raise DiffsearchError(f"model.attention: no resolution is {strange[0]} pixels high; they are {known}")


def _shrink(kind: str, channels: int) -> nn.Module:
    """(B, channels, H, W) -> (B, channels, ⌈H/2⌉, ⌈W/2⌉)."""
    if kind == "conv":
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
    if kind == "max":
        return nn.MaxPool2d(2, ceil_mode=True)
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


def _grow(kind: str, channels: int) -> nn.Module:
    """(B, channels, H, W) -> (B, channels, 2 H, 2 W)."""
    if kind == "transposed":
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)
    repeat = nn.Upsample(scale_factor=2.0, mode="nearest")
    return nn.Sequential(repeat, nn.Conv2d(channels, channels, 3, padding=1)) if kind == "nearest-conv" else repeat
