"""What lies on the way: between noise and image, between two latents, and from an image into noise and back.

A latent is the x_T that a sampler starts from. Networks that predict a mean directly (mu-tilde, x-prev) hold no x_0:
they have trajectories without one, and no interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import torch
from torch import Tensor

from diffsearch.diffusion.denoiser import Denoiser
from diffsearch.diffusion.guidance import one_hot
from diffsearch.diffusion.sampling import check_sampling, starting_noise, walk
from diffsearch.errors import DiffsearchError
from diffsearch.space.settings import Choice

DDIM = Choice("ddim")  # eta = 0: nothing is drawn on the way, so an image is a function of its latent
PARALLEL = 1e-7  # radians below which an arc and a straight line are the same to rounding

Path: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # (start, end, shares (n,)) -> (n, *start.shape)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """What a sampler held while it drew a batch, and what the network saw in it. All normalised."""

    ts: tuple[int, ...]  # steps, falling, down to 0, where the image is done
    x_t: Tensor  # (len(ts), B, C, H, W)
    x_0: Tensor | None  # (len(ts), B, C, H, W), the network's estimate at each step; None where it gives none

    @property
    def images(self) -> Tensor:
        """(B, C, H, W): what was drawn."""
        return self.x_t[-1]

    def thinned(self, count: int) -> Trajectory:
        """At most `count` ≥ 2 of its steps, evenly spaced, the first and the last among them."""
        kept = torch.linspace(0, len(self.ts) - 1, min(count, len(self.ts))).round().long()
        ts = tuple(self.ts[place] for place in kept.tolist())
        return Trajectory(ts, self.x_t[kept], None if self.x_0 is None else self.x_0[kept])


def trajectory(
    denoiser: Denoiser,
    point_sampler: Choice,
    steps: int | None,
    shape: tuple[int, int, int, int],
    seed: int,
    device: torch.device | str = "cpu",
    shown: Collection[int] | None = None,
) -> Trajectory:
    """Draw one batch with any registered sampler and keep what it passed through, on the CPU.

    The images are those of `sampling.sample` with that seed and a batch of B. Where a sampler calls the network twice
    at one step (`heun`), the second call is kept: the first was a trial.

    Args:
        steps: network calls; None for all.
        shape: (B, C, H, W).
        shown: the steps to keep, of those at which the network is called; None: all of them. x_T and the images are
            always kept.

    Raises:
        DiffsearchError: the sampler doesn't fit the network.
    """
    check_sampling(denoiser.predicts, point_sampler, steps, denoiser.schedule.steps)
    noise, generator = starting_noise(denoiser, shape, seed)
    first = denoiser.schedule.first_step
    seen: dict[int, tuple[Tensor, Tensor]] = {first: (noise, noise)}  # t -> x_t and what the network said

    def heard(t: int, x_t: Tensor, said: Tensor) -> None:
        if shown is None or t == first or t in shown:
            seen[t] = x_t.cpu(), said.cpu()

    watched = _Watched(**{each.name: getattr(denoiser, each.name) for each in fields(denoiser)}, heard=heard)
    images = walk(watched, point_sampler, steps, noise.to(device), generator).cpu()
    ts = sorted(seen, reverse=True)
    x_t = torch.stack([*(seen[t][0] for t in ts), images])
    x_0 = None if denoiser.direct_mean else torch.stack([*(_estimate(denoiser, t, *seen[t]) for t in ts), images])
    return Trajectory((*ts, 0), x_t, x_0)


@dataclass(frozen=True)
class _Watched(Denoiser):
    """A denoiser that tells of each call: step (of which the network may be told a noise level), x_t and output."""

    heard: Callable[[int, Tensor, Tensor], None] = lambda t, x_t, said: None

    def said(self, x_t: Tensor, t: int) -> Tensor:
        said = Denoiser.said(self, x_t, t)
        self.heard(t, x_t, said)
        return said


def _estimate(denoiser: Denoiser, t: int, x_t: Tensor, output: Tensor) -> Tensor:
    """The x_0 that an output means; at alpha_bar_T = 0 an epsilon network isn't asked and its output not read."""
    return replace(denoiser, network=lambda *_: output).x0_and_eps(x_t, t)[0]


