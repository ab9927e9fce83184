"""Training images varied at random, so that a small set teaches more than its pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_MOVE = 8  # a crop moves an image by up to its side / 8 pixels either way


def augment(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability ½, moved with its border reflected, or both.

    Args:
        images: (B, C, H, W), any type, on any device.
        how: "none", "flip", "crop" or "flip-crop".
        generator: on the CPU, so that all devices agree.

    Returns:
        The same shape; pixels are moved, never mixed.
    """
    if "flip" in how:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
    if "crop" in how:
        images = _moved(images, generator)
    return images


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    rows, columns = (_reflected(count, side, generator).to(images.device) for side in (height, width))
    which = torch.arange(count, device=images.device)[:, None, None]
    return images[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(count: int, side: int, generator: torch.Generator) -> Tensor:
    """(count, side) indices of each image's rows (or columns) after its own random move."""
    most = side // LARGEST_MOVE
    padded = functional.pad(torch.arange(side).float()[None], (most, most), mode="reflect")[0].long()
    start = torch.randint(0, 2 * most + 1, (count, 1), generator=generator)
    moved: Tensor = padded[start + torch.arange(side)]
    return moved
