"""Labels and guidance, on two classes that are Gaussians of known means: every exact answer is a closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsearch.diffusion import Denoiser, Schedule, sample
from diffsearch.diffusion.guidance import Guided, balanced, hidden, one_hot
from diffsearch.errors import DiffsearchError
from diffsearch.space.settings import Choice

MEANS, SHARES, STD = (-1.0, 2.0), (0.75, 0.25), 0.5
SHAPE = (1, 2, 2)


def conditional(schedule: Schedule, predicts: str = "v") -> Denoiser:
    """The exact denoiser of pixels that are N(mean of the class, STD²); without a label, of their mixture.

    Each image is constant, so that the mixture's posterior is that of one number seen at several pixels.
    """
    alpha_bar = schedule.alpha_bar

    def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        a = float(alpha_bar[int(t[0])])
        slope = math.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)
        means = torch.tensor(MEANS, dtype=x_t.dtype)
        of_class = means[:, None, None, None, None] + slope * (
            x_t[None] - math.sqrt(a) * means[:, None, None, None, None]
        )
        spread = a * STD**2 + 1 - a
        logits = torch.stack(
            [
                math.log(p) - (x_t - math.sqrt(a) * m).square().flatten(1).sum(1) / (2 * spread)
                for p, m in zip(SHARES, MEANS, strict=True)
            ]
        )
        told = labels.sum(1) > 0
        weights = torch.where(told, labels.T.to(x_t), logits.softmax(0))
        x_0 = (weights[:, :, None, None, None] * of_class).sum(0)
        eps = (x_t - math.sqrt(a) * x_0) / math.sqrt(1 - a)
        return {"x0": x_0, "epsilon": eps, "v": math.sqrt(a) * eps - math.sqrt(1 - a) * x_0}[predicts]

    means = torch.tensor(MEANS, dtype=torch.float64)[:, None, None, None].expand(2, *SHAPE)
    shares = torch.tensor(SHARES, dtype=torch.float64)
    mean = torch.full(SHAPE, float(shares @ torch.tensor(MEANS, dtype=torch.float64)), dtype=torch.float64)
    return Denoiser(network, schedule, predicts, -math.inf, math.inf, mean, means, shares)  # type: ignore[arg-type]


def drawn(predicts: str = "v", count: int = 4000, **asked: Any) -> Tensor:
    denoiser = conditional(Schedule.build(Choice("linear-noise"), 60), predicts)
    return torch.cat(list(sample(denoiser, Choice("ddim"), None, (count, *SHAPE), 0, 1000, **asked)))


def test_each_sample_is_of_the_class_it_was_told() -> None:
    rows = one_hot(torch.arange(4000) % 2, 2)
    images = drawn(labels=rows)
    for which, mean in enumerate(MEANS):
        of_class = images[which::2]
        assert float(of_class.mean()) == pytest.approx(mean, abs=0.03)
        assert float(of_class.std()) == pytest.approx(STD, rel=0.05)


def test_without_labels_classes_come_by_their_share_of_the_training_images() -> None:
    nearer = (drawn().mean((1, 2, 3)) > 0.5).double().mean()
    assert float(nearer) == pytest.approx(SHARES[1], abs=0.01)


def test_a_weight_of_minus_one_is_the_unconditional_network() -> None:
    untold = drawn(guidance=-1.0, labels=one_hot(torch.zeros(4000, dtype=torch.int64), 2))
    assert float((untold.mean((1, 2, 3)) > 0.5).double().mean()) == pytest.approx(SHARES[1], abs=0.05)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_guidance_is_the_same_for_every_target(weight: float) -> None:
    """It is defined on epsilon, and all targets are affine in it; at alpha_bar_T = 0 each takes the guided mean."""
    told = one_hot(torch.ones(20, dtype=torch.int64), 2)
    v, x0, epsilon = (drawn(predicts, 20, guidance=weight, labels=told) for predicts in ("v", "x0", "epsilon"))
    torch.testing.assert_close(x0, v, rtol=1e-9, atol=1e-9)
    if weight == 0:  # else the first step differs: there the exact networks are guided, and epsilon takes the means
        torch.testing.assert_close(epsilon, v, rtol=1e-9, atol=1e-9)
    assert epsilon.isfinite().all()


def test_guidance_extrapolates_the_networks_output_and_leaves_a_variance_alone() -> None:
    calls: list[Tensor] = []

    def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        calls.append(labels)
        return torch.cat(
            [x_t * 0 + 1 + labels.sum(1)[:, None, None, None], x_t * 0 + labels.sum(1)[:, None, None, None]], 1
        )

    x_t, rows = torch.zeros(3, 1, 2, 2), one_hot(torch.tensor([0, 1, 1]), 2)
    output = Guided(network, rows, 3.0)(x_t, torch.ones(3))
    assert torch.equal(output[:, :1], torch.full((3, 1, 2, 2), 4 * 2.0 - 3 * 1.0)) and torch.equal(
        output[:, 1:], torch.ones(3, 1, 2, 2)
    )
    assert [bool(row.any()) for row in calls] == [True, False]
    for weight, expected in ((0.0, 2.0), (-1.0, 1.0)):
        calls.clear()
        assert torch.equal(Guided(network, rows, weight)(x_t, torch.ones(3))[:, :1], torch.full((3, 1, 2, 2), expected))
        assert len(calls) == 1


def test_the_mean_at_no_signal_is_that_of_the_label() -> None:
    denoiser = conditional(Schedule.build(Choice("linear-noise"), 5), "epsilon")
    rows = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]])
    x_t = torch.randn(3, *SHAPE, dtype=torch.float64)
    mean = SHARES[0] * MEANS[0] + SHARES[1] * MEANS[1]
    x_0, _ = denoiser.given(rows).x0_and_eps(x_t, 5)
    assert x_0[:, 0, 0, 0].tolist() == pytest.approx([MEANS[0], 0.25 * MEANS[0] + 0.75 * MEANS[1], mean])
    guided, _ = denoiser.given(rows, 2.0).x0_and_eps(x_t, 5)
    assert guided[0, 0, 0, 0] == pytest.approx(3 * MEANS[0] - 2 * mean)


@pytest.mark.parametrize("count", [10, 137, 1000])
def test_labels_are_balanced_at_any_count_and_do_not_depend_on_it(count: int) -> None:
    shares = torch.tensor([0.1] * 8 + [0.2, 0.0], dtype=torch.float64)
    rows = balanced(0, count, shares)
    assert torch.all((rows.sum(0).double() - count * shares).abs() <= 2.5)
    assert torch.equal(rows[5:9], balanced(5, 4, shares)) and torch.equal(rows.sum(1), torch.ones(count))


def test_a_share_of_the_labels_is_hidden() -> None:
    rows = one_hot(torch.zeros(20_000, dtype=torch.int64), 3)
    said = hidden(rows, 0.1, torch.Generator().manual_seed(0)).sum(1)
    assert set(said.tolist()) == {0.0, 1.0} and float(said.mean()) == pytest.approx(0.9, abs=0.01)
    assert torch.equal(hidden(rows, 0.0, torch.Generator()), rows)


def test_what_does_not_fit_the_network_is_refused() -> None:
    denoiser = conditional(Schedule.build(Choice("linear-noise"), 5))
    with pytest.raises(DiffsearchError, match="rows of 2 class shares"):
        denoiser.given(torch.ones(3, 4))
    with pytest.raises(DiffsearchError, match="at least -1"):
        denoiser.given(torch.ones(3, 2), -2.0)
    told = denoiser.given(torch.eye(2))
    with pytest.raises(DiffsearchError, match="is unconditional"):
        next(sample(told, Choice("ddim"), None, (2, *SHAPE), 0, 2, guidance=1.0))
