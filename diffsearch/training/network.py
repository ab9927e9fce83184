"""A run's network as its settings ask for it, and as samplers see it once it is trained."""

from __future__ import annotations

import functools

import torch
from torch import nn

from diffsearch import registry
from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser, Schedule
from diffsearch.diffusion.sampling import sample
from diffsearch.diffusion.targets import Predicts
from diffsearch.space.settings import RunSettings, SamplingPoint
from diffsearch.training.precision import Autocast
from diffsearch.training.prior import Prior


def build_network(settings: RunSettings, image_shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
    """The run's network, with weights from torch's global generator.

    Args:
        classes: K of the data set, 0 where it has none; only a conditional run's network is told.
    """
    given: dict[str, int] = {}
    if settings.training.conditioning == "class":
        given["classes"] = classes
    if settings.training.learned_variance:
        given["outputs"] = 2 * image_shape[0]
    options = {**given, **settings.model.kwargs}
    network: nn.Module = registry.model.build(settings.model.name, image_shape, settings.steps, **options)
    return network


def build_schedule(settings: RunSettings) -> Schedule:
    """The run's noise schedule, with its terminal rule."""
    return Schedule.build(settings.noise_process, settings.steps, settings.terminal, settings.time)


def predicted(settings: RunSettings) -> Predicts:
    """What the run's network says."""
    found: Predicts = registry.loss.member(settings.training.loss).traits["predicts"]
    return found


@functools.lru_cache(maxsize=4096)
def calls_of(settings: RunSettings, point: SamplingPoint) -> int:
    """Network calls of one sample: counted by sampling from a network that says nothing, one pixel wide."""
    training, counted = settings.training, [0]

    def nothing(x_t: torch.Tensor, t: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        counted[0] += 1
        return torch.cat([x_t, x_t], dim=1) if training.learned_variance else x_t

    told = Denoiser(
        network=nothing,
        schedule=build_schedule(settings),
        predicts=predicted(settings),
        low=-1.0,
        high=1.0,
        data_mean=torch.zeros(1, 1, 1),
        class_means=torch.zeros(1, 1, 1, 1) if training.conditioning == "class" else None,
        class_shares=torch.ones(1, dtype=torch.float64),
        blind_at_end=training.min_snr_gamma is not None,
        learned_variance=training.learned_variance,
    )
    for _ in sample(told, point.sampler, point.steps, (1, 1, 1, 1), 0, 1, guidance=point.guidance):
        continue
    return counted[0]


def denoiser(
    settings: RunSettings, network: nn.Module, normalization: Normalization, prior: Prior, device: torch.device
) -> Denoiser:
    """A trained network as samplers see it, called in the precision that it was trained in."""
    training = settings.training
    return Denoiser(
        network=Autocast(network, training.precision).eval(),
        schedule=build_schedule(settings),
        predicts=predicted(settings),
        low=normalization.low,
        high=normalization.high,
        data_mean=prior.mean.to(device),
        class_means=None if prior.class_means is None else prior.class_means.to(device),
        class_shares=prior.class_shares,
        blind_at_end=training.min_snr_gamma is not None,
        learned_variance=training.learned_variance,
    )
