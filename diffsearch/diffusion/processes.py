"""Noise processes: how much of the image is left after t of T steps.

Every member returns alpha_bar, (T + 1,) float64, with alpha_bar[0] = 1 (below it where the trait `noisy_start` says
so), strictly decreasing and ≥ 0, so that x_t = sqrt(alpha_bar[t]) x_0 + sqrt(1 - alpha_bar[t]) eps.
In the formulas u = t / T.
What happens where alpha_bar[T] is zero is the business of `Schedule`, not of a process.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsearch.errors import DiffsearchError
from diffsearch.registry import noise_process

HO_STEPS = 1000  # the T for which Ho et al. 2020 give their betas


def _unit_times(steps: int) -> Tensor:
    """u = t / T for t = 0..T: (T + 1,) float64."""
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def _check_offset(offset: float) -> None:
    if not (math.isfinite(offset) and offset >= 0):
        raise DiffsearchError(f"offset must be ≥ 0, got {offset:g}; 0.008 is usual")


@noise_process.register("cosine")
def cosine(steps: int, *, offset: float = 0.008) -> Tensor:
    """cos(π/2 · (u + s) / (1 + s)), divided by its value at u = 0: a cosine **without** the square.

    Ends at 6e-17 in float64, which is zero but for rounding.

    Args:
        steps: T, number of noising steps (≥ 1).
        offset: s ≥ 0, keeps the first step from vanishing (dimensionless).
    """
    _check_offset(offset)
    signal = torch.cos((_unit_times(steps) + offset) / (1 + offset) * math.pi / 2)
    return signal / signal[0]


@noise_process.register("cosine-squared")
def cosine_squared(steps: int, *, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Signal schedule of Nichol & Dhariwal 2021, eq. 17, with each beta clipped and alpha_bar rebuilt from them.

    Args:
        steps: T, number of noising steps (≥ 1).
        offset: s ≥ 0, keeps the first step from vanishing (dimensionless).
        max_beta: upper bound of one step's noise variance, in (0, 1]; 1 leaves the schedule unclipped.
    """
    _check_offset(offset)
    if not 0 < max_beta <= 1:
        raise DiffsearchError(f"max_beta must lie in (0, 1], got {max_beta:g}; 1 means unclipped")
    signal = torch.cos((_unit_times(steps) + offset) / (1 + offset) * math.pi / 2) ** 2
    beta = (1 - signal[1:] / signal[:-1]).clamp(max=max_beta)
    return torch.cat([signal.new_ones(1), torch.cumprod(1 - beta, dim=0)])


@noise_process.register("linear-alpha-bar")
def linear_alpha_bar(steps: int) -> Tensor:
    """1 - u: the signal's share of the variance falls evenly."""
    return 1 - _unit_times(steps)


@noise_process.register("linear-x")
def linear_x(steps: int) -> Tensor:
    """(1 - u)²: the factor on x_0 falls evenly."""
    return (1 - _unit_times(steps)) ** 2


@noise_process.register("linear-noise")
def linear_noise(steps: int) -> Tensor:
    """1 - u²: the factor on the noise rises evenly."""
    return 1 - _unit_times(steps) ** 2


@noise_process.register("linear-beta")
def linear_beta(steps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Ho et al. 2020: beta rises evenly over 1000 steps; for another T, its alpha_bar read at round(1000 u).

    Rescaling the betas by 1000 / T instead would pass 1 for T ≤ 20.

    Args:
        steps: T, from 1 to 1000: beyond, neighbouring steps would read the same alpha_bar.
        beta_start: noise variance of the first of the 1000 steps, in (0, 1).
        beta_end: noise variance of the last of the 1000 steps, in (0, 1).
    """
    if steps > HO_STEPS:
        raise DiffsearchError(f"linear-beta is defined up to {HO_STEPS} steps, got {steps}")
    if not (0 < beta_start < 1 and 0 < beta_end < 1):
        raise DiffsearchError(f"beta_start and beta_end must lie in (0, 1), got {beta_start:g} and {beta_end:g}")
    beta = torch.linspace(beta_start, beta_end, HO_STEPS, dtype=torch.float64)
    alpha_bar = torch.cat([beta.new_ones(1), torch.cumprod(1 - beta, dim=0)])
    return alpha_bar[torch.round(_unit_times(steps) * HO_STEPS).long()]


@noise_process.register("signal-rate", noisy_start=True)
def signal_rate(steps: int, *, max_signal: float = 0.95, min_signal: float = 0.02) -> Tensor:
    """cos²(angle), its angles evenly spaced: the process of the Keras example of DDIM, with alpha_bar[0] = 0.9025.

    Ends with some signal left, so that no rule for the last step is needed; the first step's noise is never trained.

    Args:
        steps: T, number of noising steps (≥ 1).
        max_signal: sqrt(alpha_bar) at u = 0, in (min_signal, 1].
        min_signal: sqrt(alpha_bar) at u = 1, in [0, max_signal).
    """
    if not 0 <= min_signal < max_signal <= 1:
        raise DiffsearchError(f"0 ≤ min_signal < max_signal ≤ 1 is needed, got {min_signal:g} and {max_signal:g}")
    start, end = math.acos(max_signal), math.acos(min_signal)
    return torch.cos(start + _unit_times(steps) * (end - start)) ** 2
