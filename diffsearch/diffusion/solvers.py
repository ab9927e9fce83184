"""Deterministic samplers that solve the probability-flow ODE to second order: better images from few network calls.

Same signature and traits as in `samplers`. In the variables y = x / signal and u = sigma / signal the ODE is
dy/du = (y - x_0(x)) / u, the noise (Karras et al. 2022, eq. 1). Where alpha_bar_T = 0 both variables are infinite and
the first step is DDIM's, its limit; so is the last one, into t = 0. Errors fall as 1 / steps² where the process ends
with some signal left; where it ends in pure noise, as 1 / steps and below DDIM's, since u then grows without bound.
Both are diffusers' to 1e-5 on the tables of `clamp`, which are all that they share: diffusers needs a finite u at T.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffsearch.diffusion.denoiser import Denoiser
from diffsearch.diffusion.schedule import Schedule
from diffsearch.registry import sampler


@sampler.register("dpm-solver++", few_step=True, direct_mean=False)
def dpm_solver_plus_plus(denoiser: Denoiser, noise: Tensor, steps: int | None, generator: torch.Generator) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095), algorithm 2: the x_0 estimates of two steps, extrapolated.

    One network call a step. The first and the last step are of first order, DDIM's.

    Args:
        noise: x_T, standard normal.
        steps: network calls, 1..T; None for all.
        generator: not used: nothing is drawn.
    """
    x, schedule = noise, denoiser.schedule
    before: tuple[Tensor, float] | None = None  # x_0 estimate of the step before, and its length in log SNR
    for t, s in pairwise((*denoiser.timesteps(steps), 0)):
        x_0, _ = denoiser.x0_and_eps(x, t)
        length = half_log_snr(schedule, s) - half_log_snr(schedule, t)
        estimate = x_0
        if before is not None and math.isfinite(before[1]) and math.isfinite(length):
            estimate = x_0 + (x_0 - before[0]) * (length / (2 * before[1]))
        ratio = float(schedule.sigma[s] / schedule.sigma[t])
        x = ratio * x + (float(schedule.signal[s]) - ratio * float(schedule.signal[t])) * estimate
        before = x_0, length
    return x


@sampler.register("heun", few_step=True, direct_mean=False)
def heun(denoiser: Denoiser, noise: Tensor, steps: int | None, generator: torch.Generator) -> Tensor:
    """Karras et al. 2022, algorithm 1 (no churn): each step is tried, and taken with the mean slope of its two ends.

    Two network calls a step but one at the last, and at the first where it starts in pure noise: n calls make
    (n + 1) / 2 steps, or there (n + 2) / 2, rounded down.

    Args:
        noise: x_T, standard normal.
        steps: network calls, 1..T, of which one may be left over; None for T.
        generator: not used: nothing is drawn.
    """
    x, schedule = noise, denoiser.schedule
    calls = len(denoiser.timesteps(steps))
    euler = 1 if calls == 1 or schedule.has_signal(schedule.first_step) else 2  # steps of one call
    for t, s in pairwise((*denoiser.timesteps((calls + euler) // 2), 0)):
        x_0, eps = denoiser.x0_and_eps(x, t)
        tried = float(schedule.signal[s]) * x_0 + float(schedule.sigma[s]) * eps
        if s == 0 or not schedule.has_signal(t):
            x = tried
            continue
        _, eps_there = denoiser.x0_and_eps(tried, s)
        slope = (eps + eps_there) / 2  # dy/du is eps
        u_t, u_s = (float(schedule.sigma[step] / schedule.signal[step]) for step in (t, s))
        x = float(schedule.signal[s]) * (x / float(schedule.signal[t]) + (u_s - u_t) * slope)
    return x


def half_log_snr(schedule: Schedule, t: int) -> float:
    """lambda_t = log(signal / sigma): +inf at t = 0, -inf where alpha_bar_t = 0."""
    signal, sigma = float(schedule.signal[t]), float(schedule.sigma[t])
    if sigma == 0:
        return math.inf
    return math.log(signal / sigma) if signal > 0 else -math.inf
