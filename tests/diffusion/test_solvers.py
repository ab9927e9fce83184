"""The ODE solvers equal diffusers' on a shared denoiser, and converge to second order on a Gaussian's exact flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler
from torch import Tensor

from diffsearch.diffusion import Denoiser, Schedule, timesteps
from diffsearch.registry import noise_process, sampler
from diffsearch.space.settings import Choice

from .gaussian import MEAN, SHAPE, STD, exact_denoiser

STEPS = 12
NAMES = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
# diffusers needs a finite sigma / signal at T, so the tables that are shared are those of `clamp`.
SCHEDULES = {name: Schedule.build(Choice(name), STEPS, "clamp") for name in noise_process.names()}


def network_for(schedule: Schedule, predicts: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Any fixed function will do, as long as the x_0 behind it is bounded: diffusers steps in float32."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        signal, sigma = (table[t][:, None, None, None] for table in (schedule.signal, schedule.sigma))
        x_0 = torch.sin(3 * x) * (1 + t.to(x)[:, None, None, None] / STEPS)
        eps = (x - signal * x_0) / sigma
        return {"x0": x_0, "epsilon": eps, "v": signal * eps - sigma * x_0}[predicts]

    return network


def denoiser_for(schedule: Schedule, predicts: str) -> Denoiser:
    network, mean = network_for(schedule, predicts), torch.zeros(1, 4, 4, dtype=torch.float64)
    return Denoiser(network, schedule, predicts, -math.inf, math.inf, mean)  # type: ignore[arg-type]


def start() -> Tensor:
    return torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def draw(name: str, denoiser: Denoiser, noise: Tensor, steps: int | None) -> Tensor:
    images: Tensor = sampler.member(name).factory(denoiser, noise, steps, torch.Generator())
    return images


def with_tables(kind: Any, schedule: Schedule, path: tuple[int, ...], predicts: str, **options: Any) -> Any:
    """A diffusers scheduler that walks our steps: sigma / signal of each, then 0."""
    scheduler = kind(num_train_timesteps=STEPS, prediction_type=NAMES[predicts], **options)
    scheduler.num_inference_steps = len(path)
    scheduler.timesteps = torch.tensor(path)
    scheduler.sigmas = torch.cat([(schedule.sigma / schedule.signal)[list(path)], torch.zeros(1, dtype=torch.float64)])
    scheduler._step_index = 0
    return scheduler


def same(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("count", [STEPS, 5, 2, 1])
@pytest.mark.parametrize("predicts", NAMES)
@pytest.mark.parametrize("name", noise_process.names())
def test_dpm_solver_is_diffusers_2m(name: str, predicts: str, count: int) -> None:
    schedule = SCHEDULES[name]
    path = timesteps(schedule, count)
    theirs = with_tables(DPMSolverMultistepScheduler, schedule, path, predicts, final_sigmas_type="zero")
    x, network = start(), network_for(schedule, predicts)
    for t in path:
        x = theirs.step(network(x, torch.full((3,), t)), t, x).prev_sample
    assert same(draw("dpm-solver++", denoiser_for(schedule, predicts), start(), count), x)


@pytest.mark.parametrize("count", [STEPS, 7, 4, 1])
@pytest.mark.parametrize("predicts", NAMES)
@pytest.mark.parametrize("name", noise_process.names())
def test_heun_is_diffusers_heun(name: str, predicts: str, count: int) -> None:
    """diffusers walks y = x / signal; n calls are (n + 1) / 2 of its steps."""
    schedule = SCHEDULES[name]
    path = timesteps(schedule, (count + 1) // 2)
    theirs = with_tables(HeunDiscreteScheduler, schedule, path, predicts)
    twice = [t for pair in pairwise(path) for t in pair] + [path[-1]]
    at = theirs.sigmas
    theirs.sigmas = torch.cat([at[:1], at[1:-1].repeat_interleave(2), at[-1:]])
    theirs.prev_derivative = theirs.dt = None
    y, network = start() / schedule.signal[path[0]], network_for(schedule, predicts)
    for t in twice:
        y = theirs.step(network(y * schedule.signal[t], torch.full((3,), t)), t, y).prev_sample
    assert same(draw("heun", denoiser_for(schedule, predicts), start(), count), y)


def error(name: str, calls: int) -> float:
    """Largest error on the flow of N(MEAN, STD²), which carries x_T to the data by its mean and deviation alone."""
    fine = torch.linspace(0, 1, 1281, dtype=torch.float64)
    schedule = Schedule(torch.cos(0.45 * math.pi * fine) ** 2)  # its signal ends at 0.16, its sigma begins as t
    noise = torch.randn((4, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    signal, sigma = float(schedule.signal[-1]), float(schedule.sigma[-1])
    exact = MEAN + STD * (noise - signal * MEAN) / math.sqrt(signal**2 * STD**2 + sigma**2)
    return float((draw(name, exact_denoiser(schedule, "v"), noise, calls) - exact).abs().max())


def test_errors_fall_as_the_square_of_the_steps_and_ddims_as_the_steps() -> None:
    assert error("ddim", 80) / error("ddim", 160) == pytest.approx(2, abs=0.1)
    assert error("heun", 159) / error("heun", 319) == pytest.approx(4, abs=0.3)
    assert error("dpm-solver++", 160) / error("dpm-solver++", 320) > 3
    for name in ("dpm-solver++", "heun"):
        assert error(name, 21) < error("ddim", 21) / 8


@pytest.mark.parametrize("process", noise_process.names())
@pytest.mark.parametrize("name", ["dpm-solver++", "heun"])
def test_pure_noise_at_the_end_is_no_obstacle(name: str, process: str) -> None:
    schedule = Schedule.build(Choice(process), STEPS, "data-mean")
    for predicts in NAMES:
        assert draw(name, exact_denoiser(schedule, predicts), start(), None).isfinite().all()  # type: ignore[arg-type]
