"""One view on every trained network: what image does it see behind x_t, and what is the mean of the step before?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffsearch.diffusion import schedule as schedules
from diffsearch.diffusion.guidance import Guided
from diffsearch.diffusion.schedule import Schedule
from diffsearch.diffusion.targets import Predicts
from diffsearch.diffusion.variance import learned_variance
from diffsearch.errors import DiffsearchError
from diffsearch.space.axes import DIRECT_MEANS


@dataclass(frozen=True, slots=True)
class Denoiser:
    """A network with the schedule it was trained on. Images are (B, C, H, W), normalised.

    Args:
        network: (x_t, t (B,)) -> output like x_t; a module or any callable. A conditional one takes label rows (B, K)
            as a third argument, and `given` makes it one of two.
        schedule: the noise process of the training, terminal rule included.
        predicts: what the output is, a trait of the loss.
        low: least value of a normalised pixel; x_0 is clipped to [low, high].
        high: largest value of a normalised pixel.
        data_mean: (C, H, W) or (B, C, H, W), the mean normalised training image: x_0 from epsilon at alpha_bar_T = 0.
        class_means: (K, C, H, W), the same of each class; None: the network is unconditional.
        class_shares: (K,) float64, each class's share of the training images.
        blind_at_end: the training gave step T no weight where alpha_bar_T = 0 (min-SNR), so that its output there
            means nothing and the mean image is taken for every target.
        learned_variance: the output has twice the image's channels, see `mean_and_variance`.
    """

    network: Callable[..., Tensor]
    schedule: Schedule
    predicts: Predicts
    low: float
    high: float
    data_mean: Tensor
    class_means: Tensor | None = None
    class_shares: Tensor | None = None
    blind_at_end: bool = False
    learned_variance: bool = False

    @property
    def classes(self) -> int:
        """K, the classes that the network can be told; 0: it is unconditional, or told already."""
        return 0 if self.class_means is None else len(self.class_means)

    def given(self, labels: Tensor, weight: float = 0.0) -> Denoiser:
        """The denoiser of images with these labels: what samplers take, as they know nothing of labels.

        At alpha_bar_T = 0 its mean image is that of the classes, guided as the network is.

        Args:
            labels: (B, K) rows of class shares; a row of zeros is no label.
            weight: of the guidance, w; 0: none.

        Raises:
            DiffsearchError: an unconditional network, rows of another length, or a weight below -1.
        """
        if self.class_means is None:
            raise DiffsearchError("this network is unconditional: it takes no labels and no guidance")
        if labels.ndim != 2 or labels.shape[1] != self.classes:
            raise DiffsearchError(f"labels must be rows of {self.classes} class shares, got {tuple(labels.shape)}")
        mixed = torch.tensordot(labels.to(self.class_means), self.class_means, dims=1)
        unsaid = 1 - labels.sum(1).to(mixed)[:, None, None, None]
        told = mixed + unsaid * self.data_mean
        mean = (1 + weight) * told - weight * self.data_mean
        network: Any = Guided(self.network, labels, weight)
        return replace(self, network=network, data_mean=mean, class_means=None, class_shares=None)

    @property
    def direct_mean(self) -> bool:
        """Whether the output is itself the mean of x_{t-1}, so that no x_0 can be had from it."""
        return self.predicts in DIRECT_MEANS

    def output(self, x_t: Tensor, t: int) -> Tensor:
        """What the network says of the image at step t, in the images' type."""
        return self.said(x_t, t)[:, : x_t.shape[1]]

    def said(self, x_t: Tensor, t: int) -> Tensor:
        """All that the network says at step t, a learned variance included: every call of it comes by here."""
        told = torch.full((len(x_t),), self.schedule.told(t), device=x_t.device)
        return self.network(x_t, told).to(x_t.dtype)

    def x0_and_eps(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The clipped estimate of x_0, and the noise that it leaves: x_t = signal · x_0 + sigma · eps.

        At alpha_bar_t = 0 the noise is x_t itself and says nothing of x_0, whose best estimate is the mean image.

        Raises:
            DiffsearchError: the network predicts a mean directly.
        """
        if self.direct_mean:
            raise DiffsearchError(f"a network that predicts {self.predicts} holds no estimate of x_0")
        x_0 = self._x0(x_t, t, None)
        return x_0, (x_t - float(self.schedule.signal[t]) * x_0) / float(self.schedule.sigma[t])

    def _x0(self, x_t: Tensor, t: int, output: Tensor | None) -> Tensor:
        """The clipped estimate of x_0 from the network's output, which is asked for where it is None and needed."""
        if not self.schedule.has_signal(t) and (self.blind_at_end or self.predicts == "epsilon"):
            return self.data_mean.to(x_t).expand_as(x_t).clamp(self.low, self.high)
        output = self.output(x_t, t) if output is None else output
        signal, sigma = float(self.schedule.signal[t]), float(self.schedule.sigma[t])
        if self.predicts == "epsilon":
            x_0 = (x_t - sigma * output) / signal
        elif self.predicts == "v":
            x_0 = signal * x_t - sigma * output
        else:
            x_0 = output
        return x_0.clamp(self.low, self.high)

    def mean(self, x_t: Tensor, t: int, s: int | None = None) -> Tensor:
        """The mean of x_s given x_t, by default of s = t - 1: Ho et al. 2020, eq. 7, or the output itself.

        Raises:
            DiffsearchError: the network predicts a mean directly and s isn't t - 1.
        """
        s = t - 1 if s is None else s
        if self.direct_mean:
            if s != t - 1:
                self._refuse_few_steps()
            return self.output(x_t, t)
        return self._posterior_mean(self._x0(x_t, t, None), x_t, t, s)

    def _posterior_mean(self, x_0: Tensor, x_t: Tensor, t: int, s: int) -> Tensor:
        posterior = self.schedule.transition(t, s)
        return float(posterior.x0) * x_0 + float(posterior.xt) * x_t

    def mean_and_variance(self, x_t: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
        """The mean of x_s given x_t, s > 0, and the variance around it that the network learned, both like x_t.

        The variance is exp(u log beta + (1 - u) log beta_tilde), u the network's second half (Nichol & Dhariwal 2021,
        eq. 15) and both betas those of the step from t to s.

        Raises:
            DiffsearchError: the network says no variance, or predicts a mean directly.
        """
        if not self.learned_variance or self.direct_mean:
            raise DiffsearchError("this network says no variance: train it with training.learned_variance: true")
        said, channels, step = self.said(x_t, t), x_t.shape[1], self.schedule.transition(t, s)
        mean = self._posterior_mean(self._x0(x_t, t, said[:, :channels]), x_t, t, s)
        return mean, learned_variance(said[:, channels:], step.beta, step.beta_tilde)

    def timesteps(self, steps: int | None) -> tuple[int, ...]:
        """The steps of a sampler (see `schedule.timesteps`); refuses fewer than all where the output is the mean."""
        chosen = schedules.timesteps(self.schedule, steps)
        if self.direct_mean and len(chosen) < self.schedule.first_step:
            self._refuse_few_steps()
        return chosen

    def _refuse_few_steps(self) -> None:
        raise DiffsearchError(
            f"a network that predicts {self.predicts} gives the mean of the step before and of no other:"
            f" sampling.steps must be {self.schedule.steps} (diffusion.steps) or left out"
        )
