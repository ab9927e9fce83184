"""Where pixel values lie for the network: [0, 255] ↔ a range of floats, exactly invertible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffsearch import registry
from diffsearch.errors import DataError, DiffsearchError

_CHUNK_IMAGES = 4096


@dataclass(frozen=True, slots=True)
class Normalization:
    """The affine map that takes pixel value 0 to `low` and 255 to `high`.

    `low` and `high` are also the range that a predicted image is clipped to.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DiffsearchError(f"normalization [{self.low}, {self.high}]: needs two finite numbers, the lower first")

    def encode(self, images: Tensor) -> Tensor:
        """uint8 images, any shape → float32 in [low, high]."""
        return images.to(torch.float32) * ((self.high - self.low) / 255) + self.low

    def decode(self, x: Tensor) -> Tensor:
        """float images, any shape → uint8, rounded to the nearest value and clamped; inverts `encode` exactly."""
        pixels = (x.to(torch.float32) - self.low) * (255 / (self.high - self.low))
        return pixels.round().clamp(0, 255).to(torch.uint8)


@registry.normalization.register("mean-variance")
def mean_variance(train: np.ndarray) -> Normalization:
    """Zero mean and unit variance over all pixels of the training images, one mean and one variance for all channels.

    Raises:
        DataError: every pixel is the same, so there is no variance to scale.
    """
    total, squares = 0, 0
    for start in range(0, len(train), _CHUNK_IMAGES):  # integers: exact, and independent of the chunk size
        chunk = train[start : start + _CHUNK_IMAGES].astype(np.int64)
        total, squares = total + int(chunk.sum()), squares + int((chunk * chunk).sum())
    mean = total / train.size
    deviation = math.sqrt(max(0.0, squares / train.size - mean * mean))
    if deviation == 0:
        raise DataError("normalization mean-variance: every pixel of the training images is the same")
    return Normalization((0 - mean) / deviation, (255 - mean) / deviation)


def build(normalization: str | tuple[float, float], train: np.ndarray) -> Normalization:
    """The normalization that a study names, or the one that maps [0, 255] to a pair.

    Args:
        normalization: a registered name, or (low, high) with low < high.
        train: uint8 (N, C, H, W), read only by those that measure the data.
    """
    if isinstance(normalization, str):
        built: Normalization = registry.normalization.build(normalization, train)
        return built
    low, high = normalization
    return Normalization(float(low), float(high))
