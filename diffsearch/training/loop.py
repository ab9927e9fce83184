"""The training loop: a generator of epochs. It knows nothing of saving, scoring or Ray."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffsearch import registry
from diffsearch.data import normalise
from diffsearch.data.datasets import ImageData
from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser, Schedule, noise_batch
from diffsearch.diffusion.targets import Loss
from diffsearch.errors import Diverged
from diffsearch.records import EpochRecord
from diffsearch.space.settings import RunSettings, TrainingSettings
from diffsearch.training.ema import EmaTracks
from diffsearch.training.memory import peak_mb, reset_peak
from diffsearch.training.precision import Autocast, autocast
from diffsearch.training.randomness import generator, seed, seeded

CHECK_EVERY = 32  # steps between looks at the loss on devices where a look waits for the device
ON_DEVICE_BYTES = 2**31  # data sets up to this size are copied to a CUDA device whole, as uint8


@dataclass
class TrainingState:
    """One run between two epochs: all that the next epoch depends on, besides the data."""

    settings: RunSettings
    run_key: str
    image_shape: tuple[int, int, int]
    device: torch.device
    network: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EmaTracks
    schedule: Schedule
    normalization: Normalization
    data_mean: Tensor  # (C, H, W) float32 on CPU: mean training image, in the normalised range
    epoch: int = 0  # epochs finished
    images_seen: int = 0
    steps: int = 0  # optimiser steps taken
    whole: bool = field(default=True, repr=False)  # False inside an epoch, and for good after an exception in one

    def network_for(self, ema: int) -> nn.Module:
        """The network with the weights of one track, in evaluation mode: a copy, but for track 0 the network itself.

        Raises:
            StoreError: that half-life is not tracked.
        """
        return self.ema.network(self.network, ema)

    def denoiser(self, ema: int) -> Denoiser:
        """What a sampler needs, from one track."""
        return denoiser(
            self.settings, self.network_for(ema), self.schedule, self.normalization, self.data_mean.to(self.device)
        )


def build_network(settings: RunSettings, image_shape: tuple[int, int, int]) -> nn.Module:
    """The run's network, with weights from torch's global generator."""
    network: nn.Module = registry.model.build(settings.model.name, image_shape, settings.steps, **settings.model.kwargs)
    return network


def build_schedule(settings: RunSettings) -> Schedule:
    """The run's noise schedule, with its terminal rule."""
    return Schedule.build(settings.noise_process, settings.steps, settings.terminal)


def denoiser(
    settings: RunSettings, network: nn.Module, schedule: Schedule, normalization: Normalization, data_mean: Tensor
) -> Denoiser:
    """A trained network as samplers see it, called in the precision that it was trained in."""
    return Denoiser(
        network=Autocast(network, settings.training.precision).eval(),
        schedule=schedule,
        predicts=registry.loss.member(settings.training.loss).traits["predicts"],
        low=normalization.low,
        high=normalization.high,
        data_mean=data_mean,
    )


def start(settings: RunSettings, run_key: str, data: ImageData, device: torch.device) -> TrainingState:
    """A run before its first epoch; its initial weights depend on the run key alone, not on the device.

    Raises:
        DiffsearchError: an unknown name among the settings, or a data set that the normalisation can't take.
    """
    normalization = normalise.build(settings.training.normalization, data.train)
    with seeded(torch.device("cpu"), seed(run_key, 0, "init")):
        network = build_network(settings, data.image_shape)
    network.to(device)
    return TrainingState(
        settings=settings,
        run_key=run_key,
        image_shape=data.image_shape,
        device=device,
        network=network,
        optimizer=build_optimizer(settings.training, network),
        ema=EmaTracks(network, settings.training.ema_half_life),
        schedule=build_schedule(settings),
        normalization=normalization,
        data_mean=mean_image(data.train, normalization),
    )


