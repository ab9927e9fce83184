"""`random`: features of a network that was never trained, for images that no other extractor suits."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffsearch import registry
from diffsearch.scoring.passes import one_pass

DIM = 64
_SEED = 0
_CHANNELS = (16, 32, 64, 64)
_GRID = 4  # the last layer is averaged over 4×4 fields, so that features know where things are
_BATCH = 100


class RandomExtractor:
    """Four convolutions and a projection with fixed random weights: the last resort, for images of any shape.

    Distances on it order images by how far they are from the real ones, but mean little: it sees edges and textures
    that no one chose, and knows no objects. (Naeem et al. 2020 take random features where ImageNet's don't suit the
    images.) The weights are drawn from a seed and hashed: another generator's would be another measure. On the CPU.
    """

    name = "random"
    dim = DIM
    image_shape: tuple[int, int, int] | None = None

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self._convolutions = [_drawn((after, before, 3, 3), generator) for before, after in pairwise(_CHANNELS)]
        self._projection = _drawn((DIM, _CHANNELS[-1] * _GRID**2), generator)
        weights = [*self._convolutions, self._projection, self._first(1), self._first(3)]
        self.content = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights)).hexdigest()[:16]

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 (N, C, H, W) → float32 (N, 64)."""
        first = self._first(images.shape[1])
        (features,) = one_pass(lambda x: (self._forward(x, first),), images, _BATCH)
        return features

    def _first(self, channels: int) -> Tensor:
        """The layer that reads the image; of each number of channels its own."""
        return _drawn((_CHANNELS[0], channels, 3, 3), torch.Generator().manual_seed(_SEED + channels))

    def _forward(self, images: Tensor, first: Tensor) -> Tensor:
        x = F.relu(F.conv2d(images.to(torch.float32) / 127.5 - 1, first, padding=1))
        for weights in self._convolutions:
            x = F.relu(F.conv2d(x, weights, stride=2, padding=1))
        return F.adaptive_avg_pool2d(x, _GRID).flatten(1) @ self._projection.T


def _drawn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal weights that keep the size of what passes through them and a ReLU (He et al. 2015)."""
    return torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))


@registry.extractor.register(RandomExtractor.name, dim=DIM, image_shape=None)
def random() -> RandomExtractor:
    """A network with fixed random weights: orders images, means little. Where nothing else reads the images."""
    return RandomExtractor()
