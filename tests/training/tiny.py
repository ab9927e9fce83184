"""A user's file, as `use:` brings one in: a network with all that can go wrong on resuming, small enough for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffsearch import registry


@registry.model.register("tiny")
class Tiny(nn.Module):
    """Two convolutions, dropout (reads the global generator), batch statistics (buffers) and a tied weight."""

    def __init__(self, image_shape: tuple[int, int, int], steps: int, *, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        channels = image_shape[0]
        self.enter = nn.Conv2d(channels + 1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.again = self.middle
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        self.register_buffer("scale", torch.tensor(1 / steps), persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = (t * self.scale).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        hidden = self.dropout(self.norm(self.enter(torch.cat([x, time], dim=1))).relu())
        return self.leave(self.again(self.middle(hidden).relu()))
