"""Images through a network, in batches of one size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@torch.inference_mode()
def one_pass(
    network: Callable[[Tensor], tuple[Tensor, ...]],
    images: np.ndarray | Tensor,
    batch: int,
    device: torch.device | None = None,
) -> tuple[np.ndarray, ...]:
    """Every output of a network for uint8 images (N, C, H, W), each (N, ...); an image goes through it once.

    Batches are always full, the last one padded: an image's outputs don't depend on the number of its neighbours.
    """
    rows = []
    for start in range(0, len(images), batch):
        part = torch.as_tensor(np.array(images[start : start + batch]))
        padded = F.pad(part, (0, 0, 0, 0, 0, 0, 0, batch - len(part)))
        rows.append([made[: len(part)].cpu().numpy() for made in network(padded.to(device))])
    return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))


def in_colour(images: Tensor) -> Tensor:
    """Grey images (B, 1, H, W) repeated to three channels, others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
