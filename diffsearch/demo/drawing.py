"""What the page draws: images and the way to them, images between two seeds. Knows nothing of the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsearch.demo.networks import Network
from diffsearch.diffusion import Denoiser
from diffsearch.diffusion.guidance import balanced, one_hot
from diffsearch.diffusion.journeys import interpolation, trajectory
from diffsearch.diffusion.sampling import starting_noise
from diffsearch.diffusion.schedule import timesteps
from diffsearch.errors import DiffsearchError
from diffsearch.registry import suggest
from diffsearch.space.settings import SamplingPoint

FRAMES = 16  # moments of a trajectory that are kept, at most
SHARES, EACH, NONE = "as in the training set", "each in turn", "no class"

Heard = Callable[[int], None]  # told at each call of the network how many there were


@dataclass(frozen=True, slots=True)
class Wish:
    """What to draw from a network."""

    point: SamplingPoint
    seed: int
    count: int
    label: str = SHARES  # a class, SHARES, EACH or NONE; means nothing to a network that takes no labels


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took."""

    images: int
    network_calls: int  # an image
    wall_s: float
    device: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch of images and what it passed through; pixels are uint8."""

    ts: tuple[int, ...]  # the steps kept, falling to 0, where the images are done
    x_t: Tensor  # (len(ts), B, C, H, W): what the sampler held
    x_0: Tensor | None  # (len(ts), B, C, H, W): what the network saw in it; None where it says no such thing
    columns: int  # of a grid of them
    cost: Cost

    @property
    def images(self) -> Tensor:
        """(B, C, H, W)."""
        return self.x_t[-1]


def watch(network: Network, wish: Wish, heard: Heard | None = None) -> Drawn:
    """Draw a batch and keep up to `FRAMES` + 1 moments of its way, evenly spaced. The images are `diffsearch sample`'s.

    Raises:
        DiffsearchError: the sampler doesn't fit the network, no such class, or its images aren't finite.
    """
    meter = _Meter(network.denoiser, heard)
    rows = labels(network, wish.label, wish.count)
    denoiser = _conditioned(meter.denoiser, rows, wish.point.guidance)
    shape = (wish.count, *network.image_shape)
    point, shown = wish.point, _shown(network.denoiser, wish.point.steps)
    way = trajectory(denoiser, point.sampler, point.steps, shape, wish.seed, network.device, shown)
    return Drawn(
        ts=way.ts,
        x_t=_finite(network, way.x_t),
        x_0=None if way.x_0 is None else _finite(network, way.x_0),
        columns=columns(network.classes, wish),
        cost=meter.cost(wish.count, calls_each=1, device=network.device),
    )


def between(
    network: Network, wish: Wish, other_seed: int, frames: int, heard: Heard | None = None
) -> tuple[Tensor, Cost]:
    """The wish's images as DDIM draws them, those of another seed, and those of latents on the great arc between.

    Args:
        wish: its sampler is not asked.
        frames: images in a row, both ends among them.

    Returns:
        (count, frames, C, H, W) uint8: in each row the first image is the wish's, the last the other seed's.

    Raises:
        DiffsearchError: as `watch`; also for networks that hold no estimate of x_0.
    """
    meter = _Meter(network.denoiser, heard)
    shape = (wish.count, *network.image_shape)
    start, end = (
        starting_noise(network.denoiser, shape, seed)[0].to(network.device) for seed in (wish.seed, other_seed)
    )
    rows = labels(network, wish.label, wish.count)
    drawn = []
    for index in range(wish.count):
        row = None if rows is None else rows[index].expand(frames, -1)
        denoiser = _conditioned(meter.denoiser, row, wish.point.guidance)
        drawn.append(interpolation(denoiser, start[index], end[index], frames, wish.point.steps))
    images = _finite(network, torch.stack(drawn))
    return images, meter.cost(wish.count * frames, calls_each=wish.count, device=network.device)


def columns(classes: tuple[str, ...], wish: Wish) -> int:
    """Of a grid: one a class where each is drawn in turn, else 8, or 16 where there are many images."""
    if 1 < len(classes) <= 16 and wish.label == EACH:
        return len(classes)
    return min(wish.count, 8 if wish.count <= 32 else 16)


def labels(network: Network, chosen: str, count: int) -> Tensor | None:
    """(count, K) label rows on the network's device, of zeros for NONE; None where it takes no labels.

    Raises:
        DiffsearchError: no such class.
    """
    classes, shares = network.classes, network.denoiser.class_shares
    if shares is None:
        return None
    if chosen in (SHARES, NONE):
        rows = balanced(0, count, shares)
        return (rows if chosen == SHARES else torch.zeros_like(rows)).to(network.device)
    if chosen != EACH and chosen not in classes:
        raise DiffsearchError(f"unknown class '{chosen}'. {suggest(chosen, classes)}")
    which = torch.arange(count) % len(classes) if chosen == EACH else torch.full((count,), classes.index(chosen))
    return one_hot(which, len(classes)).to(network.device)


def _conditioned(denoiser: Denoiser, rows: Tensor | None, weight: float) -> Denoiser:
    return denoiser if rows is None else denoiser.given(rows, weight)


def _shown(denoiser: Denoiser, steps: int | None) -> tuple[int, ...]:
    """Up to `FRAMES` steps, evenly spaced over those at which a sampler calls the network."""
    ts = timesteps(denoiser.schedule, steps)
    kept = torch.linspace(0, len(ts) - 1, min(FRAMES, len(ts))).round().long()
    return tuple(ts[place] for place in kept.tolist())


def _finite(network: Network, images: Tensor) -> Tensor:
    """Normalised images as pixels."""
    if not images.isfinite().all():
        raise DiffsearchError("this network and sampler give images that aren't finite")
    return network.normalization.decode(images).cpu()


class _Meter:
    """Counts the calls of a network, each for a whole batch, and the seconds since it was made."""

    def __init__(self, denoiser: Denoiser, heard: Heard | None) -> None:
        self._calls, self._began = 0, time.monotonic()
        self._network: Callable[..., Tensor] = denoiser.network
        self._heard = heard
        self.denoiser = replace(denoiser, network=self._call)

    def _call(self, x_t: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        self._calls += 1
        if self._heard is not None:
            self._heard(self._calls)
        return self._network(x_t, t, *labels)

    def cost(self, images: int, calls_each: int, device: torch.device) -> Cost:
        """Args: calls_each: batches that the calls were for."""
        return Cost(images, self._calls // calls_each, time.monotonic() - self._began, str(device))
