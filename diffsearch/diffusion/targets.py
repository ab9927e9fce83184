"""What the network's output means, and the losses that teach it: each target with L1 and with L2.

Every loss is `(output, batch) -> (B,)`, a mean over pixels. Losses of different targets can't be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from diffsearch.diffusion.noising import NoisedBatch
from diffsearch.registry import loss

Predicts: TypeAlias = Literal["epsilon", "x0", "v", "mu-tilde", "x-prev"]


def v(batch: NoisedBatch) -> Tensor:
    """Salimans & Ho 2022: v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0."""
    return batch.signal * batch.noise - batch.sigma * batch.x_0


TARGETS: dict[Predicts, Callable[[NoisedBatch], Tensor]] = {
    "epsilon": lambda batch: batch.noise,
    "x0": lambda batch: batch.x_0,
    "v": v,
    "mu-tilde": lambda batch: batch.mu_tilde,
    "x-prev": lambda batch: batch.x_prev,
}


def estimated_x0(output: Tensor, batch: NoisedBatch, predicts: Predicts) -> Tensor:
    """x_0 as a network's output means it at each image's own t, not clipped; where no signal is left, x_0 itself.

    Args:
        predicts: "x0", "v" or "epsilon": a mean holds no x_0.
    """
    if predicts == "x0":
        return output
    if predicts == "v":
        return batch.signal * batch.x_t - batch.sigma * output
    known = batch.signal > 0
    return torch.where(known, (batch.x_t - batch.sigma * output) / batch.signal.where(known, 1.0), batch.x_0)


def min_snr_weight(batch: NoisedBatch, predicts: Predicts, gamma: float) -> Tensor:
    """Hang et al. 2023 (arXiv 2303.09556): min(SNR, gamma) of x_0's error, as a weight on the target's own: (B,).

    Where no signal is left it is 0 for x_0 and v, which then learn nothing of that step, and 1 for epsilon.
    """
    snr = (batch.signal / batch.sigma).square().flatten()
    capped = snr.clamp(max=gamma)
    if predicts == "x0":
        return capped
    if predicts == "v":
        return capped / (snr + 1)
    return torch.where(snr > 0, capped / snr.where(snr > 0, 1.0), 1.0)


Loss: TypeAlias = Callable[[Tensor, NoisedBatch], Tensor]


def _l1(target: Callable[[NoisedBatch], Tensor]) -> Loss:
    def mean_absolute_error(output: Tensor, batch: NoisedBatch) -> Tensor:
        return (output - target(batch)).abs().flatten(1).mean(1)

    return mean_absolute_error


def _l2(target: Callable[[NoisedBatch], Tensor]) -> Loss:
    def mean_squared_error(output: Tensor, batch: NoisedBatch) -> Tensor:
        return (output - target(batch)).square().flatten(1).mean(1)

    return mean_squared_error


for _predicts, _target in TARGETS.items():
    loss.register(f"{_predicts}-l1", predicts=_predicts)(_l1(_target))
    loss.register(f"{_predicts}-l2", predicts=_predicts)(_l2(_target))
