"""On a Gaussian data set, whose exact denoiser is known, samples have the law that a linear recursion says."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from diffsearch.diffusion import Schedule, sample, timesteps
from diffsearch.diffusion.targets import TARGETS
from diffsearch.errors import DiffsearchError
from diffsearch.registry import noise_process, sampler
from diffsearch.space.axes import DIRECT_MEANS
from diffsearch.space.settings import Choice

from .gaussian import MEAN, SHAPE, STD, exact_denoiser, exact_x0

TERMINALS = ("data-mean", "clamp", "skip")
VARIANCES = ("beta-tilde", "beta", "beta-squared", "beta-shifted")
UNBIASED = ("beta-tilde", "beta", "beta-shifted")  # beta-squared is too small at any T
PAIRS = [
    (name, predicts)
    for name in sampler.names()
    for predicts in TARGETS
    if predicts not in DIRECT_MEANS or sampler.member(name).traits["direct_mean"]
]
IMAGES = 1500  # of 16 pixels: 24,000 values; five standard errors are 0.023 of a mean and 0.032 of a variance of 0.49
FIVE_ERRORS_MEAN, FIVE_ERRORS_VARIANCE = 5 / math.sqrt(16 * IMAGES), 5 * math.sqrt(2 / (16 * IMAGES))


def dpm_solver(ab: Any, slope: Any, offset: Any, schedule: Schedule, steps: int | None, x: float) -> float:
    """Lu et al. 2022, algorithm 2, on one pixel and as the paper has it, in steps h of lambda = log(alpha / sigma)."""

    def log_snr(t: int) -> float:
        return math.inf if ab[t] == 1 else -math.inf if ab[t] == 0 else math.log(ab[t] / (1 - ab[t])) / 2

    before = None
    for t, s in pairwise((*timesteps(schedule, steps), 0)):
        x_0, h = slope[t] * x + offset[t], log_snr(s) - log_snr(t)
        share = 0.0 if before is None or math.inf in (h, before[1]) else h / (2 * before[1])  # 1 / (2 r)
        guess = (1 + share) * x_0 - share * (before[0] if before else 0.0)
        x = math.sqrt((1 - ab[s]) / (1 - ab[t])) * x - math.sqrt(ab[s]) * math.expm1(-h) * guess
        before = x_0, h
    return x


def heun(ab: Any, slope: Any, offset: Any, schedule: Schedule, steps: int | None, x: float) -> float:
    """Karras et al. 2022, algorithm 1, on one pixel, in as many steps as the calls allow.

    A step takes two network calls, but one at the last and at one that begins in pure noise.
    """

    def cost(path: tuple[int, ...]) -> int:
        return sum(1 if s == 0 or ab[t] == 0 else 2 for t, s in pairwise((*path, 0)))

    calls = len(timesteps(schedule, steps))
    paths = [timesteps(schedule, count) for count in range(1, calls + 1)]
    for t, s in pairwise((*max((path for path in paths if cost(path) <= calls), key=len), 0)):
        noise = (x - math.sqrt(ab[t]) * (slope[t] * x + offset[t])) / math.sqrt(1 - ab[t])
        euler = math.sqrt(ab[s]) * (slope[t] * x + offset[t]) + math.sqrt(1 - ab[s]) * noise
        if s > 0 and ab[t] > 0:
            there = (euler - math.sqrt(ab[s]) * (slope[s] * euler + offset[s])) / math.sqrt(1 - ab[s])
            far, near = (math.sqrt((1 - ab[i]) / ab[i]) for i in (t, s))
            euler = math.sqrt(ab[s]) * (x / math.sqrt(ab[t]) + (near - far) * (noise + there) / 2)
        x = euler
    return x


FLOWS = {"dpm-solver++": dpm_solver, "heun": heun}


def law(schedule: Schedule, choice: Choice, steps: int | None, std: float = STD) -> tuple[float, float]:
    """Exact mean and variance of one pixel of the samples: each step is x_s = a x_t + b + noise."""
    slope, offset = (table.tolist() for table in exact_x0(schedule, std))
    ab = schedule.alpha_bar.tolist()
    if choice.name in FLOWS:
        at_zero, at_one = (FLOWS[choice.name](ab, slope, offset, schedule, steps, x) for x in (0.0, 1.0))
        return at_zero, (at_one - at_zero) ** 2
    path = (*timesteps(schedule, steps), 0)
    mean, variance = 0.0, 1.0
    for k, (t, s) in enumerate(pairwise(path)):
        beta = 1 - ab[t] / ab[s]
        beta_tilde = beta * (1 - ab[s]) / (1 - ab[t])
        if choice.name == "ddim":
            noise = choice.kwargs.get("eta", 0.0) ** 2 * beta_tilde
            on_eps = math.sqrt(1 - ab[s] - noise) / math.sqrt(1 - ab[t])
            on_x0, on_xt = math.sqrt(ab[s]) - on_eps * math.sqrt(ab[t]), on_eps
        else:
            on_x0 = math.sqrt(ab[s]) * beta / (1 - ab[t])
            on_xt = math.sqrt(1 - beta) * (1 - ab[s]) / (1 - ab[t])
            after = 1 - ab[s] / ab[path[k + 2]] if s > 0 else 0.0
            noises = {"beta-tilde": beta_tilde, "beta": beta, "beta-squared": beta**2, "beta-shifted": after}
            noise = noises[choice.kwargs.get("variance", "beta-tilde")] if s > 0 else 0.0
        a, b = on_x0 * slope[t] + on_xt, on_x0 * offset[t]
        mean, variance = a * mean + b, a**2 * variance + noise
    return mean, variance


def draw(schedule: Schedule, predicts: str, choice: Choice, steps: int | None, std: float = STD) -> torch.Tensor:
    denoiser = exact_denoiser(schedule, predicts, std)  # type: ignore[arg-type]
    return torch.cat(list(sample(denoiser, choice, steps, (IMAGES, *SHAPE), seed=3, batch_size=IMAGES)))


def agrees(images: torch.Tensor, mean: float, variance: float) -> bool:
    """Both moments within five standard errors of the law."""
    near_mean = abs(float(images.mean()) - mean) < FIVE_ERRORS_MEAN * math.sqrt(variance) + 1e-12
    return near_mean and abs(float(images.var()) - variance) < FIVE_ERRORS_VARIANCE * variance + 1e-12


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize(("name", "predicts"), PAIRS)
@pytest.mark.parametrize("process", noise_process.names())
def test_every_sampler_draws_the_law_of_its_recursion(process: str, name: str, predicts: str, terminal: str) -> None:
    schedule = Schedule.build(Choice(process), 15, terminal)  # type: ignore[arg-type]
    images = draw(schedule, predicts, Choice(name), None)
    assert images.isfinite().all()
    assert agrees(images, *law(schedule, Choice(name), None))


@pytest.mark.parametrize("options", [{"variance": v} for v in VARIANCES] + [{"eta": 0.5}, {"eta": 1.0}])
@pytest.mark.parametrize("steps", [None, 6, 1])
def test_every_option_and_subsequence_draws_the_law_of_its_recursion(
    options: dict[str, Any], steps: int | None
) -> None:
    choice = Choice.of("ddim" if "eta" in options else "ancestral", **options)
    schedule = Schedule.build(Choice("linear-noise"), 15)
    assert agrees(draw(schedule, "v", choice, steps), *law(schedule, choice, steps))


@pytest.mark.parametrize("process", [name for name in noise_process.names() if name != "signal-rate"])
@pytest.mark.parametrize(
    "choice", [Choice("ddim"), Choice.of("ddim", eta=1.0), *(Choice.of("ancestral", variance=v) for v in UNBIASED)]
)
def test_many_steps_reproduce_the_data(process: str, choice: Choice) -> None:
    """At T = 1000 mean and variance are the data's: the error left is O(1/T), some 1 %, and from β at the end.

    The recursion is exact, and the test above ties the samplers to it. Not so for signal-rate, whose last step jumps
    from 10 % of noise to none.
    """
    mean, variance = law(Schedule.build(Choice(process), 1000), choice, None)
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert variance == pytest.approx(STD**2, rel=0.04)


@pytest.mark.parametrize(("name", "predicts"), PAIRS)
def test_many_steps_reproduce_the_data_in_samples(name: str, predicts: str) -> None:
    images = draw(Schedule.build(Choice("linear-noise"), 200), predicts, Choice(name), None)
    assert float(images.mean()) == pytest.approx(MEAN, abs=FIVE_ERRORS_MEAN)
    assert float(images.var()) == pytest.approx(STD**2, rel=FIVE_ERRORS_VARIANCE + 0.03)


@pytest.mark.parametrize("process", noise_process.names())
def test_beta_is_exact_at_each_step_for_data_of_unit_variance(process: str) -> None:
    """Then x_{t-1} given x_t has variance β_t exactly; only the last step, which adds none, falls short by β_1."""
    schedule = Schedule.build(Choice(process), 15)
    _, variance = law(schedule, Choice.of("ancestral", variance="beta"), None, std=1.0)
    assert variance == pytest.approx(1 - float(schedule.beta[1]), abs=1e-12)


def test_a_single_image_is_drawn_exactly_by_beta_tilde_and_ddim() -> None:
    """Data of one point: x̂_0 is that point at every step, whatever the steps."""
    schedule = Schedule.build(Choice("linear-noise"), 15)
    for choice in (Choice("ancestral"), Choice("ddim")):
        for predicts in ("x0", "v", "epsilon"):
            images = draw(schedule, predicts, choice, 5, std=0.0)
            torch.testing.assert_close(images, torch.full_like(images, MEAN), rtol=0, atol=1e-10)


def test_report_000s_variance_shrinks_the_samples() -> None:
    """With σ = 1 - α the standard deviation falls far below the data's, and β̃ doesn't."""
    schedule = Schedule.build(Choice("cosine"), 500)
    assert law(schedule, Choice.of("ancestral", variance="beta-squared"), None)[1] ** 0.5 < 0.2 * STD
    assert law(schedule, Choice.of("ancestral"), None)[1] ** 0.5 > 0.95 * STD


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize(("name", "predicts"), PAIRS)
@pytest.mark.parametrize("process", noise_process.names())
def test_one_and_two_steps_are_finite_whatever_the_rule(process: str, name: str, predicts: str, terminal: str) -> None:
    for steps in (1, 2):
        if steps == 1 and terminal == "skip" and noise_process.build(process, 1)[-1] < 1e-12:
            continue
        schedule = Schedule.build(Choice(process), steps, terminal)  # type: ignore[arg-type]
        images = draw(schedule, predicts, Choice(name), None)
        assert images.isfinite().all() and agrees(images, *law(schedule, Choice(name), None))


def test_one_step_from_epsilon_is_the_mean_image() -> None:
    images = draw(Schedule.build(Choice("linear-noise"), 1), "epsilon", Choice("ancestral"), None)
    assert torch.equal(images, torch.full_like(images, MEAN))


def test_what_a_sampler_cannot_do_is_refused_when_called_so_anyway() -> None:
    schedule = Schedule.build(Choice("linear-noise"), 15)
    generator, noise = torch.Generator(), torch.zeros((2, *SHAPE), dtype=torch.float64)
    for predicts in ("mu-tilde", "x-prev"):
        denoiser = exact_denoiser(schedule, predicts)  # type: ignore[arg-type]
        with pytest.raises(DiffsearchError, match="no estimate of x_0"):
            sampler.build("ddim", denoiser, noise, None, generator)
        for steps in (1, 8, 14):
            with pytest.raises(DiffsearchError, match=r"sampling\.steps must be 15"):
                sampler.build("ancestral", denoiser, noise, steps, generator)
    denoiser = exact_denoiser(schedule, "v")
    with pytest.raises(DiffsearchError, match="Did you mean 'beta'"):
        sampler.build("ancestral", denoiser, noise, None, generator, variance="bta")
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(DiffsearchError, match="eta must lie"):
            sampler.build("ddim", denoiser, noise, None, generator, eta=eta)
