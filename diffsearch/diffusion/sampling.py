"""Drawing many images: fixed batches, each with its own generator, so that what is drawn depends on the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from diffsearch.diffusion.denoiser import Denoiser
from diffsearch.diffusion.guidance import balanced
from diffsearch.errors import DiffsearchError
from diffsearch.registry import sampler
from diffsearch.space.axes import DIRECT_MEANS
from diffsearch.space.settings import Choice


def check_sampling(predicts: str, point_sampler: Choice, steps: int | None, process_steps: int) -> None:
    """Refuse a sampler or a number of steps that what the network predicts doesn't allow.

    Args:
        predicts: trait of the loss that the network was trained with.
        steps: network calls of a sample; None for all.
        process_steps: T of the noise process.

    Raises:
        DiffsearchError: says what doesn't go together and what would.
    """
    member = sampler.member(point_sampler.name)
    if predicts in DIRECT_MEANS and not member.traits["direct_mean"]:
        allowed = [name for name in sampler.names() if sampler.member(name).traits["direct_mean"]]
        raise DiffsearchError(
            f"sampler '{point_sampler.name}' needs an estimate of x_0, and a {predicts} network gives none."
            f" Use {', '.join(allowed)}, or a loss that predicts x0, v or epsilon"
        )
    if steps is not None and not 1 <= steps <= process_steps:
        raise DiffsearchError(f"sampling.steps must lie in 1..{process_steps} (diffusion.steps), got {steps}")
    few = steps is not None and steps < process_steps
    if few and predicts in DIRECT_MEANS:
        raise DiffsearchError(
            f"a {predicts} network gives the mean of the step before and of no other:"
            f" sampling.steps must be {process_steps} (diffusion.steps) or left out, got {steps}"
        )
    if few and not member.traits["few_step"]:
        raise DiffsearchError(f"sampler '{point_sampler.name}' walks all {process_steps} steps, got {steps}")


def sample(
    denoiser: Denoiser,
    point_sampler: Choice,
    steps: int | None,
    shape: tuple[int, int, int, int],
    seed: int,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
    guidance: float = 0.0,
    labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """Draw images, a batch at a time; x_0 normalised, on `device`.

    Image i depends on (seed, i, batch_size) and not on how many are asked for: every batch is computed in full, as
    a network's rounding changes with the batch's size, and what is too much of the last is cut off. All noise is
    drawn on the CPU, so that devices agree up to rounding.

    Args:
        shape: (N, C, H, W): N images in all.
        seed: of the noise; the same seed gives the same noise to every network.
        batch_size: images per network call; choose it ≤ N for small N, or what is cut off is computed in vain.
        guidance: weight w of classifier-free guidance; a conditional network alone takes it.
        labels: (N, K) rows that a conditional network is told; None: classes by their share of the training images.

    Raises:
        DiffsearchError: the sampler or the guidance doesn't fit the network, or its images aren't finite.
    """
    if not denoiser.classes and (guidance or labels is not None):
        raise DiffsearchError("this network is unconditional: it takes no labels and no guidance")
    check_sampling(denoiser.predicts, point_sampler, steps, denoiser.schedule.steps)
    count, *image_shape = shape
    for index, start in enumerate(range(0, count, batch_size)):
        noise, generator = starting_noise(denoiser, (batch_size, *image_shape), seed, index)
        told = denoiser
        if denoiser.classes:
            told = denoiser.given(_labels(denoiser, labels, start, batch_size).to(device), guidance)
        with evaluating(denoiser.network):
            images = walk(told, point_sampler, steps, noise.to(device), generator)[: count - start]
        if not images.isfinite().all():
            raise DiffsearchError(f"sampler {point_sampler} gave images that aren't finite, in batch {index}")
        yield images


def starting_noise(
    denoiser: Denoiser, shape: Sequence[int], seed: int, index: int = 0
) -> tuple[Tensor, torch.Generator]:
    """x_T of one batch of `sample`, (B, C, H, W) on the CPU, and the generator of the noise that comes after it."""
    generator = torch.Generator().manual_seed(_batch_seed(seed, index))
    return torch.randn(tuple(shape), generator=generator, dtype=denoiser.data_mean.dtype), generator


def walk(
    denoiser: Denoiser, point_sampler: Choice, steps: int | None, noise: Tensor, generator: torch.Generator
) -> Tensor:
    """What a sampler makes of the given x_T (B, C, H, W): x_0, normalised."""
    draw = sampler.member(point_sampler.name).factory
    with evaluating(denoiser.network), torch.inference_mode():
        images: Tensor = draw(denoiser, noise, steps, generator, **point_sampler.kwargs)
    return images


def _labels(denoiser: Denoiser, labels: Tensor | None, start: int, count: int) -> Tensor:
    """Label rows of one whole batch; rows that were given are repeated where the batch is larger."""
    if labels is not None:
        return labels[torch.arange(start, start + count) % len(labels)]
    assert denoiser.class_shares is not None
    return balanced(start, count, denoiser.class_shares)


def _batch_seed(seed: int, index: int) -> int:
    digest = hashlib.sha256(f"{seed}|sample|{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


@contextmanager
def evaluating(network: object) -> Iterator[None]:
    """A module in eval mode for the time being; any other callable as it is."""
    if not isinstance(network, nn.Module):
        yield
        return
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
