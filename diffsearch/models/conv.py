"""A network of convolutions at one resolution, told the time as one more image channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.blocks import zeroed
from diffsearch.registry import model


@model.register("conv")
class Conv(nn.Module):
    """`depth` convolutions of `width` channels with SiLU between them; t/T fills the extra input channel.

    Args:
        image_shape: (C, H, W).
        steps: T.
        depth: convolutions in all (≥ 1); the last one gives the image's channels.
        width: channels between them (≥ 1).
        kernel_size: side of each kernel in pixels, odd.

    Raises:
        DiffsearchError: an option out of its range.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        steps: int,
        *,
        depth: int = 4,
        width: int = 4,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise DiffsearchError(f"model.depth and model.width must be at least 1, got {depth} and {width}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise DiffsearchError(f"model.kernel_size must be odd, got {kernel_size}")
        self.steps = steps
        inputs = (image_shape[0] + 1, *(width,) * (depth - 1))
        padding = kernel_size // 2
        self.layers = nn.ModuleList(nn.Conv2d(before, width, kernel_size, padding=padding) for before in inputs[:-1])
        self.head = zeroed(nn.Conv2d(inputs[-1], image_shape[0], kernel_size, padding=padding))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) int64 in 1..T -> (B, C, H, W)."""
        time = (t.to(x.dtype) / self.steps)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        hidden = torch.cat([x, time], dim=1)
        for layer in self.layers:
            hidden = nn.functional.silu(layer(hidden))
        output: Tensor = self.head(hidden)
        return output
