"""Where a run's randomness comes from: its key, the epoch and the purpose, so that there is no state to store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Purpose = Literal["init", "order", "noise", "dropout", "augmentation", "labels", "validation"]


def seed(run_key: str, epoch: int, purpose: Purpose) -> int:
    """63 bits of sha256 over `run_key|epoch|purpose`; epoch 0 is the time before the first epoch."""
    digest = hashlib.sha256(f"{run_key}|{epoch}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(run_key: str, epoch: int, purpose: Purpose) -> torch.Generator:
    """A CPU generator of its own: the same numbers on every device."""
    return torch.Generator().manual_seed(seed(run_key, epoch, purpose))


@contextmanager
def seeded(device: torch.device, number: int) -> Iterator[None]:
    """The global generators seeded inside and as they were outside: for layers that read no other (init, dropout)."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(number)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(number)
        yield
