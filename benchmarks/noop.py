"""A `use:` file whose training, sampling and scoring cost nothing: what is left is the platform's own time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffsearch import registry
from diffsearch.data.datasets import ImageData


@registry.dataset.register("noop-data", reference_family=None)
def noop_data(cache: Path) -> ImageData:
    rng = np.random.default_rng(0)
    return ImageData.of("noop-data", rng.integers(0, 256, (8, 1, 4, 4), dtype=np.uint8))


@registry.model.register("noop-model")
def noop_model(image_shape: tuple[int, int, int], steps: int, *, knob: float = 0.0) -> nn.Module:
    return _Identity()


class _Identity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * self.scale


class _Mean:
    name, content, dim, image_shape = "noop-mean", "0" * 16, 1, None

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        return np.asarray(images, dtype=np.float32).mean(axis=(1, 2, 3))[:, None]


@registry.extractor.register("noop-mean", dim=1, image_shape=None)
def noop_mean() -> _Mean:
    return _Mean()
