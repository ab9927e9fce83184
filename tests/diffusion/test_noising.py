"""Noised batches follow the chain's joint law, and each loss compares with what its name says."""

from __future__ import annotations

import pytest
import torch

from diffsearch.diffusion import NoisedBatch, Schedule, noise_batch, noising_strip
from diffsearch.registry import loss
from diffsearch.space.settings import Choice


def batch_of(
    process: str = "linear-noise", steps: int = 15, count: int = 64, terminal: str = "data-mean"
) -> NoisedBatch:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn((count, 3, 5, 5), generator=generator, dtype=torch.float64)
    return noise_batch(Schedule.build(Choice(process), steps, terminal), x_0, generator)  # type: ignore[arg-type]


def test_a_batch_is_what_its_parts_say() -> None:
    batch = batch_of()
    rebuilt = batch.signal * batch.x_0 + batch.sigma * batch.noise
    torch.testing.assert_close(batch.x_t, rebuilt, rtol=0, atol=1e-15)
    assert torch.equal(batch.signal.flatten() ** 2, batch.schedule.alpha_bar[batch.t].sqrt() ** 2)
    # mu_tilde's eps form, where it is defined
    step = batch.schedule
    inner = (batch.t < 15).nonzero()[:, 0]
    t = batch.t[inner]
    beta, alpha = step.beta[t][:, None, None, None], step.alpha[t][:, None, None, None]
    eps_form = (batch.x_t[inner] - beta / batch.sigma[inner] * batch.noise[inner]) / alpha.sqrt()
    torch.testing.assert_close(batch.mu_tilde[inner], eps_form, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("terminal", "last"), [("data-mean", 15), ("clamp", 15), ("skip", 14)])
def test_t_is_uniform_over_the_trained_steps(terminal: str, last: int) -> None:
    """Each of `last` cells holds 6000/last ± 5 standard deviations."""
    t = batch_of(count=6000, terminal=terminal).t
    counts = torch.bincount(t, minlength=last + 1)
    assert t.min() == 1 and t.max() == last
    assert (counts[1:] - 6000 / last).abs().max() < 5 * (6000 / last) ** 0.5


def test_the_generator_is_the_only_randomness() -> None:
    torch.manual_seed(1)
    first = batch_of()
    torch.manual_seed(2)
    assert torch.equal(first.x_prev, batch_of().x_prev) and torch.equal(first.t, batch_of().t)


@pytest.mark.parametrize("t", [1, 2, 3])
def test_x_prev_is_drawn_jointly_with_x_t(t: int) -> None:
    """Given x_0: var x_{t-1} = 1 - ᾱ_{t-1}, var x_t = 1 - ᾱ_t, cov = √α_t (1 - ᾱ_{t-1}); x_{t-1} = x_0 at t = 1.

    120,000 pixels of each t: a second moment of unit normals has standard error √2/√120000 = 0.004; five of them.
    """
    schedule = Schedule.build(Choice("linear-noise"), 3)
    x_0 = torch.full((3000, 1, 11, 11), 0.3, dtype=torch.float64)
    batch = noise_batch(schedule, x_0, torch.Generator().manual_seed(0))
    here = batch.t == t
    previous, now = batch.x_prev[here].flatten(), batch.x_t[here].flatten()
    alpha_bar, alpha = schedule.alpha_bar, float(schedule.alpha[t])
    assert previous.mean() == pytest.approx(float(alpha_bar[t - 1]) ** 0.5 * 0.3, abs=0.015)
    assert now.mean() == pytest.approx(float(alpha_bar[t]) ** 0.5 * 0.3, abs=0.015)
    covariance = torch.cov(torch.stack([previous, now]))
    assert covariance[0, 0] == pytest.approx(1 - float(alpha_bar[t - 1]), abs=0.02)
    assert covariance[1, 1] == pytest.approx(1 - float(alpha_bar[t]), abs=0.02)
    assert covariance[0, 1] == pytest.approx(alpha**0.5 * (1 - float(alpha_bar[t - 1])), abs=0.02)


def test_the_chain_step_adds_fresh_noise() -> None:
    """(x_t - √α_t x_{t-1}) / √β_t is standard normal and independent of x_{t-1}: the forward chain itself."""
    schedule = Schedule.build(Choice("linear-noise"), 2)
    x_0 = torch.zeros((2000, 1, 10, 10), dtype=torch.float64)
    batch = noise_batch(schedule, x_0, torch.Generator().manual_seed(3))
    for t in (1, 2):
        here = batch.t == t
        previous = batch.x_prev[here].flatten()
        fresh = (batch.x_t[here].flatten() - schedule.alpha[t].sqrt() * previous) / schedule.beta[t].sqrt()
        assert fresh.var() == pytest.approx(1, abs=0.025)
        assert (fresh * previous).mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("name", loss.names())
def test_every_loss_vanishes_at_its_target_and_grows_from_there(name: str) -> None:
    batch = batch_of()
    member = loss.member(name)
    target = {
        "epsilon": batch.noise,
        "x0": batch.x_0,
        "v": batch.schedule.alpha_bar[batch.t].sqrt()[:, None, None, None] * batch.noise
        - (1 - batch.schedule.alpha_bar[batch.t]).sqrt()[:, None, None, None] * batch.x_0,
        "mu-tilde": batch.mu_tilde,
        "x-prev": batch.x_prev,
    }[member.traits["predicts"]]
    assert name.startswith(member.traits["predicts"])
    assert member.factory(target, batch).shape == (64,)
    assert member.factory(target, batch).abs().max() < 1e-12
    losses = torch.stack([member.factory(target + off, batch) for off in (0.5, 1.0, 3.0)])
    assert (losses[0] > 0).all() and (losses.diff(dim=0) > 0).all()
    if power := {"l1": 1, "l2": 2}.get(name.rpartition("-")[2]):
        torch.testing.assert_close(losses[2], torch.full((64,), 3.0, dtype=torch.float64) ** power)


@pytest.mark.parametrize("name", loss.names())
@pytest.mark.parametrize("terminal", ["data-mean", "clamp"])
def test_every_loss_is_finite_where_nothing_is_left(name: str, terminal: str) -> None:
    batch = batch_of("cosine", steps=1, terminal=terminal)
    assert loss.member(name).factory(torch.zeros_like(batch.x_0), batch).isfinite().all()


def test_a_strip_is_one_image_under_one_noise() -> None:
    schedule = Schedule.build(Choice("linear-noise"), 10)
    x_0 = torch.full((1, 4, 4), 0.5, dtype=torch.float64)
    strip = noising_strip(schedule, x_0, [0, 5, 10], torch.Generator().manual_seed(0))
    assert strip.shape == (3, 1, 4, 4) and torch.equal(strip[0], x_0)
    middle = 0.75**0.5 * x_0 + 0.5 * strip[2]  # linear-noise: ᾱ = 3/4 half way, and 0 at the end
    torch.testing.assert_close(strip[1], middle, rtol=0, atol=1e-12)