def build_optimizer(training: TrainingSettings, network: nn.Module) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019), betas 0.9 and 0.999; decay acts on every weight.

    The fused kernels work element by element: deterministic, on any number of threads.
    """
    kind: type[torch.optim.Adam] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[training.optimizer]
    return kind(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)


def mean_image(train: np.ndarray, normalization: Normalization, chunk: int = 1024) -> Tensor:
    """Mean of the normalised training images, (C, H, W) float32, summed in float64."""
    total = torch.zeros(train.shape[1:], dtype=torch.float64)
    for begin in range(0, len(train), chunk):
        images = torch.from_numpy(np.array(train[begin : begin + chunk]))
        total += normalization.encode(images).double().sum(dim=0)
    return (total / len(train)).float()


def learning_rate(training: TrainingSettings, images: float, total: float | None) -> float:
    """The rate after `images` training images: linear warm-up from 0, then the peak, or a cosine from it to 0.

    Args:
        images: since the start of the run. A step takes the rate at its middle, images_seen + B/2, so that neither
            the first step nor the last one has rate 0.
        total: images over which the cosine runs, warm-up included (horizon x images of an epoch); unused if constant.
    """
    peak, warmup = training.learning_rate, training.warmup
    if images < warmup:
        return peak * images / warmup
    if training.schedule == "constant" or total is None or total <= warmup:
        return peak
    progress = min(1.0, (images - warmup) / (total - warmup))
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def train(state: TrainingState, data: ImageData, until_epoch: int) -> Iterator[EpochRecord]:
    """Train on from where `state` is; one record after each epoch, when `state` is whole and may be saved or sampled.

    An epoch sees every image once. The last batch holds what is left over, however few: an epoch is then exactly the
    data set, and Adam bounds what a small batch can do. A batch size beyond the data set means one batch of all.

    Raises:
        Diverged: loss or weights became NaN or infinite; `state` is then of no more use.
    """
    horizon = state.settings.training.horizon
    assert horizon is None or until_epoch <= horizon, f"epoch {until_epoch} lies beyond the schedule's {horizon}"
    assert state.whole, "an epoch of this state was broken off: load its last checkpoint"
    images = _source(data.train, state.device)
    while state.epoch < until_epoch:
        yield _epoch(state, images, len(data.train))


def _source(train: np.ndarray, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Indices (B,) on CPU → uint8 images (B, C, H, W) on the device; a small data set moves to a GPU whole."""
    if device.type == "cuda" and train.nbytes <= ON_DEVICE_BYTES:
        everything = torch.from_numpy(np.array(train)).to(device)
        return lambda chosen: everything[chosen.to(device)]
    return lambda chosen: torch.from_numpy(np.asarray(train[chosen.numpy()])).to(device)


def _epoch(state: TrainingState, images: Callable[[Tensor], Tensor], count: int) -> EpochRecord:
    epoch, begun = state.epoch + 1, time.perf_counter()
    state.whole = False
    reset_peak(state.device)
    with (
        torch.enable_grad(),
        determinism(state.settings.training.deterministic, state.device),
        seeded(state.device, seed(state.run_key, epoch, "dropout")),
    ):
        loss = _steps(state, images, count, epoch)
    state.epoch = epoch
    state.whole = True
    wall_s = time.perf_counter() - begun
    return EpochRecord(
        epoch=epoch,
        loss=loss,
        images_seen=state.images_seen,
        images_per_s=count / wall_s,
        wall_s=wall_s,
        peak_memory_mb=peak_mb(state.device),
    )


def _steps(state: TrainingState, images: Callable[[Tensor], Tensor], count: int, epoch: int) -> float:
    """The optimiser steps of one epoch; the mean loss over its images."""
    training, network = state.settings.training, state.network.train()
    parameters = list(network.parameters())
    loss_of: Loss = registry.loss.member(training.loss).factory
    total = None if training.horizon is None else training.horizon * count
    order = torch.randperm(count, generator=generator(state.run_key, epoch, "order"))
    noise = generator(state.run_key, epoch, "noise")
    check_every = 1 if state.device.type == "cpu" else CHECK_EVERY
    loss_sum = torch.zeros((), dtype=torch.float64, device=state.device)
    for step, chosen in enumerate(torch.split(order, training.batch_size), start=1):
        batch = noise_batch(state.schedule, state.normalization.encode(images(chosen)), noise)
        with autocast(state.device, training.precision):
            output = network(batch.x_t, batch.t)
        loss = loss_of(output.float(), batch).mean()
        loss_sum += loss.detach().double() * len(chosen)
        if step % check_every == 0:
            _require_finite(loss_sum, epoch, step)
        loss.backward()  # type: ignore[no-untyped-call]
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, training.gradient_clip)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(training, state.images_seen + len(chosen) / 2, total)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.images_seen += len(chosen)
        state.steps += 1
        state.ema.update(len(chosen), state.steps)
    _require_finite(loss_sum, epoch, step)
    if not all(bool(tensor.isfinite().all()) for tensor in [*parameters, *network.buffers()]):
        raise Diverged(epoch, step, "weights are not finite")
    return loss_sum.item() / count


def _require_finite(loss_sum: Tensor, epoch: int, step: int) -> None:
    """NaN and infinity stay in a sum, so looking at the sum now and then misses none."""
    value = loss_sum.item()
    if not math.isfinite(value):
        raise Diverged(epoch, step, f"loss is {'NaN' if math.isnan(value) else 'infinite'}")


@contextmanager
def determinism(wanted: bool, device: torch.device) -> Iterator[None]:
    """Only deterministic algorithms inside, and torch's flags as they were outside."""
    if not wanted:
        yield
        return
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses without it
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn, memory = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    flags = cudnn.benchmark, cudnn.deterministic, memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.benchmark, cudnn.deterministic = False, True
        memory.fill_uninitialized_memory = False  # finds reads of unset memory, which is not what is asked for here
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        cudnn.benchmark, cudnn.deterministic, memory.fill_uninitialized_memory = flags
