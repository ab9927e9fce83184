"""Class labels: what a conditional network is told, and classifier-free guidance (Ho & Salimans 2022).

A label is a row of K class shares: one-hot for an image of one class, a mixture between classes, all zeros for no
label at all. Networks, samplers and pictures all speak in such rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsearch.errors import DiffsearchError

_GOLDEN = 0.6180339887498949  # multiples of it fill the unit interval evenly at any count


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(B,) int64 class indices as label rows: (B, classes) float32."""
    return torch.nn.functional.one_hot(labels, classes).float()


def hidden(rows: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Label rows of which a share, drawn at random, says nothing: what teaches a network to do without."""
    kept = torch.rand(len(rows), generator=generator) >= share
    return rows * kept.to(rows)[:, None]


def balanced(first: int, count: int, shares: Tensor) -> Tensor:
    """Label rows of samples number first, first + 1, ...: (count, K), of each class by its share, at any count.

    Sample i takes the class at the fractional part of (i + 1)/φ in the classes' cumulated shares: a sequence of low
    discrepancy, so that the label of a sample doesn't depend on how many are drawn.

    Args:
        shares: (K,) float64, of each class among the training images; they sum to 1.
    """
    places = (torch.arange(first + 1, first + count + 1, dtype=torch.float64) * _GOLDEN).frac()
    classes = torch.searchsorted(shares.cumsum(0), places, right=True).clamp(max=len(shares) - 1)
    return one_hot(classes, len(shares))


@dataclass(frozen=True, slots=True)
class Guided:
    """A conditional network as a plain `(x_t, t) -> output`: told its labels, and guided away from having none.

    The output is (1 + w) · conditional - w · unconditional, Ho & Salimans 2022, eq. 6. It is written for epsilon and
    holds for every target, as x_0, v and the mean are affine in epsilon. Two network calls, but one for w = 0
    (conditional) and for w = -1 (unconditional). A learned variance, behind the image's channels, isn't guided.

    Args:
        network: (x_t, t, label rows) -> output.
        labels: (B, K) rows.
        weight: w ≥ -1. What common code calls the guidance scale is 1 + w.
    """

    network: Callable[[Tensor, Tensor, Tensor], Tensor]
    labels: Tensor
    weight: float

    def __post_init__(self) -> None:
        if not self.weight >= -1:
            raise DiffsearchError(f"a guidance weight must be at least -1 (unconditional), got {self.weight:g}")

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) -> the network's output for these labels."""
        nothing = torch.zeros_like(self.labels)
        if self.weight == -1:
            return self.network(x_t, t, nothing)
        told = self.network(x_t, t, self.labels)
        if self.weight == 0:
            return told
        untold = self.network(x_t, t, nothing)
        channels = x_t.shape[1]
        image = (1 + self.weight) * told[:, :channels] - self.weight * untold[:, :channels]
        return torch.cat([image, told[:, channels:]], dim=1)
