"""What lies on the way to an image is what the sampler held; what lies between two latents is what a circle says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp
from torch import Tensor

from diffsearch.diffusion import Denoiser, Schedule, sample
from diffsearch.diffusion.journeys import (
    between_classes,
    class_rows,
    interpolation,
    lerp,
    reconstruction,
    slerp,
    trajectory,
)
from diffsearch.diffusion.sampling import starting_noise
from diffsearch.diffusion.targets import TARGETS
from diffsearch.errors import DiffsearchError
from diffsearch.registry import sampler
from diffsearch.space.axes import DIRECT_MEANS
from diffsearch.space.settings import Choice

from .gaussian import MEAN, SHAPE, STD, exact_denoiser, exact_x0
from .test_sampling import small_denoiser

PAIRS = [
    (name, predicts)
    for name in sampler.names()
    for predicts in TARGETS
    if predicts not in DIRECT_MEANS or sampler.member(name).traits["direct_mean"]
]


# --- trajectories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "predicts"), PAIRS)
@pytest.mark.parametrize("terminal", ["data-mean", "clamp", "skip"])
def test_a_trajectory_goes_from_the_latent_to_the_sample(name: str, predicts: str, terminal: str) -> None:
    schedule = Schedule.build(Choice("linear-noise"), 9, terminal)  # type: ignore[arg-type]
    denoiser = exact_denoiser(schedule, predicts)  # type: ignore[arg-type]
    found = trajectory(denoiser, Choice(name), None, (3, *SHAPE), seed=4)
    noise, _ = starting_noise(denoiser, (3, *SHAPE), 4)
    (images,) = sample(denoiser, Choice(name), None, (3, *SHAPE), 4, batch_size=3)
    assert torch.equal(found.x_t[0], noise) and torch.equal(found.images, images)
    assert found.ts[0] == schedule.first_step and found.ts[-1] == 0 and found.x_t.shape == (len(found.ts), 3, *SHAPE)
    assert list(found.ts) == sorted(set(found.ts), reverse=True)
    if predicts in DIRECT_MEANS:
        assert found.x_0 is None
        return
    slope, offset = exact_x0(schedule)
    assert found.x_0 is not None
    for t, x_t, x_0 in zip(found.ts, found.x_t, found.x_0, strict=True):
        torch.testing.assert_close(x_0, slope[t] * x_t + offset[t] if t else images, rtol=0, atol=1e-6)


def test_a_trajectory_knows_its_steps_in_continuous_time() -> None:
    schedule = Schedule.build(Choice("cosine-squared"), 15, time="continuous")
    denoiser = Denoiser(lambda x, t: (x * t[0] / 15).tanh(), schedule, "x0", -1.0, 1.0, torch.zeros(SHAPE))
    found = trajectory(denoiser, Choice("ddim"), None, (2, *SHAPE), 0)
    assert found.ts == tuple(range(15, -1, -1)) and found.x_0 is not None
    for t, x_t, x_0 in zip(found.ts[:-1], found.x_t, found.x_0, strict=False):
        torch.testing.assert_close(x_0, (x_t * float(schedule.sigma[t])).tanh(), rtol=0, atol=1e-6)


def test_a_trajectory_keeps_the_steps_that_are_asked_for_and_its_ends() -> None:
    denoiser = exact_denoiser(Schedule.build(Choice("cosine"), 20), "v")
    whole = trajectory(denoiser, Choice("ancestral"), None, (2, *SHAPE), 0)
    some = trajectory(denoiser, Choice("ancestral"), None, (2, *SHAPE), 0, shown=(15, 5))
    assert whole.ts == tuple(range(20, -1, -1)) and some.ts == (20, 15, 5, 0)
    assert torch.equal(some.x_t, whole.x_t[[0, 5, 15, 20]])
    assert whole.x_0 is not None and some.x_0 is not None and torch.equal(some.x_0, whole.x_0[[0, 5, 15, 20]])
    assert whole.thinned(5).ts == (20, 15, 10, 5, 0) and whole.thinned(99).ts == whole.ts


def test_a_trajectory_is_drawn_in_eval_mode_as_samples_are() -> None:
    denoiser = small_denoiser()
    denoiser.network.train()  # type: ignore[attr-defined]
    found = trajectory(denoiser, Choice("heun"), 4, (4, 1, 6, 6), 0)
    (images,) = sample(denoiser, Choice("heun"), 4, (4, 1, 6, 6), 0, batch_size=4)
    assert torch.equal(found.images, images) and denoiser.network.training  # type: ignore[attr-defined]


def test_a_trajectory_is_refused_as_a_sample_is() -> None:
    denoiser = exact_denoiser(Schedule.build(Choice("cosine"), 9), "mu-tilde")
    with pytest.raises(DiffsearchError, match="needs an estimate of x_0"):
        trajectory(denoiser, Choice("ddim"), None, (2, *SHAPE), 0)


# --- between two latents --------------------------------------------------------------------------------------------


def latent(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dim", [2, 3, 7, 784])
@pytest.mark.parametrize("apart", ["random", "nearly the same"])
def test_slerp_of_unit_vectors_is_scipys(dim: int, apart: str) -> None:
    start = latent(dim, dim)
    end = latent(dim + 1, dim) if apart == "random" else start + 1e-3 * latent(dim + 1, dim)
    start, end = start / start.norm(), end / end.norm()
    shares = torch.linspace(0, 1, 9, dtype=torch.float64)
    theirs = geometric_slerp(start.numpy(), end.numpy(), shares.numpy())
    np.testing.assert_allclose(slerp(start, end, shares).numpy(), theirs, atol=1e-12)


def test_slerp_between_right_angles_is_a_circle() -> None:
    x, y = 3 * torch.eye(2, dtype=torch.float64)
    shares = torch.linspace(0, 1, 7, dtype=torch.float64)
    circle = torch.stack([torch.cos(shares * math.pi / 2), torch.sin(shares * math.pi / 2)], dim=1)
    torch.testing.assert_close(slerp(x, y, shares), 3 * circle, rtol=0, atol=1e-15)


def test_slerp_keeps_the_norm_that_lerp_loses() -> None:
    start, end = latent(0, 3, 32, 32), latent(1, 3, 32, 32)
    end = end * start.norm() / end.norm()
    half = torch.tensor([0.5], dtype=torch.float64)
    assert slerp(start, end, half).norm() == pytest.approx(float(start.norm()), rel=1e-12)
    cosine = float((start * end).sum() / start.norm() ** 2)
    assert lerp(start, end, half).norm() / start.norm() == pytest.approx(math.sqrt((1 + cosine) / 2), rel=1e-12)
    assert abs(cosine) < 0.1  # so that the loss is about 1 - 1/sqrt 2


@pytest.mark.parametrize("along", [slerp, lerp])
def test_ends_are_the_latents_themselves(along) -> None:
    start, end = latent(0, 1, 5, 5).float(), latent(1, 1, 5, 5).float()
    found = along(start, end, torch.tensor([0.0, 1.0]))
    assert found.dtype == torch.float32 and torch.equal(found[0], start) and torch.equal(found[1], end)


def test_slerp_of_what_is_the_same_and_of_opposites() -> None:
    start = latent(0, 1, 4, 4)
    torch.testing.assert_close(slerp(start, start.clone(), torch.tensor([0.0, 0.3, 1.0])), start.expand(3, 1, 4, 4))
    with pytest.raises(DiffsearchError, match="opposite"):
        slerp(start, -start, torch.tensor([0.5]))


@pytest.mark.parametrize("along", [slerp, lerp])
@pytest.mark.parametrize("steps", [None, 3])
def test_an_interpolation_begins_and_ends_with_plain_samples(along, steps: int | None) -> None:
    denoiser = small_denoiser()
    noise, _ = starting_noise(denoiser, (6, 1, 6, 6), seed=2)
    (images,) = sample(denoiser, Choice("ddim"), steps, (6, 1, 6, 6), 2, batch_size=6)
    found = interpolation(denoiser, noise[0], noise[-1], 6, steps, along)
    assert torch.equal(found[0], images[0]) and torch.equal(found[-1], images[-1])
    assert not torch.equal(found[2], images[2])


def test_an_interpolation_on_a_gaussian_is_the_affine_map_of_its_latents() -> None:
    """DDIM on the exact denoiser is x_0 = a x_T + b, so the images of a straight line are a straight line."""
    denoiser = exact_denoiser(Schedule.build(Choice("linear-beta"), 12), "epsilon")
    start, end = latent(0, *SHAPE), latent(1, *SHAPE)
    straight = interpolation(denoiser, start, end, 5, along=lerp)
    torch.testing.assert_close(straight[2], (straight[0] + straight[-1]) / 2, rtol=0, atol=1e-12)
    arc = interpolation(denoiser, start, end, 5)
    assert (arc[2] - straight[2]).abs().max() > 0.01


def test_an_interpolation_needs_an_estimate_of_the_image() -> None:
    denoiser = exact_denoiser(Schedule.build(Choice("cosine"), 9), "x-prev")
    with pytest.raises(DiffsearchError, match="needs an estimate of x_0"):
        interpolation(denoiser, latent(0, *SHAPE), latent(1, *SHAPE), 4)


# --- labels ---------------------------------------------------------------------------------------------------------


def three_points() -> Denoiser:
    """Each class is one image, all of 1, 2 or 4; without a label the network sees a black one."""

    def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        assert labels.shape == (len(x_t), 3) and labels.dtype == torch.float32
        means = labels.double() @ torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
        return means[:, None, None, None].expand_as(x_t)

    plain = exact_denoiser(Schedule.build(Choice("linear-noise"), 6), "x0")
    return replace(plain, network=network, class_means=torch.zeros(3, *SHAPE, dtype=torch.float64))


def test_between_two_classes_labels_go_over_evenly() -> None:
    found = between_classes(three_points(), latent(0, *SHAPE), first=0, last=2, count=4)
    assert found.shape == (4, *SHAPE)
    for image, mean in zip(found, (1.0, 2.0, 3.0, 4.0), strict=True):
        torch.testing.assert_close(image, torch.full(SHAPE, mean, dtype=torch.float64), rtol=0, atol=1e-6)
    guided = between_classes(three_points(), latent(0, *SHAPE), first=1, last=2, count=2, weight=0.5)
    torch.testing.assert_close(guided.mean((1, 2, 3)), torch.tensor([3.0, 6.0], dtype=torch.float64))


@pytest.mark.parametrize("name", sampler.names())
def test_a_row_of_a_class_is_what_its_labels_give_with_the_noise_of_every_row(name: str) -> None:
    """On the exact Gaussian denoiser shifted by class, two rows differ by the classes' shift and by no noise."""
    plain = exact_denoiser(Schedule.build(Choice("linear-beta"), 8), "x0")

    def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return plain.network(x_t, t) + 100 * labels[:, 1, None, None, None]

    denoiser = replace(plain, network=network, class_means=torch.zeros(2, *SHAPE, dtype=torch.float64))
    rows = class_rows(denoiser, Choice(name), None, (5, *SHAPE), 3, (0, 1, 0))
    (expected,) = sample(plain, Choice(name), None, (5, *SHAPE), 3, batch_size=5)
    assert torch.equal(rows[0], expected) and torch.equal(rows[0], rows[2])
    shift = rows[1] - rows[0]
    torch.testing.assert_close(shift, shift.mean().expand_as(shift), rtol=1e-5, atol=0)
    assert shift.mean() > 50


