"""What is drawn depends on the seed alone, and impossible wishes are refused before anything is drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffsearch.diffusion import Denoiser, Schedule, check_sampling, sample
from diffsearch.errors import DiffsearchError
from diffsearch.registry import sampler
from diffsearch.space.settings import Choice

from .gaussian import SHAPE, exact_denoiser


class Small(nn.Module):
    """A network with dropout, so that its mode shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        return self.dropout(self.conv(x))


def small_denoiser(predicts: str = "x0") -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small()
    schedule = Schedule.build(Choice("linear-noise"), 5)
    return Denoiser(network, schedule, predicts, -1.0, 1.0, torch.zeros(1, 6, 6))  # type: ignore[arg-type]


def images_of(count: int, seed: int = 0, name: str = "ancestral", batch_size: int = 4) -> Tensor:
    batches = list(sample(small_denoiser(), Choice(name), None, (count, 1, 6, 6), seed, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    return torch.cat(batches)


@pytest.mark.parametrize("name", sampler.names())
def test_an_image_depends_on_seed_and_index_and_not_on_how_many(name: str) -> None:
    torch.manual_seed(1)
    ten = images_of(10, name=name)
    torch.manual_seed(2)
    assert ten.shape == (10, 1, 6, 6) and ten.dtype == torch.float32
    assert torch.equal(ten[:7], images_of(7, name=name)) and torch.equal(ten, images_of(10, name=name))
    assert not torch.equal(ten, images_of(10, seed=1, name=name))
    assert not torch.equal(ten[:4], ten[4:8])


def test_the_network_is_in_eval_mode_only_while_it_is_called() -> None:
    denoiser = small_denoiser()
    network = denoiser.network
    assert isinstance(network, Small)
    for _ in sample(denoiser, Choice("ancestral"), None, (8, 1, 6, 6), 0, 4):
        assert network.training and not torch.is_inference_mode_enabled()
    assert network.modes == [(False, True)] * 10


def test_images_that_are_not_finite_are_never_handed_on() -> None:
    denoiser = Denoiser(
        lambda x, t: x * torch.nan, Schedule.build(Choice("cosine"), 3), "mu-tilde", -1.0, 1.0, torch.zeros(1, 2, 2)
    )
    with pytest.raises(DiffsearchError, match="aren't finite"):
        next(sample(denoiser, Choice("ancestral"), None, (2, 1, 2, 2), 0, 2))


@pytest.mark.parametrize("predicts", ["mu-tilde", "x-prev"])
def test_direct_means_are_refused_few_steps_and_ddim(predicts: str) -> None:
    check_sampling(predicts, Choice("ancestral"), None, 15)
    check_sampling(predicts, Choice("ancestral"), 15, 15)
    with pytest.raises(DiffsearchError, match="must be 15"):
        check_sampling(predicts, Choice("ancestral"), 14, 15)
    with pytest.raises(DiffsearchError, match="Use ancestral"):
        check_sampling(predicts, Choice("ddim"), None, 15)
    with pytest.raises(DiffsearchError, match="Use ancestral"):
        next(sample(small_denoiser(predicts), Choice("ddim"), None, (4, 1, 6, 6), 0, 4))


def test_steps_outside_the_process_are_refused() -> None:
    check_sampling("x0", Choice("ddim"), 1, 15)
    for steps in (0, 16):
        with pytest.raises(DiffsearchError, match=r"1\.\.15"):
            check_sampling("x0", Choice("ancestral"), steps, 15)
    with pytest.raises(DiffsearchError, match="Did you mean 'ddim'"):
        check_sampling("x0", Choice("dim"), None, 15)


@pytest.mark.parametrize("name", sampler.names())
def test_every_sampler_has_the_traits_that_the_loader_reads(name: str) -> None:
    assert set(sampler.member(name).traits) == {"few_step", "direct_mean"}


@pytest.mark.parametrize("name", sampler.names())
def test_no_sampler_calls_the_network_more_often_than_it_was_told(name: str) -> None:
    schedule = Schedule.build(Choice("cosine-squared"), 9, "clamp")
    exact = exact_denoiser(schedule, "v")
    for steps in (1, 2, 5, 8, 9):
        calls: list[int] = []

        def counted(x: torch.Tensor, t: torch.Tensor, calls: list[int] = calls) -> torch.Tensor:
            calls.append(len(x))
            return exact.network(x, t)

        list(sample(replace(exact, network=counted), Choice(name), steps, (4, *SHAPE), seed=0, batch_size=2))
        assert 4 * (steps - 1) <= sum(calls) <= 4 * steps
