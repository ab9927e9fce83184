"""Every kind of output says the same thing about x_0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffsearch.diffusion import Denoiser, Schedule, noise_batch
from diffsearch.diffusion.targets import TARGETS
from diffsearch.errors import DiffsearchError
from diffsearch.registry import noise_process
from diffsearch.space.settings import Choice

X0_KINDS = ["epsilon", "v", "x0"]


def truthful(
    schedule: Schedule, predicts: str, t: int, low: float = -9.0, high: float = 9.0
) -> tuple[Denoiser, Tensor, Tensor]:
    """A denoiser whose output is the target itself, with x_0 and x_t."""
    generator = torch.Generator().manual_seed(t)
    images = torch.randn((2000, 1, 2, 2), generator=generator, dtype=torch.float64)
    batch = noise_batch(schedule, images, generator)
    here = batch.t == t
    target = TARGETS[predicts](batch)[here]  # type: ignore[index]
    denoiser = Denoiser(lambda x, t: target, schedule, predicts, low, high, images.mean(0))  # type: ignore[arg-type]
    return denoiser, batch.x_0[here], batch.x_t[here]


@pytest.mark.parametrize("name", noise_process.names())
@pytest.mark.parametrize("predicts", X0_KINDS)
def test_the_image_is_recovered_from_every_target(name: str, predicts: str) -> None:
    schedule = Schedule.build(Choice(name), 15)
    for t in range(1, 16):
        denoiser, x_0, x_t = truthful(schedule, predicts, t)
        found, eps = denoiser.x0_and_eps(x_t, t)
        if predicts == "epsilon" and not schedule.has_signal(t):
            x_0 = denoiser.data_mean.expand_as(x_t)
        tolerance = 1e-11 / float(schedule.signal[t]) if predicts == "epsilon" and schedule.has_signal(t) else 1e-11
        torch.testing.assert_close(found, x_0, rtol=0, atol=tolerance)
        rebuilt = schedule.signal[t] * found + schedule.sigma[t] * eps
        torch.testing.assert_close(rebuilt, x_t, rtol=0, atol=1e-11)


@pytest.mark.parametrize("predicts", X0_KINDS)
def test_clipping_reaches_the_noise_too(predicts: str) -> None:
    schedule = Schedule.build(Choice("linear-noise"), 15)
    denoiser, x_0, x_t = truthful(schedule, predicts, 7, low=0.0, high=0.5)
    found, eps = denoiser.x0_and_eps(x_t, 7)
    torch.testing.assert_close(found, x_0.clamp(0.0, 0.5), rtol=0, atol=1e-11)
    torch.testing.assert_close(eps, (x_t - schedule.signal[7] * found) / schedule.sigma[7], rtol=0, atol=1e-11)


@pytest.mark.parametrize("predicts", ["mu-tilde", "x-prev"])
def test_a_direct_mean_is_the_output_and_holds_no_image(predicts: str) -> None:
    schedule = Schedule.build(Choice("linear-noise"), 15)
    denoiser, _, x_t = truthful(schedule, predicts, 15, low=0.0, high=0.5)
    assert torch.equal(denoiser.mean(x_t, 15), denoiser.output(x_t, 15))
    with pytest.raises(DiffsearchError, match="no estimate of x_0"):
        denoiser.x0_and_eps(x_t, 15)
    with pytest.raises(DiffsearchError, match=r"sampling\.steps must be 15"):
        denoiser.mean(x_t, 15, 10)


def test_coefficients_meet_the_images_in_the_images_type() -> None:
    schedule = Schedule.build(Choice("linear-noise"), 15)
    for dtype in (torch.float32, torch.float64):
        network = lambda x, t: torch.zeros_like(x, dtype=torch.bfloat16)  # noqa: E731
        denoiser = Denoiser(network, schedule, "v", -1.0, 1.0, torch.zeros(1, 2, 2))
        assert denoiser.mean(torch.ones((3, 1, 2, 2), dtype=dtype), 5).dtype == dtype


def test_the_network_is_told_the_step_of_every_image() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x

    Denoiser(network, Schedule.build(Choice("cosine"), 9), "x0", -1.0, 1.0, torch.zeros(1, 2, 2)).mean(
        torch.ones((3, 1, 2, 2)), 5
    )
    assert seen[0].tolist() == [5, 5, 5] and seen[0].dtype == torch.int64
