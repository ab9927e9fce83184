"""Training at any noise level: its law, what the network reads, and what stays for samplers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffsearch.diffusion import Denoiser, Schedule, noise_batch
from diffsearch.registry import noise_process
from diffsearch.space.settings import Choice


def batch_of(process: str, steps: int, count: int = 20_000):  # type: ignore[no-untyped-def]
    schedule = Schedule.build(Choice(process), steps, time="continuous")
    return noise_batch(schedule, torch.zeros(count, 1, 1, 1, dtype=torch.float64), torch.Generator().manual_seed(0))


def test_signal_rate_is_drawn_as_its_source_draws_it() -> None:
    """Keras: angle = start + u (end - start), u uniform: the signal's quantiles are those of the closed form."""
    batch = batch_of("signal-rate", 20)
    start, end = math.acos(0.95), math.acos(0.02)
    angles = batch.signal.flatten().acos().sort().values
    expected = start + (end - start) * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert float((angles - expected).abs().max()) < 0.03
    torch.testing.assert_close(batch.signal**2 + batch.sigma**2, torch.ones_like(batch.signal))


@pytest.mark.parametrize("process", noise_process.names())
def test_levels_between_steps_agree_with_a_finer_process(process: str) -> None:
    """acos(signal) read between 100 steps is the process' own of 1000 steps there, to the curvature of one step."""
    coarse, fine = (Schedule.build(Choice(process), steps).angle for steps in (100, 1000))
    between = torch.lerp(coarse[:-1], coarse[1:], torch.tensor(0.5, dtype=torch.float64))
    error = (between - fine[5::10]).abs()
    assert float(error[1:-1].max()) < 4e-3  # the first step bends as a square root, the last clips its beta


def test_the_network_reads_the_noise_level_in_training_and_in_sampling() -> None:
    batch = batch_of("linear-noise", 10, 50)
    torch.testing.assert_close(batch.t, (10 * batch.sigma.flatten()).float())
    seen: list[Tensor] = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x_t

    schedule = Schedule.build(Choice("linear-noise"), 10, time="continuous")
    denoiser = Denoiser(network, schedule, "x0", -1, 1, torch.zeros(1, 1, 1))
    denoiser.output(torch.zeros(2, 1, 1, 1), 5)
    assert seen[0].tolist() == pytest.approx([10 * math.sqrt(1 - 0.75)] * 2)


def test_the_last_step_of_a_noisy_start_returns_the_estimate() -> None:
    schedule = Schedule.build(Choice("signal-rate"), 10)
    denoiser = Denoiser(lambda x_t, t: x_t * 0 + 0.3, schedule, "x0", -1, 1, torch.zeros(1, 1, 1))
    assert denoiser.mean(torch.randn(4, 1, 1, 1), 1).flatten().tolist() == pytest.approx([0.3] * 4)
