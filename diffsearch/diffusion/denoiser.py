"""One view on every trained network: what image does it see behind x_t, and what is the mean of the step before?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsearch.diffusion import schedule as schedules
from diffsearch.diffusion.schedule import Schedule
from diffsearch.diffusion.targets import DIRECT_MEAN, Predicts
from diffsearch.errors import DiffsearchError


@dataclass(frozen=True, slots=True)
class Denoiser:
    """A network with the schedule it was trained on. Images are (B, C, H, W), normalised.

    Args:
        network: (x_t, t (B,) int64) -> output like x_t; a module or any callable.
        schedule: the noise process of the training, terminal rule included.
        predicts: what the output is, a trait of the loss.
        low: least value of a normalised pixel; x_0 is clipped to [low, high].
        high: largest value of a normalised pixel.
        data_mean: (C, H, W), the mean normalised training image: x_0 from epsilon at alpha_bar_T = 0.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    schedule: Schedule
    predicts: Predicts
    low: float
    high: float
    data_mean: Tensor

    @property
    def direct_mean(self) -> bool:
        """Whether the output is itself the mean of x_{t-1}, so that no x_0 can be had from it."""
        return self.predicts in DIRECT_MEAN

    def output(self, x_t: Tensor, t: int) -> Tensor:
        """What the network says at step t, in the images' type."""
        return self.network(x_t, torch.full((len(x_t),), t, device=x_t.device)).to(x_t.dtype)

    def x0_and_eps(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The clipped estimate of x_0, and the noise that it leaves: x_t = signal · x_0 + sigma · eps.

        At alpha_bar_t = 0 the noise is x_t itself and says nothing of x_0, whose best estimate is the mean image.

        Raises:
            DiffsearchError: the network predicts a mean directly.
        """
        if self.direct_mean:
            raise DiffsearchError(f"a network that predicts {self.predicts} holds no estimate of x_0")
        signal, sigma = float(self.schedule.signal[t]), float(self.schedule.sigma[t])
        if self.predicts == "epsilon":
            if self.schedule.has_signal(t):
                x_0 = (x_t - sigma * self.output(x_t, t)) / signal
            else:
                x_0 = self.data_mean.to(x_t).expand_as(x_t)
        elif self.predicts == "v":
            x_0 = signal * x_t - sigma * self.output(x_t, t)
        else:
            x_0 = self.output(x_t, t)
        x_0 = x_0.clamp(self.low, self.high)
        return x_0, (x_t - signal * x_0) / sigma

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
        x_0, _ = self.x0_and_eps(x_t, t)
        posterior = self.schedule.transition(t, s)
        return float(posterior.x0) * x_0 + float(posterior.xt) * x_t

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
