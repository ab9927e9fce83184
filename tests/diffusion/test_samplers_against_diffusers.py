"""Single steps equal diffusers' to 1e-10 where both are defined, given our float64 tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from diffsearch.diffusion import Denoiser, Schedule, timesteps
from diffsearch.registry import noise_process, sampler
from diffsearch.space.settings import Choice

STEPS = 12
NAMES = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
# diffusers divides by √ᾱ_T and by √α_T; the rule at ᾱ_T = 0 is ours, so the last step is compared under `clamp`.
SCHEDULES = {name: Schedule.build(Choice(name), STEPS, "clamp") for name in noise_process.names()}


def network(x: Tensor, t: Tensor) -> Tensor:
    """Any fixed function of both will do, as long as it needs clipping in places."""
    return torch.sin(3 * x) * (1 + t.to(x)[:, None, None, None] / STEPS) + 0.3


def denoiser_for(schedule: Schedule, predicts: str, clips: bool) -> Denoiser:
    limit = 1.0 if clips else float("inf")
    return Denoiser(network, schedule, predicts, -limit, limit, torch.zeros(1, 4, 4, dtype=torch.float64))  # type: ignore[arg-type]


def theirs(kind: type, schedule: Schedule, predicts: str, clips: bool, path: tuple[int, ...], **options: Any) -> Any:
    """A diffusers scheduler on our tables; its timestep is ours less one."""
    scheduler = kind(
        num_train_timesteps=STEPS, prediction_type=NAMES[predicts], clip_sample=clips, thresholding=False, **options
    )
    scheduler.betas, scheduler.alphas = schedule.beta[1:], schedule.alpha[1:]
    scheduler.alphas_cumprod = schedule.alpha_bar[1:]
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    if kind is DDPMScheduler:
        scheduler.set_timesteps(timesteps=[t - 1 for t in path])
    return scheduler


def start() -> Tensor:
    return torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("count", [STEPS, 5, 1])
@pytest.mark.parametrize("variance", ["beta-tilde", "beta"])
@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("predicts", NAMES)
@pytest.mark.parametrize("name", noise_process.names())
def test_ancestral_is_diffusers_ddpm(name: str, predicts: str, clips: bool, variance: str, count: int) -> None:
    """The whole chain, with the same draws; relative to the largest value, as unclipped chains grow.

    The last step returns x_0 without noise; diffusers adds noise there whenever it isn't step 1, so its x_0 is read.
    """
    schedule = SCHEDULES[name]
    path = timesteps(schedule, count)
    kind = {"beta-tilde": "fixed_small", "beta": "fixed_large"}[variance]
    scheduler = theirs(DDPMScheduler, schedule, predicts, clips, path, variance_type=kind)
    x, generator = start(), torch.Generator().manual_seed(7)
    for t in path:
        output = network(x, torch.full((3,), t))
        stepped = scheduler.step(output, t - 1, x, generator=generator)
        x = stepped.prev_sample if t > path[-1] else stepped.pred_original_sample
    ours = sampler.member("ancestral").factory(
        denoiser_for(schedule, predicts, clips), start(), count, torch.Generator().manual_seed(7), variance=variance
    )
    assert (ours - x).abs().max() <= 1e-10 * max(1.0, float(x.abs().max()))


@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("predicts", NAMES)
@pytest.mark.parametrize("name", noise_process.names())
def test_one_ancestral_mean_is_diffusers(name: str, predicts: str, clips: bool) -> None:
    schedule = SCHEDULES[name]
    scheduler = theirs(DDPMScheduler, schedule, predicts, clips, timesteps(schedule), variance_type="fixed_small")
    x = start()
    for t in range(1, STEPS + 1):
        output = network(x, torch.full((3,), t))
        generator = torch.Generator().manual_seed(t)
        stepped = scheduler.step(output, t - 1, x, generator=generator).prev_sample
        if t > 1:
            fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
            stepped = stepped - schedule.beta_tilde[t].sqrt() * fresh
        ours = denoiser_for(schedule, predicts, clips).mean(x, t)
        assert (ours - stepped).abs().max() <= 1e-10 * max(1.0, float(stepped.abs().max()))


@pytest.mark.parametrize("count", [STEPS, 4, 3, 1])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("predicts", NAMES)
@pytest.mark.parametrize("name", noise_process.names())
def test_ddim_is_diffusers_ddim(name: str, predicts: str, clips: bool, eta: float, count: int) -> None:
    """diffusers' DDIM takes even strides only, so the counts divide T."""
    schedule = SCHEDULES[name]
    path = timesteps(schedule, count)
    scheduler = theirs(DDIMScheduler, schedule, predicts, clips, path)
    scheduler.num_inference_steps = count
    x, generator = start(), torch.Generator().manual_seed(7)
    for t in path:
        output = network(x, torch.full((3,), t))
        stepped = scheduler.step(output, t - 1, x, eta=eta, use_clipped_model_output=True, generator=generator)
        x = stepped.prev_sample
    ours = sampler.member("ddim").factory(
        denoiser_for(schedule, predicts, clips), start(), count, torch.Generator().manual_seed(7), eta=eta
    )
    assert (ours - x).abs().max() <= 1e-10 * max(1.0, float(x.abs().max()))