def lerp(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """(1 - share) · start + share · end for each of `shares` (n,): (n, *start.shape).

    Half way between two independent latents the norm is 1/√2 of theirs: no x_T that a network was trained on.
    """
    to = _rows(shares, start)
    return (1 - to) * start + to * end


def slerp(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """The great arc between two latents (Shoemake 1985), each tensor taken as one vector: (n, *start.shape).

    On vectors of one norm it keeps that norm and a constant speed; exactly `start` at share 0 and `end` at share 1.

    Args:
        shares: (n,), how far along the arc.

    Raises:
        DiffsearchError: opposite vectors, between which there is no one great arc.
    """
    one, other = start.double().flatten(), end.double().flatten()
    one, other = one / one.norm(), other / other.norm()
    angle = 2 * torch.atan2((one - other).norm(), (one + other).norm())  # Kahan: exact where they nearly agree, too
    if angle < PARALLEL:
        return lerp(start, end, shares)
    if torch.pi - angle < PARALLEL:
        raise DiffsearchError("slerp between opposite latents: no one great arc joins them")
    to = shares.to(angle)
    weights = (torch.sin(part * angle) / torch.sin(angle) for part in (1 - to, to))
    from_start, from_end = (_rows(weight, start) for weight in weights)
    return from_start * start + from_end * end


def interpolation(
    denoiser: Denoiser, start: Tensor, end: Tensor, count: int, steps: int | None = None, along: Path = slerp
) -> Tensor:
    """Images of `count` latents evenly spaced from one to another, by DDIM at eta = 0: (count, C, H, W), normalised.

    The first and the last are the plain samples of the two latents.

    Args:
        start, end: (C, H, W) standard normal latents, on the network's device.
        count: ≥ 2.
        steps: network calls an image; None for all.
        along: `slerp` or `lerp`.

    Raises:
        DiffsearchError: the network holds no estimate of x_0.
    """
    return _images_of(denoiser, along(start, end, _shares(count, start)), steps)


def between_classes(
    denoiser: Denoiser, latent: Tensor, first: int, last: int, count: int, steps: int | None = None, weight: float = 0.0
) -> Tensor:
    """One latent under soft labels that go evenly from one class to another: (count, C, H, W), normalised, by DDIM.

    Args:
        latent: (C, H, W), on the network's device.
        first, last: indices of the classes.
        count: ≥ 2.
        weight: of the guidance.

    Raises:
        DiffsearchError: the network takes no labels, or holds no estimate of x_0.
    """
    to = _shares(count, latent)[:, None].float()
    one, other = _labels(denoiser, (first, last), latent.device)
    labels = (1 - to) * one + to * other
    return _images_of(denoiser.given(labels, weight), latent.expand(count, *latent.shape), steps)


def class_rows(
    denoiser: Denoiser,
    point_sampler: Choice,
    steps: int | None,
    shape: tuple[int, int, int, int],
    seed: int,
    classes: Sequence[int],
    weight: float = 0.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A row of images for each class, with the same noise along each column: (len(classes), B, C, H, W), normalised.

    Args:
        shape: (B, C, H, W), B columns.
        classes: indices of the classes, a row each.
        weight: of the guidance.

    Raises:
        DiffsearchError: the network takes no labels, or the sampler doesn't fit it.
    """
    check_sampling(denoiser.predicts, point_sampler, steps, denoiser.schedule.steps)
    rows = []
    for label in _labels(denoiser, classes, device):
        noise, generator = starting_noise(denoiser, shape, seed)  # anew: what is drawn on the way is the same, too
        given = denoiser.given(label.expand(len(noise), -1), weight)
        rows.append(walk(given, point_sampler, steps, noise.to(device), generator))
    return torch.stack(rows)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Images that were noised part of the way and denoised from there, all (B, C, H, W) and normalised."""

    t: int  # how far: 1..first_step
    noised: Tensor
    images: Tensor
    error: Tensor  # (B,): root mean square over an image's pixels, in normalised units


def reconstruction(
    denoiser: Denoiser, x_0: Tensor, t: int, seed: int, point_sampler: Choice = DDIM, steps: int | None = None
) -> Reconstruction:
    """Noise images to step t and denoise them from there; one seed gives one and the same noise at every t.

    Args:
        x_0: (B, C, H, W), on the network's device.
        steps: network calls, 1..t; None for all t.

    Raises:
        DiffsearchError: t isn't a step of the schedule, or the sampler doesn't fit the network.
    """
    if not 1 <= t <= denoiser.schedule.first_step:
        raise DiffsearchError(f"reconstruction from t = {t}: choose 1..{denoiser.schedule.first_step}")
    part = replace(denoiser, schedule=denoiser.schedule.until(t))
    check_sampling(part.predicts, point_sampler, steps, t)
    noise, generator = starting_noise(denoiser, x_0.shape, seed)
    noised = float(part.schedule.signal[t]) * x_0 + float(part.schedule.sigma[t]) * noise.to(x_0)
    images = walk(part, point_sampler, steps, noised, generator)
    return Reconstruction(t, noised, images, (images - x_0).square().flatten(1).mean(1).sqrt())


def _images_of(denoiser: Denoiser, latents: Tensor, steps: int | None) -> Tensor:
    check_sampling(denoiser.predicts, DDIM, steps, denoiser.schedule.steps)
    return walk(denoiser, DDIM, steps, latents, torch.Generator())


def _labels(denoiser: Denoiser, classes: Sequence[int], device: torch.device | str) -> Tensor:
    """Label rows, one of each class."""
    if not denoiser.classes:
        raise DiffsearchError("this network was trained without labels: it draws no class of choice")
    return one_hot(torch.tensor(classes, device=device), denoiser.classes)


def _shares(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0, 1, count, dtype=torch.float64, device=like.device)


def _rows(weights: Tensor, like: Tensor) -> Tensor:
    """(n,) weights in the type of a tensor and shaped to multiply it, one row each."""
    return weights.to(like).reshape(-1, *(1 for _ in like.shape))
