"""A data set whose exact denoiser is known: every pixel is N(MEAN, STD²), independently."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsearch.diffusion import Denoiser, Schedule
from diffsearch.diffusion.targets import Predicts

MEAN, STD = 0.4, 0.7
SHAPE = (1, 4, 4)


def exact_x0(schedule: Schedule, std: float = STD) -> tuple[Tensor, Tensor]:
    """(slope, offset) of E[x_0 | x_t] = slope · x_t + offset, each (T + 1,), by Gaussian conditioning."""
    alpha_bar = schedule.alpha_bar
    slope = alpha_bar.sqrt() * std**2 / (alpha_bar * std**2 + 1 - alpha_bar)
    return slope, MEAN * (1 - slope * alpha_bar.sqrt())


def exact_denoiser(schedule: Schedule, predicts: Predicts, std: float = STD) -> Denoiser:
    """The network that minimises the L2 loss of that target."""
    slope, offset = exact_x0(schedule, std)
    alpha_bar = schedule.alpha_bar

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        step = int(t[0])
        x_0 = slope[step] * x_t + offset[step]
        eps = (x_t - alpha_bar[step].sqrt() * x_0) / (1 - alpha_bar[step]).sqrt()
        if predicts == "epsilon":
            return eps
        if predicts == "x0":
            return x_0
        if predicts == "v":
            return alpha_bar[step].sqrt() * eps - (1 - alpha_bar[step]).sqrt() * x_0
        return schedule.posterior_x0[step] * x_0 + schedule.posterior_xt[step] * x_t

    data_mean = torch.full(SHAPE, MEAN, dtype=torch.float64)
    return Denoiser(network, schedule, predicts, -math.inf, math.inf, data_mean)
