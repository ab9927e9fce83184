"""What the page draws is what the samplers draw, counted as it was; and classes mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsearch import exported
from diffsearch.data.normalise import Normalization
from diffsearch.demo import drawing
from diffsearch.demo.drawing import EACH, FRAMES, NONE, SHARES, Wish
from diffsearch.demo.networks import Network, Networks
from diffsearch.diffusion import Denoiser, Schedule
from diffsearch.errors import DiffsearchError
from diffsearch.space.settings import Choice, SamplingPoint
from tests.demo.conftest import of_loss

CPU = torch.device("cpu")
CLASSES = ("cat", "dog", "owl")


def network_of(networks: Networks, loss: str = "x0-l2") -> Network:
    return networks.read(of_loss(networks, loss).key, 1, 0)


def by_class(steps: int = 3) -> Network:
    """Sees an image of one grey value, a tenth for each class after the first plus one; nothing where told nothing."""

    def says(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        grey = labels @ torch.tensor([0.1, 0.2, 0.3])
        return grey[:, None, None, None].expand_as(x_t)

    schedule, means = Schedule.build(Choice("cosine"), steps), torch.zeros(3, 1, 4, 4)
    shares = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    denoiser = Denoiser(says, schedule, "x0", -1.0, 1.0, torch.zeros(1, 4, 4), means, shares)
    return Network(denoiser, Normalization(-1.0, 1.0), (1, 4, 4), CLASSES, CPU)


def grey(value: float) -> int:
    return round((value + 1) * 127.5)


@pytest.mark.parametrize(
    ("name", "steps", "calls"),
    [("ancestral", None, 4), ("ddim", 2, 2), ("heun", None, 4)],  # heun: 4 → 3 → 2 → 0, twice in between
)
def test_the_images_are_those_of_sample_and_their_calls_are_counted(
    networks: Networks, name: str, steps: int | None, calls: int
) -> None:
    network, point = network_of(networks), SamplingPoint(Choice(name), steps, 0)
    heard: list[int] = []
    drawn = drawing.watch(network, Wish(point, 5, 6), heard.append)
    expected = exported.draw(network.denoiser, network.normalization, (1, 28, 28), point, 6, 5, CPU)
    assert torch.equal(drawn.images, expected) and drawn.x_t.dtype == torch.uint8
    assert drawn.cost.network_calls == calls and heard == list(range(1, calls + 1)) and drawn.cost.images == 6
    assert drawn.ts[0] == 4 and drawn.ts[-1] == 0 and list(drawn.ts) == sorted(drawn.ts, reverse=True)


def test_a_long_way_is_shown_by_a_few_moments() -> None:
    drawn = drawing.watch(by_class(steps=100), Wish(SamplingPoint(Choice("ddim"), None, 0), 0, 3, EACH))
    assert len(drawn.ts) == FRAMES + 1 and drawn.ts[0] == 100 and drawn.ts[-1] == 0
    gaps = np.diff(drawn.ts[:-1])
    assert gaps.max() - gaps.min() <= 1  # evenly spaced
    assert drawn.x_0 is not None and torch.all(drawn.x_0[:, 1] == grey(0.2)) and drawn.x_t[0].float().std() > 40


def test_a_network_of_means_shows_no_image_behind_the_noise(networks: Networks) -> None:
    drawn = drawing.watch(network_of(networks, "mu-tilde-l2"), Wish(SamplingPoint(Choice("ancestral"), None, 0), 0, 2))
    assert drawn.x_0 is None and drawn.x_t.shape == (5, 2, 1, 28, 28)


def test_between_two_seeds_the_ends_are_their_own_images(networks: Networks) -> None:
    network, point = network_of(networks), SamplingPoint(Choice("ddim"), 3, 0)
    images, cost = drawing.between(network, Wish(point, 2, 2), other_seed=7, frames=5)
    assert images.shape == (2, 5, 1, 28, 28) and cost.images == 10 and cost.network_calls == 3
    for end, seed in ((0, 2), (-1, 7)):
        alone = exported.draw(network.denoiser, network.normalization, (1, 28, 28), point, 2, seed, CPU)
        np.testing.assert_allclose(images[:, end].int(), alone.int(), atol=1)  # another batch size, other rounding


def test_between_two_seeds_needs_an_estimate_of_the_image(networks: Networks) -> None:
    wish = Wish(SamplingPoint(Choice("ddim"), None, 0), 0, 1)
    with pytest.raises(DiffsearchError, match="gives none"):
        drawing.between(network_of(networks, "mu-tilde-l2"), wish, 1, 3)


@pytest.mark.parametrize(
    ("label", "weight", "greys"),
    [
        ("dog", 0.0, [0.2, 0.2, 0.2, 0.2]),
        (EACH, 0.0, [0.1, 0.2, 0.3, 0.1]),
        (NONE, 0.0, [0.0, 0.0, 0.0, 0.0]),
        ("owl", 1.5, [0.75, 0.75, 0.75, 0.75]),  # (1 + w) 0.3 - w 0
    ],
)
def test_a_class_and_its_guidance_reach_the_network(label: str, weight: float, greys: list[float]) -> None:
    point = SamplingPoint(Choice("ddim"), None, 0, weight)
    drawn = drawing.watch(by_class(), Wish(point, 0, 4, label))
    assert drawn.images[:, 0, 0, 0].tolist() == [grey(value) for value in greys]
    assert drawn.cost.network_calls == (6 if weight else 3)
    across, _ = drawing.between(by_class(), Wish(point, 0, 4, label), 1, 3)
    assert across[:, :, 0, 0, 0].tolist() == [[grey(value)] * 3 for value in greys]


def test_where_no_class_is_chosen_they_come_as_they_are_scored() -> None:
    network, point = by_class(), SamplingPoint(Choice("ddim"), None, 0, 0.5)
    drawn = drawing.watch(network, Wish(point, 0, 16, SHARES))
    assert torch.equal(
        drawn.images, exported.draw(network.denoiser, network.normalization, (1, 4, 4), point, 16, 0, CPU)
    )
    assert (drawn.images[:, 0, 0, 0] == grey(0.15)).sum() == 8  # half of all are cats


def test_a_grid_has_a_column_for_each_class() -> None:
    point = SamplingPoint(Choice("ddim"), None, 0)
    assert drawing.columns(CLASSES, Wish(point, 0, 12, EACH)) == 3 and drawing.columns(CLASSES, Wish(point, 0, 12)) == 8
    assert [drawing.columns((), Wish(point, 0, count)) for count in (1, 8, 32, 64)] == [1, 8, 8, 16]


def test_an_unknown_class_is_refused_with_the_nearest() -> None:
    with pytest.raises(DiffsearchError, match=r"known: cat, dog, owl\.   Did you mean 'dog'"):
        drawing.watch(by_class(), Wish(SamplingPoint(Choice("ddim"), None, 0), 0, 1, "dgo"))


def test_images_that_are_not_finite_are_refused() -> None:
    network = by_class()
    broken = Network(
        Denoiser(lambda x, t: x / 0, network.denoiser.schedule, "x0", -1.0, float("inf"), torch.zeros(1, 4, 4)),
        *(network.normalization, (1, 4, 4), (), CPU),
    )
    with pytest.raises(DiffsearchError, match="aren't finite"):
        drawing.watch(broken, Wish(SamplingPoint(Choice("ddim"), None, 0), 0, 1))
