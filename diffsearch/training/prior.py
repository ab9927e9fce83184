"""What sampling must know of the training images besides the network: their mean, and their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffsearch.data.datasets import ImageData, class_names
from diffsearch.data.normalise import Normalization

CHUNK = 1024  # images summed at a time


@dataclass(frozen=True, slots=True)
class Prior:
    """Means and shares over the training images, normalised; on the CPU.

    Args:
        mean: (C, H, W) float32.
        class_means: (K, C, H, W) float32; None: the network is unconditional. A class without images has `mean`.
        class_shares: (K,) float64, of the training images; sums to 1.
        classes: their names, in the order of the labels.
    """

    mean: Tensor
    class_means: Tensor | None = None
    class_shares: Tensor | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: ImageData, normalization: Normalization, conditioning: str) -> Prior:
        """Measured on the training images, one pass over them.

        Raises:
            DataError: class labels are wanted, and the data set has none.
        """
        total = mean_image(data.train, normalization)
        if conditioning == "none":
            return cls(total)
        names, labels = class_names(data), np.array(data.train_labels)
        counts = np.bincount(labels, minlength=len(names))
        sums = torch.zeros(len(names), *total.shape, dtype=torch.float64)
        for begin in range(0, len(labels), CHUNK):
            images = torch.from_numpy(np.array(data.train[begin : begin + CHUNK]))
            which = torch.from_numpy(labels[begin : begin + CHUNK])
            sums.index_add_(0, which, normalization.encode(images).double())
        means = [sums[k] / int(n) if n else total.double() for k, n in enumerate(counts)]
        shares = torch.from_numpy(counts / counts.sum())
        return cls(total, torch.stack(means).float(), shares, names)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of what there is, as files hold it."""
        yield "data_mean", self.mean
        if self.class_means is not None and self.class_shares is not None:
            yield "class_means", self.class_means
            yield "class_shares", self.class_shares

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], classes: Sequence[str]) -> Prior:
        """The inverse of `tensors`."""
        return cls(tensors["data_mean"], tensors.get("class_means"), tensors.get("class_shares"), tuple(classes))


def mean_image(train: np.ndarray, normalization: Normalization, chunk: int = CHUNK) -> Tensor:
    """Mean of the normalised training images, (C, H, W) float32, summed in float64."""
    total = torch.zeros(train.shape[1:], dtype=torch.float64)
    for begin in range(0, len(train), chunk):
        images = torch.from_numpy(np.array(train[begin : begin + chunk]))
        total += normalization.encode(images).double().sum(dim=0)
    return (total / len(train)).float()
