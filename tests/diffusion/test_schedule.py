"""The tables are Ho et al.'s posterior, and the terminal rule acts at alpha_bar_T = 0 only."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from diffsearch.diffusion import Schedule, timesteps
from diffsearch.errors import DiffsearchError
from diffsearch.registry import noise_process
from diffsearch.space.settings import Choice

TERMINALS = ("data-mean", "clamp", "skip")
ENDS_IN_NOISE = ("cosine", "linear-alpha-bar", "linear-noise", "linear-x")


@pytest.mark.parametrize("name", noise_process.names())
def test_the_posterior_is_gaussian_conditioning_on_the_joint_law(name: str) -> None:
    """x_{t-1} and x_t given x_0 are jointly Gaussian; the tables must be the textbook conditional, to 1e-12."""
    schedule = Schedule.build(Choice(name), 20)
    before, after, alpha = schedule.alpha_bar[:-1], schedule.alpha_bar[1:], schedule.alpha[1:]
    gain = alpha.sqrt() * (1 - before) / (1 - after)  # cov(x_{t-1}, x_t) / var(x_t)
    kwargs = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(schedule.posterior_xt[1:], gain, **kwargs)
    torch.testing.assert_close(schedule.posterior_x0[1:], before.sqrt() - gain * after.sqrt(), **kwargs)
    torch.testing.assert_close(schedule.beta_tilde[1:], (1 - before) - gain * alpha.sqrt() * (1 - before), **kwargs)


@pytest.mark.parametrize("name", noise_process.names())
def test_the_tables_are_finite_and_the_first_step_returns_x_0(name: str) -> None:
    for steps in (1, 2, 15, 1000):
        for terminal in TERMINALS:
            if steps == 1 and terminal == "skip" and name in ENDS_IN_NOISE:
                continue
            schedule = Schedule.build(Choice(name), steps, terminal)
            tables = [schedule.alpha, schedule.beta, schedule.beta_tilde, schedule.posterior_x0, schedule.posterior_xt]
            assert all(table.shape == (steps + 1,) and table.isfinite().all() for table in tables)
            assert schedule.alpha_bar.diff().max() < 0
            assert (schedule.posterior_x0[1], schedule.posterior_xt[1], schedule.beta_tilde[1]) == (1, 0, 0)


@pytest.mark.parametrize("name", ENDS_IN_NOISE)
def test_the_terminal_rule_acts_where_nothing_is_left(name: str) -> None:
    mean, clamp, skip = (Schedule.build(Choice(name), 15, terminal) for terminal in TERMINALS)
    assert mean.alpha_bar[-1] == 0 and not mean.has_signal(15) and mean.first_step == 15
    assert clamp.alpha_bar[-1] == 1e-5 and clamp.has_signal(15) and clamp.first_step == 15
    assert skip.first_step == 14 and skip.has_signal(14)
    assert torch.equal(mean.alpha_bar[:-1], clamp.alpha_bar[:-1])


@pytest.mark.parametrize("name", ["cosine-squared", "linear-beta"])
def test_the_terminal_rule_leaves_other_processes_alone(name: str) -> None:
    for steps in (1, 15, 1000):
        schedules = [Schedule.build(Choice(name), steps, terminal) for terminal in TERMINALS]
        assert all(torch.equal(s.alpha_bar, noise_process.build(name, steps)) for s in schedules)
        assert all(s.first_step == steps and s.has_signal(steps) for s in schedules)


def test_clamping_keeps_a_fine_process_falling() -> None:
    """linear-x at T = 1000 has ᾱ = 1e-6 one step before its end, below the clamp."""
    schedule = Schedule.build(Choice("linear-x"), 1000, "clamp")
    assert schedule.alpha_bar[-1] == pytest.approx(5e-7, rel=1e-9)


def test_one_step_that_is_skipped_is_refused() -> None:
    with pytest.raises(DiffsearchError, match="leaves no step to train"):
        Schedule.build(Choice("linear-noise"), 1, "skip")
    with pytest.raises(DiffsearchError, match="at least 1"):
        Schedule.build(Choice("linear-noise"), 0)
    with pytest.raises(DiffsearchError, match="unknown terminal rule 'wrap'"):
        Schedule.build(Choice("linear-noise"), 5, "wrap")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "alpha_bar",
    [
        torch.tensor([1.0, 0.5]),  # float32
        torch.tensor([1.1, 0.5], dtype=torch.float64),
        torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64),
        torch.tensor([1.0, 0.5, -0.1], dtype=torch.float64),
        torch.tensor([1.0, 1e-14, 0.0], dtype=torch.float64),
        torch.tensor([1.0, float("nan")], dtype=torch.float64),
        torch.tensor([1.0], dtype=torch.float64),
    ],
)
def test_what_is_no_noise_process_is_refused(alpha_bar: Tensor) -> None:
    with pytest.raises(DiffsearchError, match="a noise process returns"):
        Schedule(alpha_bar)


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("steps", [1, 2, 7, 15, 100])
def test_timesteps_fall_evenly_from_the_first(steps: int, terminal: str) -> None:
    schedule = Schedule.build(Choice("linear-beta" if steps == 1 else "linear-noise"), steps, terminal)  # type: ignore[arg-type]
    assert timesteps(schedule) == tuple(range(schedule.first_step, 0, -1))
    for count in range(1, steps + 1):
        chosen = timesteps(schedule, count)
        assert len(chosen) == min(count, schedule.first_step) and chosen[0] == schedule.first_step and chosen[-1] >= 1
        gaps = [a - b for a, b in zip(chosen, (*chosen[1:], 0), strict=True)]
        assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1
    if (steps, terminal) == (15, "data-mean"):
        assert timesteps(schedule, 6) == (15, 13, 10, 8, 5, 3)
    for count in (0, steps + 1):
        with pytest.raises(DiffsearchError, match=f"1..{steps}"):
            timesteps(schedule, count)


@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large"])
def test_the_variances_are_diffusers(kind: str) -> None:
    schedule = Schedule.build(Choice("linear-beta"), 50)
    theirs = DDPMScheduler(num_train_timesteps=50, variance_type=kind)
    theirs.betas, theirs.alphas, theirs.alphas_cumprod = schedule.beta[1:], schedule.alpha[1:], schedule.alpha_bar[1:]
    ours = schedule.beta_tilde if kind == "fixed_small" else schedule.beta
    for t in range(2, 51):
        assert float(theirs._get_variance(t - 1)) == pytest.approx(float(ours[t]), rel=1e-10)
