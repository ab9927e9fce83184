"""A network of fully connected layers, blind to where a pixel is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.blocks import zeroed
from diffsearch.models.embeddings import sinusoidal
from diffsearch.registry import model

TIME_DIM = 32


@model.register("dense")
class Dense(nn.Module):
    """All pixels and the embedded time step through linear layers with SiLU between them.

    Args:
        image_shape: (C, H, W).
        steps: T.
        hidden: width of each hidden layer; () is one linear map.

    Raises:
        DiffsearchError: a width below 1.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], steps: int, *, hidden: tuple[int, ...] = (512, 512, 512)
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise DiffsearchError(f"model.hidden must be numbers ≥ 1, got {list(hidden)}")
        self.steps = steps
        pixels = math.prod(image_shape)
        inputs = (pixels + TIME_DIM, *hidden)
        self.layers = nn.ModuleList(nn.Linear(before, width) for before, width in zip(inputs[:-1], hidden, strict=True))
        self.head = zeroed(nn.Linear(inputs[-1], pixels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) int64 in 1..T -> (B, C, H, W)."""
        hidden = torch.cat([x.flatten(1), sinusoidal(t, self.steps, TIME_DIM).to(x.dtype)], dim=1)
        for layer in self.layers:
            hidden = nn.functional.silu(layer(hidden))
        output: Tensor = self.head(hidden)
        return output.view(x.shape)
