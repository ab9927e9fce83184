"""The learned variance against diffusers, torch.distributions and scipy; what it should learn against its optimum."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diffsearch.diffusion import Denoiser, Schedule, noise_batch
from diffsearch.diffusion.variance import (
    bin_log_likelihood,
    gaussian_divergence,
    learned_variance,
    variational_bound,
)
from diffsearch.errors import DiffsearchError
from diffsearch.space.settings import Choice

LINEAR = Schedule.build(Choice("linear-beta"), 1000)


def test_the_range_is_that_of_diffusers() -> None:
    theirs = DDPMScheduler(num_train_timesteps=1000, variance_type="learned_range")
    said = torch.linspace(-1.5, 1.5, 7)
    for t in (2, 10, 500, 1000):
        expected = theirs._get_variance(t - 1, predicted_variance=said).exp()
        ours = learned_variance(said, LINEAR.beta[t], LINEAR.beta_tilde[t])
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=0)  # theirs is float32


def test_divergence_and_likelihood_are_those_of_the_libraries() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, other = (torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(2))
    variance, wide = (torch.rand(50, generator=generator, dtype=torch.float64) + 0.05 for _ in range(2))
    expected = kl_divergence(Normal(mean, variance.sqrt()), Normal(other, wide.sqrt()))
    torch.testing.assert_close(gaussian_divergence(mean, variance, other, wide), expected)
    mass = stats.norm.cdf(mean + 0.05, other, wide.sqrt()) - stats.norm.cdf(mean - 0.05, other, wide.sqrt())
    ours = bin_log_likelihood(mean, other, wide, -12.75, 12.75)
    torch.testing.assert_close(ours, torch.tensor(mass).clamp(min=1e-12).log())


def test_the_mass_of_all_pixel_values_is_one() -> None:
    """The outermost bins reach to infinity: an estimate beyond black costs nothing where the pixel is black."""
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, variance in ((0.2, 0.3), (-1.4, 0.01), (1.0, 1e-4)):
        at = torch.tensor(mean, dtype=torch.float64), torch.tensor(variance, dtype=torch.float64)
        assert float(bin_log_likelihood(values, *at, -1, 1).exp().sum()) == pytest.approx(1, abs=1e-9)
    assert float(bin_log_likelihood(values[:1], *(torch.tensor(v).double() for v in (-1.4, 0.01)), -1, 1)) > -0.01


def exact(schedule: Schedule, batch_size: int, t: int, share: Tensor) -> tuple[float, Tensor]:
    """The bound at step t for a network that knows x_0 exactly, and its gradient to the variance's share."""
    generator = torch.Generator().manual_seed(1)
    batch = noise_batch(schedule, torch.zeros(batch_size, 1, 2, 2, dtype=torch.float64), generator)
    assert (batch.t == t).any()
    chosen = batch.t == t
    said = share.clone().requires_grad_()
    output = torch.cat([batch.x_0, said.expand_as(batch.x_0)], dim=1)
    bound = variational_bound(output, batch, "x0", -1, 1)[chosen].mean()
    (slope,) = torch.autograd.grad(bound, said)
    return float(bound.detach()), slope


def test_who_knows_the_image_is_taught_the_posteriors_variance() -> None:
    """With x_0 known the divergence is 0 at beta-tilde (a share of -1), and falls towards it from above."""
    schedule = Schedule.build(Choice("linear-noise"), 5)
    at_best, slope = exact(schedule, 200, 3, torch.tensor(-1.0, dtype=torch.float64))
    assert at_best == pytest.approx(0, abs=1e-12) and abs(float(slope)) < 1e-9
    above, slope = exact(schedule, 200, 3, torch.tensor(1.0, dtype=torch.float64))
    assert above > 0.01 * 5 / 1000 and float(slope) > 0


def test_the_mean_learns_nothing_from_the_bound() -> None:
    batch = noise_batch(LINEAR, torch.randn(8, 1, 2, 2), torch.Generator().manual_seed(0))
    output = torch.zeros(8, 2, 2, 2, requires_grad=True)
    for predicts in ("epsilon", "v", "x0"):
        (slope,) = torch.autograd.grad(variational_bound(output, batch, predicts, -1, 1).sum(), output)  # type: ignore[arg-type]
        assert not slope[:, :1].any() and slope[:, 1:].any() and slope.isfinite().all()


@pytest.mark.parametrize("process", ["cosine", "linear-noise", "signal-rate"])
@pytest.mark.parametrize("steps", [1, 2, 15])
def test_the_bound_is_finite_at_every_step(process: str, steps: int) -> None:
    schedule = Schedule.build(Choice(process), steps)
    batch = noise_batch(schedule, torch.rand(64, 1, 2, 2) * 2 - 1, torch.Generator().manual_seed(0))
    for predicts in ("epsilon", "v", "x0"):
        assert variational_bound(torch.zeros(64, 2, 2, 2), batch, predicts, -1, 1).isfinite().all()  # type: ignore[arg-type]


def test_the_sampler_adds_the_variance_that_the_network_says() -> None:
    schedule = Schedule.build(Choice("linear-noise"), 4)
    network = lambda x_t, t: torch.cat([torch.zeros_like(x_t), torch.full_like(x_t, 0.5)], 1)  # noqa: E731
    denoiser = Denoiser(network, schedule, "x0", -1, 1, torch.zeros(1, 2, 2), learned_variance=True)
    mean, variance = denoiser.mean_and_variance(torch.ones(1, 1, 2, 2), 3, 1)
    step = schedule.transition(3, 1)
    expected = math.exp(0.75 * math.log(step.beta) + 0.25 * math.log(step.beta_tilde))
    assert variance.flatten().tolist() == pytest.approx([expected] * 4)
    torch.testing.assert_close(mean, denoiser.mean(torch.ones(1, 1, 2, 2), 3, 1))
    plain = Denoiser(network, schedule, "x0", -1, 1, torch.zeros(1, 2, 2))
    with pytest.raises(DiffsearchError, match=r"training\.learned_variance: true"):
        plain.mean_and_variance(torch.ones(1, 1, 2, 2), 3, 1)
