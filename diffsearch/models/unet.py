"""A plain U-Net: two convolutions a resolution, joined across by skips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.blocks import Block, zeroed
from diffsearch.models.embeddings import TimeEmbedding
from diffsearch.registry import model


@model.register("unet")
class UNet(nn.Module):
    """Ronneberger et al. 2015 in small: 2·(2·levels - 1) convolutions, ten for three levels, and a 1×1 head.

    Any image size will do: where a side is odd, the last row or column is averaged over what there is of it, and the
    way up is cropped to the size that the way down had. At 28×28 five levels see 28, 14, 7, 4 and 2 pixels.

    Args:
        image_shape: (C, H, W).
        steps: T.
        channels: of each resolution, finest first; as many as there are resolutions (≥ 1).
        groups: of every GroupNorm; None takes the largest divisor of the channels up to 8.
        time_dim: length of the time embedding (even, ≥ 4).

    Raises:
        DiffsearchError: no channels, channels below 1, groups that don't divide them, or an odd time_dim.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        steps: int,
        *,
        channels: tuple[int, ...] = (32, 64, 128),
        groups: int | None = None,
        time_dim: int = 64,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise DiffsearchError(f"model.channels must be one or more numbers ≥ 1, got {list(channels)}")
        if time_dim < 4 or time_dim % 2:
            raise DiffsearchError(f"model.time_dim must be even and at least 4, got {time_dim}")
        inputs = (image_shape[0], *channels[:-1])
        self.time = TimeEmbedding(steps, time_dim)
        self.down = nn.ModuleList(
            Block(before, width, time_dim, groups) for before, width in zip(inputs[:-1], channels[:-1], strict=True)
        )
        self.middle = Block(inputs[-1], channels[-1], time_dim, groups)
        self.up = nn.ModuleList(  # coarsest first, in the order of their use
            Block(below + width, width, time_dim, groups)
            for below, width in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = zeroed(nn.Conv2d(channels[0], image_shape[0], 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) int64 in 1..T -> (B, C, H, W)."""
        time = self.time(t)
        skips = []
        for block in self.down:
            x = block(x, time)
            skips.append(x)
            x = nn.functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        x = self.middle(x, time)
        for block in self.up:
            skip = skips.pop()
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x[:, :, : skip.shape[2], : skip.shape[3]], skip], dim=1), time)
        output: Tensor = self.head(x)
        return output
