"""From images to noised images: training batches, and the strip of figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsearch.diffusion.schedule import Schedule


@dataclass(frozen=True, slots=True)
class NoisedBatch:
    """Everything that a loss may compare a network's output with. Images are (B, C, H, W), normalised."""

    x_0: Tensor
    x_t: Tensor  # what the network reads
    noise: Tensor  # eps, with x_t = signal · x_0 + sigma · eps
    t: Tensor  # (B,): what the network reads, int64 in 1..first_step; in continuous time T · sigma, float
    x_prev: Tensor  # x_{t-1}: a draw of the chain, jointly with x_t
    mu_tilde: Tensor  # mean of q(x_{t-1} | x_t, x_0), from x_0: its eps form is 0/0 where alpha_t = 0
    signal: Tensor  # (B, 1, 1, 1): sqrt(alpha_bar_t)
    sigma: Tensor  # (B, 1, 1, 1): sqrt(1 - alpha_bar_t)
    schedule: Schedule


def noise_batch(schedule: Schedule, x_0: Tensor, generator: torch.Generator) -> NoisedBatch:
    """Noise each image to its own t, uniform over 1..first_step.

    x_{t-1} is drawn from q(x_{t-1} | x_t, x_0), so (x_{t-1}, x_t) follow the chain's joint law. In continuous time the
    noise level is that of a uniform u in (0, first_step / T]; between two steps, acos(signal) is taken to be linear.

    Args:
        x_0: (B, C, H, W), normalised, on any device.
        generator: source of all randomness; draws happen on its device, so a CPU one makes all devices agree.
    """
    if schedule.time == "continuous":
        return _between_steps(schedule, x_0, generator)
    t = torch.randint(1, schedule.first_step + 1, (len(x_0),), generator=generator, device=generator.device)
    noise, posterior_noise = normal_like(x_0, generator), normal_like(x_0, generator)

    def at_t(table: Tensor) -> Tensor:
        return table[t.cpu()].to(dtype=x_0.dtype).to(x_0.device)[:, None, None, None]

    signal, sigma = at_t(schedule.signal), at_t(schedule.sigma)
    x_t = signal * x_0 + sigma * noise
    mu_tilde = at_t(schedule.posterior_x0) * x_0 + at_t(schedule.posterior_xt) * x_t
    x_prev = mu_tilde + at_t(schedule.beta_tilde.sqrt()) * posterior_noise
    return NoisedBatch(x_0, x_t, noise, t.to(x_0.device), x_prev, mu_tilde, signal, sigma, schedule)


def _between_steps(schedule: Schedule, x_0: Tensor, generator: torch.Generator) -> NoisedBatch:
    place = (1 - torch.rand(len(x_0), generator=generator, dtype=torch.float64)) * schedule.first_step
    before = (place.ceil().long() - 1).clamp(min=0)
    angle = torch.lerp(schedule.angle[before], schedule.angle[before + 1], place - before)
    noise = normal_like(x_0, generator)
    signal, sigma = (part.to(x_0)[:, None, None, None] for part in (angle.cos(), angle.sin()))
    x_t = signal * x_0 + sigma * noise
    told = (schedule.steps * angle.sin()).float().to(x_0.device)
    return NoisedBatch(x_0, x_t, noise, told, x_t, x_t, signal, sigma, schedule)  # x_t is the step before, at the limit


def noising_strip(schedule: Schedule, x_0: Tensor, ts: Sequence[int], generator: torch.Generator) -> Tensor:
    """One image noised to each t of `ts` (0..T) with one and the same noise: (len(ts), C, H, W), for a figure.

    Args:
        x_0: (C, H, W), normalised.
    """
    noise = normal_like(x_0, generator)
    return torch.stack([float(schedule.signal[t]) * x_0 + float(schedule.sigma[t]) * noise for t in ts])


def normal_like(images: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal of the images' shape, type and device, drawn on the generator's device and then moved."""
    draw = torch.randn(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
    return draw.to(images.device)
