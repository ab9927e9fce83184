"""Every noise process loses the signal step by step, and the named ones are the published ones."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from diffsearch.diffusion import Schedule
from diffsearch.errors import DiffsearchError
from diffsearch.registry import noise_process
from diffsearch.space.settings import Choice


@pytest.mark.parametrize("steps", [1, 2, 3, 15, 100, 1000])
@pytest.mark.parametrize("name", noise_process.names())
def test_every_noise_process_loses_the_signal_step_by_step(name: str, steps: int) -> None:
    alpha_bar = noise_process.build(name, steps)
    assert alpha_bar.shape == (steps + 1,) and alpha_bar.dtype == torch.float64
    assert (alpha_bar[0] == 1) != bool(noise_process.member(name).traits.get("noisy_start"))
    assert 0 < alpha_bar[0] <= 1 and torch.all(alpha_bar.diff() < 0) and alpha_bar[-1] >= 0


@pytest.mark.parametrize("name", noise_process.names())
def test_the_discretisation_changes_only_where_a_process_is_read(name: str) -> None:
    """ᾱ at u = 1/2 is the same for T = 10 and T = 1000; the clipping of one beta at the end doesn't reach it."""
    coarse, fine = noise_process.build(name, 10), noise_process.build(name, 1000)
    assert coarse[5] == pytest.approx(float(fine[500]), abs=1e-12)


def test_the_four_processes_of_report_002_are_its_formulas() -> None:
    u = torch.arange(16, dtype=torch.float64) / 15
    cosine = torch.tensor([math.cos(math.pi / 2 * (float(x) + 0.008) / 1.008) for x in u], dtype=torch.float64)
    expected = {
        "cosine": cosine / cosine[0],  # not squared
        "linear-alpha-bar": 1 - u,
        "linear-x": (1 - u) ** 2,
        "linear-noise": 1 - u**2,
    }
    for name, alpha_bar in expected.items():
        torch.testing.assert_close(noise_process.build(name, 15), alpha_bar, rtol=0, atol=1e-15)
        assert noise_process.build(name, 15)[-1] < 1e-15, f"{name} ends in pure noise"


def test_cosine_squared_is_diffusers_squaredcos() -> None:
    """Tolerance: diffusers keeps float32 betas, so 1000 factors agree to about 1000 · 6e-8 relative."""
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    torch.testing.assert_close(noise_process.build("cosine-squared", 1000)[1:].float(), theirs, rtol=1e-4, atol=1e-9)


def test_cosine_squared_unclipped_is_the_plain_square() -> None:
    u = torch.arange(21, dtype=torch.float64) / 20
    plain = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    unclipped = noise_process.build("cosine-squared", 20, max_beta=1.0)
    torch.testing.assert_close(unclipped, plain / plain[0], rtol=0, atol=1e-14)
    clipped = noise_process.build("cosine-squared", 20)
    assert clipped[-1] / clipped[-2] == pytest.approx(0.001, rel=1e-12)


def test_linear_beta_is_diffusers_linear_at_1000_and_read_from_it_elsewhere() -> None:
    """Tolerance: as above, float32 betas there."""
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear").alphas_cumprod
    ours = noise_process.build("linear-beta", 1000)
    torch.testing.assert_close(ours[1:].float(), theirs, rtol=1e-4, atol=1e-8)
    assert torch.equal(noise_process.build("linear-beta", 15), ours[[round(1000 * t / 15) for t in range(16)]])


@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("cosine", 10, {"offset": -0.1}),
        ("cosine", 10, {"offset": math.nan}),
        ("cosine-squared", 10, {"max_beta": 0.0}),
        ("cosine-squared", 10, {"max_beta": 1.5}),
        ("linear-beta", 1001, {}),
        ("linear-beta", 10, {"beta_end": 1.0}),
    ],
)
def test_an_option_out_of_its_range_is_refused(name: str, steps: int, options: dict[str, float]) -> None:
    with pytest.raises(DiffsearchError):
        noise_process.build(name, steps, **options)


def test_signal_rate_turns_evenly_from_acos_095_to_acos_002() -> None:
    alpha_bar = noise_process.build("signal-rate", 10)
    angles = [math.acos(0.95) + (math.acos(0.02) - math.acos(0.95)) * k / 10 for k in range(11)]
    assert torch.allclose(alpha_bar, torch.tensor([math.cos(a) ** 2 for a in angles], dtype=torch.float64), atol=1e-15)
    assert float(alpha_bar[0]) == pytest.approx(0.9025) and float(alpha_bar[-1]) == pytest.approx(0.0004)
    with pytest.raises(DiffsearchError, match="min_signal < max_signal"):
        noise_process.build("signal-rate", 10, max_signal=0.1, min_signal=0.2)


def test_a_noisy_start_is_refused_unless_the_process_says_so() -> None:
    @noise_process.register("starts-low")
    def starts_low(steps: int) -> torch.Tensor:
        return torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)

    with pytest.raises(DiffsearchError, match=r"starts-low starts at 0\.9.*noisy_start=True"):
        Schedule.build(Choice("starts-low"), 5)
    assert Schedule.build(Choice("signal-rate"), 5).alpha_bar[0] == 1
