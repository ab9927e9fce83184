"""Samplers: plain functions from noise to images, over a `Denoiser`.

Each is `(denoiser, noise (B, C, H, W), steps, generator, *, options) -> x_0 (B, C, H, W)`, normalised, in at most
`steps` network calls, so that samplers are compared at equal cost. Both equal diffusers' on the tables that are shared,
those of `clamp`: the rule where alpha_bar_T = 0 is ours. Traits: `few_step` says that `steps` may be less than T,
`direct_mean` that networks without an x_0 in their output will do.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from diffsearch.diffusion.denoiser import Denoiser
from diffsearch.diffusion.noising import normal_like
from diffsearch.diffusion.schedule import Schedule
from diffsearch.errors import DiffsearchError
from diffsearch.registry import sampler, suggest

Variance: TypeAlias = Literal["beta-tilde", "beta", "beta-squared", "beta-shifted", "learned"]


@sampler.register("ancestral", few_step=True, direct_mean=True)
def ancestral(
    denoiser: Denoiser,
    noise: Tensor,
    steps: int | None,
    generator: torch.Generator,
    *,
    variance: Variance = "beta-tilde",
) -> Tensor:
    """Ho et al. 2020, algorithm 2: the posterior mean plus noise, none at the last step.

    Fewer than T steps walk the chain of just those steps, its alpha and beta recomputed from alpha_bar.
    The samples' law is the data's only as the steps become many; for data of unit variance `beta` is exact at each
    step but the last, for data of one point `beta-tilde` is.

    Args:
        noise: x_T, standard normal.
        steps: network calls, 1..T; None for all.
        variance: of the noise added from t to s. "beta-tilde": the posterior's; "beta"; "beta-squared": standard
            deviation beta; "beta-shifted": the beta of the step that comes after it; "learned": the network's own.
    """
    x = noise
    path = (*denoiser.timesteps(steps), 0)
    for index, (t, s) in enumerate(pairwise(path)):
        if s > 0 and variance == "learned":
            x, squared = denoiser.mean_and_variance(x, t, s)
            x = x + squared.sqrt() * normal_like(x, generator)
            continue
        x = denoiser.mean(x, t, s)
        if s > 0:
            sigma = _standard_deviation(denoiser.schedule, variance, t, s, path[index + 2])
            x = x + sigma * normal_like(x, generator)
    return x


@sampler.register("ddim", few_step=True, direct_mean=False)
def ddim(
    denoiser: Denoiser, noise: Tensor, steps: int | None, generator: torch.Generator, *, eta: float = 0.0
) -> Tensor:
    """Song et al. 2020, eqs. 12 and 16: deterministic at eta = 0; eta = 1 adds the noise of `beta-tilde`.

    Error O(1 / steps); exact where the data is one point.

    Args:
        noise: x_T, standard normal.
        steps: network calls, 1..T; None for all.
        eta: share of the posterior's standard deviation that is added as fresh noise, in [0, 1].
    """
    if not 0 <= eta <= 1:
        raise DiffsearchError(f"eta must lie in [0, 1], got {eta:g}")
    x, schedule = noise, denoiser.schedule
    for t, s in pairwise((*denoiser.timesteps(steps), 0)):
        x_0, eps = denoiser.x0_and_eps(x, t)
        sigma_squared = eta**2 * float(schedule.transition(t, s).beta_tilde)
        direction = math.sqrt(max(float(1 - schedule.alpha_bar[s]) - sigma_squared, 0.0))  # rounding may fall below 0
        x = float(schedule.signal[s]) * x_0 + direction * eps
        if sigma_squared > 0:
            x = x + math.sqrt(sigma_squared) * normal_like(x, generator)
    return x


def _standard_deviation(schedule: Schedule, variance: str, t: int, s: int, after: int) -> float:
    """Of the noise added from t to s > 0; `after` is the step that follows s."""
    step = schedule.transition(t, s)
    if variance == "beta-tilde":
        return math.sqrt(step.beta_tilde)
    if variance == "beta":
        return math.sqrt(step.beta)
    if variance == "beta-squared":
        return float(step.beta)
    if variance == "beta-shifted":
        return math.sqrt(schedule.transition(s, after).beta)
    raise DiffsearchError(f"unknown variance '{variance}'. {suggest(variance, get_args(Variance))}")
