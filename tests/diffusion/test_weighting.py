"""min-SNR weights against diffusers' signal-to-noise ratio and the paper's table of equivalents."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from diffsearch.diffusion import Schedule, noise_batch
from diffsearch.diffusion.targets import TARGETS, estimated_x0, min_snr_weight
from diffsearch.space.settings import Choice

GAMMA = 5.0


def test_weights_are_the_papers() -> None:
    batch = noise_batch(
        Schedule.build(Choice("linear-beta"), 1000), torch.zeros(200, 1, 1, 1), torch.Generator().manual_seed(0)
    )
    snr = compute_snr(DDPMScheduler(num_train_timesteps=1000), batch.t - 1)
    capped = snr.clamp(max=GAMMA)
    for predicts, expected in (("x0", capped), ("epsilon", capped / snr), ("v", capped / (snr + 1))):
        torch.testing.assert_close(min_snr_weight(batch, predicts, GAMMA), expected, rtol=1e-3, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("predicts", ["epsilon", "v"])
def test_every_target_is_weighed_as_the_same_error_of_x0(predicts: str) -> None:
    """The weighted error of a target is that of x_0, clipped weight and all, wherever there is signal."""
    schedule = Schedule.build(Choice("linear-noise"), 15)
    batch = noise_batch(schedule, torch.randn(300, 1, 1, 1, dtype=torch.float64), torch.Generator().manual_seed(0))
    output = TARGETS[predicts](batch) + 0.1  # type: ignore[index]
    error = (estimated_x0(output, batch, predicts) - batch.x_0).square().flatten()  # type: ignore[arg-type]
    known = batch.signal.flatten() > 0
    ours = min_snr_weight(batch, predicts, GAMMA) * 0.1**2  # type: ignore[arg-type]
    torch.testing.assert_close(ours[known], (min_snr_weight(batch, "x0", GAMMA) * error)[known])


def test_without_signal_x0_and_v_learn_nothing_and_epsilon_does() -> None:
    batch = noise_batch(Schedule.build(Choice("linear-noise"), 1), torch.zeros(3, 1, 1, 1), torch.Generator())
    weights = [min_snr_weight(batch, predicts, GAMMA).tolist() for predicts in ("x0", "v", "epsilon")]  # type: ignore[arg-type]
    assert weights == [[0.0] * 3, [0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("predicts", ["x0", "epsilon", "v"])
def test_the_estimate_of_x0_undoes_the_target(predicts: str) -> None:
    batch = noise_batch(Schedule.build(Choice("cosine"), 10), torch.randn(50, 1, 2, 2), torch.Generator())
    torch.testing.assert_close(estimated_x0(TARGETS[predicts](batch), batch, predicts), batch.x_0, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type, index]