def test_a_network_without_labels_draws_no_class() -> None:
    denoiser = exact_denoiser(Schedule.build(Choice("cosine"), 4), "x0")
    with pytest.raises(DiffsearchError, match="without labels"):
        class_rows(denoiser, Choice("ddim"), None, (2, *SHAPE), 0, (0,))
    with pytest.raises(DiffsearchError, match="without labels"):
        between_classes(denoiser, latent(0, *SHAPE), 0, 1, 3)


# --- into noise and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sampler.names())
@pytest.mark.parametrize("predicts", ["x0", "v", "epsilon"])
@pytest.mark.parametrize("t", [1, 4, 9])
def test_where_the_data_is_one_image_it_comes_back_from_any_noise(name: str, predicts: str, t: int) -> None:
    denoiser = exact_denoiser(Schedule.build(Choice("linear-beta"), 10), predicts, std=0.0)  # type: ignore[arg-type]
    x_0 = latent(0, 3, *SHAPE)
    found = reconstruction(denoiser, x_0, t, seed=1, point_sampler=Choice(name))
    torch.testing.assert_close(found.images, torch.full_like(x_0, MEAN), rtol=0, atol=1e-6)
    rms = np.sqrt(np.mean((x_0.numpy() - MEAN) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(found.error, rms, atol=1e-6)


def test_ddim_from_part_of_the_way_is_the_linear_recursion() -> None:
    """Song et al. 2020, eq. 12 at eta = 0, one pixel at a time, on the denoiser that is exact for N(MEAN, STD²)."""
    schedule = Schedule.build(Choice("cosine"), 12)
    x_0 = MEAN + STD * latent(0, 4, *SHAPE)
    found = reconstruction(exact_denoiser(schedule, "v"), x_0, 7, seed=2)
    assert found.t == 7
    slope, offset = (table.numpy() for table in exact_x0(schedule))
    ab, x = schedule.alpha_bar.numpy(), found.noised.numpy()
    for t in range(7, 0, -1):
        seen = slope[t] * x + offset[t]
        noise = (x - math.sqrt(ab[t]) * seen) / math.sqrt(1 - ab[t])
        x = math.sqrt(ab[t - 1]) * seen + math.sqrt(1 - ab[t - 1]) * noise
    np.testing.assert_allclose(found.images.numpy(), x, atol=1e-12)


def test_one_step_back_is_off_by_the_posteriors_spread() -> None:
    """From t = 1, E[x_0 | x_1] misses x_0 by var = s² (1 - ᾱ) / (ᾱ s² + 1 - ᾱ): five standard errors of 32,000."""
    schedule = Schedule.build(Choice("linear-alpha-bar"), 20)
    x_0 = MEAN + STD * latent(0, 2000, *SHAPE)
    found = reconstruction(exact_denoiser(schedule, "epsilon"), x_0, 1, seed=0)
    ab = float(schedule.alpha_bar[1])
    variance = STD**2 * (1 - ab) / (ab * STD**2 + 1 - ab)
    assert float(found.error.square().mean()) == pytest.approx(variance, rel=5 * math.sqrt(2 / 32_000))
    far = reconstruction(exact_denoiser(schedule, "epsilon"), x_0, 15, seed=0)
    assert far.error.mean() > 3 * found.error.mean()


def test_one_seed_noises_alike_at_every_step() -> None:
    schedule = Schedule.build(Choice("linear-noise"), 10)
    denoiser, x_0 = exact_denoiser(schedule, "x0"), latent(0, 2, *SHAPE)
    noise, _ = starting_noise(denoiser, x_0.shape, 5)
    for t in (2, 9, 10):
        expected = schedule.signal[t] * x_0 + schedule.sigma[t] * noise
        torch.testing.assert_close(reconstruction(denoiser, x_0, t, 5).noised, expected, rtol=0, atol=1e-12)


def test_a_direct_mean_comes_back_step_by_step_and_no_other_way() -> None:
    denoiser = exact_denoiser(Schedule.build(Choice("linear-beta"), 6), "mu-tilde", std=0.0)
    x_0 = latent(0, 2, *SHAPE)
    found = reconstruction(denoiser, x_0, 4, 0, Choice("ancestral"))
    torch.testing.assert_close(found.images, torch.full_like(x_0, MEAN), rtol=0, atol=1e-6)
    with pytest.raises(DiffsearchError, match="needs an estimate of x_0"):
        reconstruction(denoiser, x_0, 4, 0)


@pytest.mark.parametrize(("terminal", "t"), [("data-mean", 0), ("data-mean", 7), ("skip", 6)])
def test_only_steps_that_were_trained_can_be_come_back_from(terminal: str, t: int) -> None:
    denoiser = exact_denoiser(Schedule.build(Choice("linear-noise"), 6, terminal), "x0")  # type: ignore[arg-type]
    with pytest.raises(DiffsearchError, match=r"choose 1\.\."):
        reconstruction(denoiser, latent(0, 2, *SHAPE), t, 0)


def test_a_part_of_the_way_is_told_as_the_whole_was_in_continuous_time() -> None:
    told: list[float] = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        told.append(float(t[0]))
        return x_t

    schedule = Schedule.build(Choice("linear-noise"), 8, time="continuous")
    denoiser = Denoiser(network, schedule, "x0", -1, 1, torch.zeros(SHAPE))
    reconstruction(denoiser, torch.zeros(1, *SHAPE), 3, 0)
    assert told == pytest.approx([schedule.told(t) for t in (3, 2, 1)])
