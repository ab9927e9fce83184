"""The training loop: a generator of epochs. It knows nothing of saving, scoring or Ray."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffsearch import registry
from diffsearch.data import normalise
from diffsearch.data.augment import augment
from diffsearch.data.datasets import ImageData
from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser, Schedule, noise_batch
from diffsearch.diffusion.guidance import hidden, one_hot
from diffsearch.diffusion.targets import Loss, min_snr_weight
from diffsearch.diffusion.variance import variational_bound
from diffsearch.errors import Diverged
from diffsearch.records import EpochRecord
from diffsearch.space.settings import RunSettings, TrainingSettings
from diffsearch.training.ema import EmaTracks
from diffsearch.training.memory import peak_mb, reset_peak
from diffsearch.training.network import build_network, build_schedule, denoiser, predicted
from diffsearch.training.precision import autocast
from diffsearch.training.prior import Prior
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
    prior: Prior  # of the training images
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
        return denoiser(self.settings, self.network_for(ema), self.normalization, self.prior, self.device)


def start(settings: RunSettings, run_key: str, data: ImageData, device: torch.device) -> TrainingState:
    """A run before its first epoch; its initial weights depend on the run key alone, not on the device.

    Raises:
        DataError: a conditional run of a data set without labels.
        DiffsearchError: an unknown name among the settings, or a data set that the normalisation can't take.
    """
    normalization = normalise.build(settings.training.normalization, data.train)
    prior = Prior.of(data, normalization, settings.training.conditioning)
    with seeded(torch.device("cpu"), seed(run_key, 0, "init")):
        network = build_network(settings, data.image_shape, len(prior.classes))
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
        prior=prior,
    )


def build_optimizer(training: TrainingSettings, network: nn.Module) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019), betas 0.9 and 0.999; decay acts on every weight.

    The fused kernels work element by element: deterministic, on any number of threads.
    """
    kind: type[torch.optim.Adam] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[training.optimizer]
    return kind(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)


def learning_rate(training: TrainingSettings, images: float, total: float | None) -> float:
    """The rate after `images` training images: linear warm-up from 0, then the peak, or a cosine from it to the floor.

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
    floor = training.learning_rate_floor
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


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
    material = _Material.of(data, state)
    while state.epoch < until_epoch:
        yield _epoch(state, material)


@dataclass(frozen=True)
class _Material:
    """The images of a data set and their labels, as a run is trained on them and watched."""

    images: Callable[[Tensor], Tensor]  # indices (B,) on CPU → uint8 (B, C, H, W) on the device
    count: int
    labels: Tensor | None  # (N,) int64 on CPU; None: unconditional
    watched: _Material | None = None  # the validation images

    @classmethod
    def of(cls, data: ImageData, state: TrainingState) -> _Material:
        told = bool(state.prior.classes)
        watched = None
        if data.validation is not None:
            watched = cls._from(data.validation, data.validation_labels if told else None, state.device)
        return replace(cls._from(data.train, data.train_labels if told else None, state.device), watched=watched)

    @classmethod
    def _from(cls, images: np.ndarray, labels: np.ndarray | None, device: torch.device) -> _Material:
        return cls(_source(images, device), len(images), None if labels is None else torch.from_numpy(np.array(labels)))


def _source(train: np.ndarray, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Indices (B,) on CPU → uint8 images (B, C, H, W) on the device; a small data set moves to a GPU whole."""
    if device.type == "cuda" and train.nbytes <= ON_DEVICE_BYTES:
        everything = torch.from_numpy(np.array(train)).to(device)
        return lambda chosen: everything[chosen.to(device)]
    return lambda chosen: torch.from_numpy(np.asarray(train[chosen.numpy()])).to(device)


def _epoch(state: TrainingState, material: _Material) -> EpochRecord:
    epoch, begun = state.epoch + 1, time.perf_counter()
    state.whole = False
    reset_peak(state.device)
    with (
        torch.enable_grad(),
        determinism(state.settings.training.deterministic, state.device),
        seeded(state.device, seed(state.run_key, epoch, "dropout")),
    ):
        loss = _steps(state, material, epoch)
    trained_s = time.perf_counter() - begun
    validation_loss = None if material.watched is None else _watch(state, material.watched)
    state.epoch = epoch
    state.whole = True
    return EpochRecord(
        epoch=epoch,
        loss=loss,
        images_seen=state.images_seen,
        images_per_s=material.count / trained_s,
        wall_s=time.perf_counter() - begun,
        peak_memory_mb=peak_mb(state.device),
        validation_loss=validation_loss,
    )


def _steps(state: TrainingState, material: _Material, epoch: int) -> float:
    """The optimiser steps of one epoch; the mean loss over its images."""
    training, network, count = state.settings.training, state.network.train(), material.count
    parameters = list(network.parameters())
    total = None if training.horizon is None else training.horizon * count
    order = torch.randperm(count, generator=generator(state.run_key, epoch, "order"))
    noise, moves, hides = (generator(state.run_key, epoch, what) for what in ("noise", "augmentation", "labels"))
    check_every = 1 if state.device.type == "cpu" else CHECK_EVERY
    loss_sum = torch.zeros((), dtype=torch.float64, device=state.device)
    for step, chosen in enumerate(torch.split(order, training.batch_size), start=1):
        images = augment(material.images(chosen), training.augmentation, moves)
        rows = None if material.labels is None else one_hot(material.labels[chosen], len(state.prior.classes))
        labels = None if rows is None else hidden(rows, training.label_dropout, hides)
        loss = _losses(state, images, labels, noise).mean()
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


def _losses(state: TrainingState, images: Tensor, labels: Tensor | None, noise: torch.Generator) -> Tensor:
    """The run's loss of each image, noised afresh: (B,)."""
    training, normalization = state.settings.training, state.normalization
    loss_of: Loss = registry.loss.member(training.loss).factory
    batch = noise_batch(state.schedule, normalization.encode(images), noise)
    told = () if labels is None else (labels.to(images.device),)
    with autocast(images.device, training.precision):
        output = state.network(batch.x_t, batch.t, *told)
    output = output.float()
    losses = loss_of(output[:, : images.shape[1]], batch)
    if training.min_snr_gamma is not None:
        losses = losses * min_snr_weight(batch, predicted(state.settings), training.min_snr_gamma)
    if training.learned_variance:
        span = normalization.low, normalization.high
        losses = losses + variational_bound(output, batch, predicted(state.settings), *span)
    return losses


@torch.no_grad()
def _watch(state: TrainingState, watched: _Material) -> float:
    """The mean loss of the validation images under the raw weights; their noise is the same in every epoch."""
    state.network.eval()
    noise = generator(state.run_key, 0, "validation")
    total = 0.0
    for chosen in torch.split(torch.arange(watched.count), state.settings.training.batch_size):
        rows = None if watched.labels is None else one_hot(watched.labels[chosen], len(state.prior.classes))
        total += _losses(state, watched.images(chosen), rows, noise).double().sum().item()
    return total / watched.count


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
