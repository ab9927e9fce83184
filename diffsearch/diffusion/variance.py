"""A variance that the network learns: its range, and the variational bound that teaches it.

Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsearch.diffusion.noising import NoisedBatch
from diffsearch.diffusion.targets import Predicts, estimated_x0

HYBRID_STEPS = 1000  # L_simple + 0.001 L_vlb, and L_vlb sums over T: T/1000 of the mean over t


def learned_variance(said: Tensor, beta: Tensor, beta_tilde: Tensor) -> Tensor:
    """exp(u log beta + (1 - u) log beta_tilde), eq. 15, with u = (said + 1) / 2 so that an output of 0 is the middle.

    Args:
        said: (B, C, H, W), the second half of the network's output.
        beta, beta_tilde: positive variances, broadcastable to it.
    """
    share = (said + 1) / 2
    high, low = (table.log().to(dtype=said.dtype, device=said.device) for table in (beta, beta_tilde))
    return torch.exp(share * high + (1 - share) * low)


def variational_bound(output: Tensor, batch: NoisedBatch, predicts: Predicts, low: float, high: float) -> Tensor:
    """One term of the variational bound, scaled by T/1000 as the hybrid loss takes it: (B,), nats a pixel.

    At t > 1 the KL divergence from q(x_{t-1} | x_t, x_0) to the network's Gaussian; at t = 1 the negative log-
    likelihood of x_0's pixel values under it, each value a bin (Ho et al. 2020, eqs. 8 and 13), in nats where their
    code has bits. The mean is held fixed:
    only the variance learns from it (section 3.3).

    Args:
        output: (B, 2C, H, W): what `predicts` says, and the variance's share.
        low, high: what the pixel values 0 and 255 are in the normalised range.
    """
    schedule, channels = batch.schedule, batch.x_0.shape[1]
    step = batch.t.cpu()

    def at_t(table: Tensor) -> Tensor:
        return table[step][:, None, None, None].to(batch.x_0)

    x_0 = estimated_x0(output[:, :channels].detach(), batch, predicts)
    mean = at_t(schedule.posterior_x0) * x_0 + at_t(schedule.posterior_xt) * batch.x_t
    beta_tilde = schedule.beta_tilde.clone()
    beta_tilde[1] = beta_tilde[2] if schedule.steps > 1 else schedule.beta[1]  # 0 has no logarithm
    variance = learned_variance(output[:, channels:], at_t(schedule.beta), at_t(beta_tilde))
    divergence = gaussian_divergence(batch.mu_tilde, at_t(beta_tilde), mean, variance)
    likelihood = bin_log_likelihood(batch.x_0, mean, variance, low, high)
    term = torch.where((batch.t == 1)[:, None, None, None], -likelihood, divergence)
    return term.flatten(1).mean(1) * (schedule.steps / HYBRID_STEPS)


def gaussian_divergence(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) of each pixel, in nats."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - ratio.log() + (mean - other_mean).square() / other_variance)


def bin_log_likelihood(x: Tensor, mean: Tensor, variance: Tensor, low: float, high: float) -> Tensor:
    """log of a Gaussian's mass in the bin of each pixel value, in nats (Ho et al. 2020, eq. 13).

    256 bins of (high - low) / 255 around the values; the outermost reach to infinity. Never below log 1e-12.
    """
    half = (high - low) / 510
    scale = math.sqrt(0.5) / variance.sqrt()
    upper, lower = (torch.erf((x - mean + side * half) * scale) for side in (1, -1))
    mass = (upper.masked_fill(x > high - half, 1.0) - lower.masked_fill(x < low + half, -1.0)) / 2
    return mass.clamp(min=1e-12).log()
