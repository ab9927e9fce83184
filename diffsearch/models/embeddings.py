"""How a network is told the time step and the label."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError

LONGEST = 1000.0  # t = T is embedded as 1000, whatever T is: the range that the frequencies below were made for


def sinusoidal(t: Tensor, steps: int, dim: int) -> Tensor:
    """Sines and cosines of t/T · 1000 at dim/2 frequencies from 1 down to 1/10000 (Vaswani et al. 2017): (B, dim).

    Args:
        t: (B,) in 0..T, whole steps or, in continuous time, T · sigma.
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


class Context(TimeEmbedding):
    """What a network is told besides the image: the time, and the label where it takes one.

    Args:
        steps: T.
        dim: length of each embedding.
        classes: K; 0: no label.
        joined: the two become one vector of length `dim`, through one more layer, instead of following each other.
    """

    def __init__(self, steps: int, dim: int, classes: int, joined: bool) -> None:
        super().__init__(steps, dim)
        self.label = LabelEmbedding(classes, dim) if classes else None
        self.joint = nn.Linear(2 * dim, dim) if classes and joined else None

    def forward(self, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B,) and label rows (B, K) -> (B, dim), or (B, 2 dim) where the label follows the time.

        Raises:
            DiffsearchError: a conditional network got no labels.
        """
        time = super().forward(t)
        if self.label is None:
            return time
        if labels is None:
            raise DiffsearchError("a conditional network was called without labels; a row of zeros means none")
        both = torch.cat([time, self.label(labels)], dim=1)
        return both if self.joint is None else nn.functional.silu(self.joint(both))


class LabelEmbedding(nn.Module):
    """One-hot rows through two linear layers: (B, K) -> (B, dim). A row of zeros, no label, has an embedding too."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(classes, dim)
        self.second = nn.Linear(dim, dim)

    def forward(self, labels: Tensor) -> Tensor:
        """SiLU after each layer, as for the time."""
        hidden = nn.functional.silu(self.first(labels.to(self.first.weight.dtype)))
        return nn.functional.silu(self.second(hidden))
