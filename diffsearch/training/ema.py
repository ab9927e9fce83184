"""Averages of the weights along a run: several tracks side by side, each with its half-life in images.

A decay per step means nothing across batch sizes; a half-life in images does. A step of B images keeps
0.5^(B / half-life) of a track. A half-life that was not tracked can't be had later without training again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from diffsearch.errors import StoreError
from diffsearch.space.settings import show_count

RAW = 0  # the track that is the network itself


def decay(half_life: int, images: int, steps: int) -> float:
    """How much of a track one optimiser step keeps.

    Args:
        half_life: images after which half of a weight's old value is left, ≥ 1.
        images: B, images in this step.
        steps: n, optimiser steps taken, this one included (≥ 1).

    Returns:
        min(0.5^(B / half_life), (1 + n) / (10 + n)); the second is the warm-up of tf.train.ExponentialMovingAverage,
        without which a short run's average is mostly its initial weights.
    """
    return float(min(0.5 ** (images / half_life), (1 + steps) / (10 + steps)))


class EmaTracks:
    """Every averaged copy of one network's parameters. Track 0 is the network itself and costs no copy.

    Running statistics of batch normalisation are averaged like parameters, as they belong to the weights that they
    were counted with; other buffers are those of the raw network.

    Args:
        network: whose parameters are followed; each track starts as a copy of them.
        half_lives: in images; 0 is the raw weights.
    """

    def __init__(self, network: nn.Module, half_lives: Sequence[int]) -> None:
        followed = dict(_followed(network))
        self.names = tuple(followed)
        self._raw = [tensor.detach() for tensor in followed.values()]  # shares memory with the network
        self._tracks = {
            half_life: [tensor.clone() for tensor in self._raw] for half_life in sorted({*half_lives} - {RAW})
        }

    @property
    def half_lives(self) -> tuple[int, ...]:
        """The averaged tracks, ascending; the raw weights are not among them."""
        return tuple(self._tracks)

    def update(self, images: int, steps: int) -> None:
        """Follow one optimiser step of `images` images, the `steps`-th of the run (≥ 1)."""
        for half_life, tensors in self._tracks.items():
            average = get_ema_multi_avg_fn(decay(half_life, images, steps))  # type: ignore[no-untyped-call]
            average(tensors, self._raw, None)

    def tensors(self) -> Iterator[tuple[int, str, Tensor]]:
        """(half-life, parameter name, averaged tensor) of every track; writing into the tensor sets the track."""
        for half_life, tensors in self._tracks.items():
            for name, tensor in zip(self.names, tensors, strict=True):
                yield half_life, name, tensor

    def network(self, network: nn.Module, half_life: int) -> nn.Module:
        """`network` with the weights of a track, in evaluation mode and without gradients; for track 0 itself.

        Raises:
            StoreError: no such track.
        """
        if half_life == RAW:
            return network.eval()
        if half_life not in self._tracks:
            raise untracked(half_life, self.half_lives)
        averaged = copy.deepcopy(network).eval().requires_grad_(False)
        for (_, own), tensor in zip(_followed(averaged), self._tracks[half_life], strict=True):
            own.copy_(tensor)
        return averaged


def _followed(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the running statistics of batch normalisation."""
    yield from network.named_parameters()
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            for statistic in ("running_mean", "running_var"):
                yield f"{name}.{statistic}".lstrip("."), getattr(module, statistic)


def untracked(half_life: int, kept: Sequence[int]) -> StoreError:
    """The error for a track that a run did not keep."""
    known = ", ".join(show_count(track) for track in (RAW, *kept))
    return StoreError(
        f"no EMA track of half-life {show_count(half_life)} images; this run kept: {known}. "
        "Having it means training again with it in training.ema_half_life."
    )
