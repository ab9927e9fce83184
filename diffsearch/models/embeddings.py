"""How a network is told the time step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LONGEST = 1000.0  # t = T is embedded as 1000, whatever T is: the range that the frequencies below were made for


def sinusoidal(t: Tensor, steps: int, dim: int) -> Tensor:
    """Sines and cosines of t/T · 1000 at dim/2 frequencies from 1 down to 1/10000 (Vaswani et al. 2017): (B, dim).

    Args:
        t: (B,) int64 in 1..T.
        steps: T.
        dim: even, ≥ 4.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / (half - 1))
    angles = (t.to(torch.float32) * (LONGEST / steps))[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """The sinusoidal embedding of t and a small perceptron on it: (B,) -> (B, dim)."""

    def __init__(self, steps: int, dim: int) -> None:
        super().__init__()
        self.steps = steps
        self.first = nn.Linear(dim, dim)
        self.second = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        """SiLU after each layer, as every block maps the result linearly."""
        embedded = sinusoidal(t, self.steps, self.first.in_features).to(self.first.weight.dtype)
        hidden = nn.functional.silu(self.first(embedded))
        return nn.functional.silu(self.second(hidden))
