"""What the network's output means, and the losses that teach it: each target with L1 and with L2.

Every loss is `(output, batch) -> (B,)`, a mean over pixels. Losses of different targets can't be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor

from diffsearch.diffusion.noising import NoisedBatch
from diffsearch.registry import loss

Predicts: TypeAlias = Literal["epsilon", "x0", "v", "mu-tilde", "x-prev"]
DIRECT_MEAN: frozenset[str] = frozenset({"mu-tilde", "x-prev"})  # the output is the mean of x_{t-1}; no x_0 in it


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
