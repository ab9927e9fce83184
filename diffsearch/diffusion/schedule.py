"""The tables of one noise process, and the rule for the step where nothing of the image is left.

Notation (Ho et al. 2020): alpha_t = alpha_bar_t / alpha_bar_{t-1}, beta_t = 1 - alpha_t. All tables are float64 on
the CPU; they are cast to the images' type only where they meet an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from diffsearch.errors import DiffsearchError
from diffsearch.registry import noise_process as processes
from diffsearch.space.settings import Choice

Terminal = Literal["data-mean", "clamp", "skip"]
Time = Literal["discrete", "continuous"]

# Below this, alpha_bar_T is rounding (the cosine ends at 6e-17) and dividing by its root amplifies silently.
NO_SIGNAL = 1e-12
CLAMPED_SIGNAL = 1e-5  # what `clamp` puts in its place


@dataclass(frozen=True, slots=True)
class Transition:
    """The posterior q(x_s | x_t, x_0) of steps t > s: a Gaussian of mean x0 · x_0 + xt · x_t, variance beta_tilde.

    The fields are float64 tensors of one shape: () for one step, (T + 1,) for a table.
    """

    alpha: Tensor  # alpha_bar_t / alpha_bar_s
    beta: Tensor  # 1 - alpha: the noise variance that q(x_t | x_s) adds
    beta_tilde: Tensor
    x0: Tensor  # coefficient of x_0 in the mean
    xt: Tensor  # coefficient of x_t in the mean


def transition(alpha_bar_t: Tensor, alpha_bar_s: Tensor) -> Transition:
    """Ho et al. 2020, eqs. 6 and 7, for any pair t > s; defined for alpha_bar_t = 0, as 1 - alpha_bar_t > 0."""
    alpha = alpha_bar_t / alpha_bar_s
    beta = 1 - alpha
    return Transition(
        alpha=alpha,
        beta=beta,
        beta_tilde=beta * (1 - alpha_bar_s) / (1 - alpha_bar_t),
        x0=alpha_bar_s.sqrt() * beta / (1 - alpha_bar_t),
        xt=alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t),
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """One noise process, discretised, with its terminal rule applied. Index t = 0..T everywhere.

    Entry 0 of the tables of a step (alpha, beta, beta_tilde, posterior_x0, posterior_xt) is that of standing still.

    Args:
        alpha_bar: (T + 1,) float64, as a noise process returns it.
        terminal: what to do where alpha_bar[T] is zero (below `NO_SIGNAL`), and only there.
            "data-mean": step T is trained and sampled; the best x_0 there from a network whose output holds none
            (epsilon) is the mean training image. "clamp": alpha_bar[T] becomes 1e-5, or half of alpha_bar[T-1] where
            that is less. "skip": step T is neither trained nor sampled; sampling starts at T-1, from pure noise.
        time: "discrete": the network is trained at the T steps and told t. "continuous": it is trained at every noise
            level between and told T · sigma; the steps are then those of samplers alone.

    Where alpha_bar[0] is below 1 (signal-rate) step 0 is still the image: the last step returns the estimate of x_0.

    Raises:
        DiffsearchError: alpha_bar is no noise process, the rule is unknown, or `skip` leaves no step.
    """

    alpha_bar: Tensor
    terminal: Terminal = "data-mean"
    time: Time = "discrete"
    scale: int = 0  # T of the training, where this is a part of its schedule; 0: this is the whole
    first_step: int = field(init=False)  # the largest t that is trained, and where sampling starts
    signal: Tensor = field(init=False)  # sqrt(alpha_bar): the factor on x_0
    sigma: Tensor = field(init=False)  # sqrt(1 - alpha_bar): the factor on the noise
    alpha: Tensor = field(init=False)
    beta: Tensor = field(init=False)
    beta_tilde: Tensor = field(init=False)
    posterior_x0: Tensor = field(init=False)
    posterior_xt: Tensor = field(init=False)
    angle: Tensor = field(init=False)  # acos(signal) of the process itself, 0 to π/2: where continuous time draws

    def __post_init__(self) -> None:
        if self.terminal not in get_args(Terminal):
            raise DiffsearchError(f"unknown terminal rule '{self.terminal}'. known: {', '.join(get_args(Terminal))}.")
        _check_process(self.alpha_bar)
        alpha_bar, steps = self.alpha_bar.clone(), len(self.alpha_bar) - 1
        ends_in_noise = bool(alpha_bar[-1] < NO_SIGNAL)
        skips = ends_in_noise and self.terminal == "skip"
        if skips and steps == 1:
            raise DiffsearchError(
                "terminal rule 'skip' leaves no step to train: this noise process has one step and ends in pure noise."
                " Use 'data-mean' or 'clamp', or more steps"
            )
        if ends_in_noise:
            alpha_bar[-1] = min(CLAMPED_SIGNAL, float(alpha_bar[-2]) / 2) if self.terminal == "clamp" else 0.0
        angle = alpha_bar.sqrt().clamp(max=1).acos()
        alpha_bar[0] = 1.0
        posterior = transition(alpha_bar[1:], alpha_bar[:-1])
        tables = {
            "alpha_bar": alpha_bar,
            "first_step": steps - 1 if skips else steps,
            "signal": alpha_bar.sqrt(),
            "sigma": (1 - alpha_bar).sqrt(),
            "alpha": _after(1.0, posterior.alpha),
            "beta": _after(0.0, posterior.beta),
            "beta_tilde": _after(0.0, posterior.beta_tilde),
            "posterior_x0": _after(0.0, posterior.x0),
            "posterior_xt": _after(1.0, posterior.xt),
            "angle": angle,
        }
        for name, table in tables.items():
            object.__setattr__(self, name, table)  # frozen: this is the one place that fills it

    @classmethod
    def build(
        cls, noise_process: Choice, steps: int, terminal: Terminal = "data-mean", time: Time = "discrete"
    ) -> Schedule:
        """The schedule of a registered noise process, in T = `steps` steps.

        Raises:
            DiffsearchError: steps < 1, an option out of its range, or what the class itself refuses.
        """
        if steps < 1:
            raise DiffsearchError(f"diffusion.steps must be at least 1, got {steps}")
        alpha_bar = processes.build(noise_process.name, steps, **noise_process.kwargs)
        if alpha_bar[0] != 1 and not processes.member(noise_process.name).traits.get("noisy_start"):
            raise DiffsearchError(
                f"{_RULE}; {noise_process.name} starts at {float(alpha_bar[0]):g}."
                " If that is meant, register it with noisy_start=True"
            )
        return cls(alpha_bar, terminal, time)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.alpha_bar) - 1

    def told(self, t: int) -> int | float:
        """What a network reads at step t: t itself, or T · sigma where it was trained in continuous time."""
        return t if self.time == "discrete" else (self.scale or self.steps) * float(self.sigma[t])

    def until(self, t: int) -> Schedule:
        """The first t steps alone."""
        return replace(self, alpha_bar=self.alpha_bar[: t + 1], scale=self.scale or self.steps)

    def has_signal(self, t: int) -> bool:
        """Whether x_t still depends on x_0."""
        return bool(self.alpha_bar[t] > 0)

    def transition(self, t: int, s: int) -> Transition:
        """The posterior of going from t to any earlier s, as 0-d tensors; s = t - 1 gives the tables' entries."""
        return transition(self.alpha_bar[t], self.alpha_bar[s])


def timesteps(schedule: Schedule, steps: int | None = None) -> tuple[int, ...]:
    """The steps t at which a sampler calls the network, falling; after the last one comes t = 0.

    Evenly spaced, t_k = ceil(first_step · k / n) for k = n..1: always distinct, and always from `first_step`.

    Args:
        steps: n, network calls, 1..T; None or more than `first_step` (as T under `skip`): every step.
    """
    first = schedule.first_step
    if steps is not None and not 1 <= steps <= schedule.steps:
        raise DiffsearchError(f"sampling.steps must lie in 1..{schedule.steps} (diffusion.steps), got {steps}")
    count = first if steps is None else min(steps, first)
    return tuple(math.ceil(first * k / count) for k in range(count, 0, -1))


_RULE = "a noise process returns alpha_bar, (steps + 1,) float64, alpha_bar[0] = 1, strictly decreasing, ≥ 0"


def _after(first: float, table: Tensor) -> Tensor:
    return torch.cat([table.new_full((1,), first), table])


def _check_process(alpha_bar: Tensor) -> None:
    """Refuse what a user's own process may return by mistake."""
    if alpha_bar.ndim != 1 or len(alpha_bar) < 2 or alpha_bar.dtype != torch.float64:
        raise DiffsearchError(f"{_RULE}; this one is {tuple(alpha_bar.shape)} {alpha_bar.dtype}")
    falls = bool((alpha_bar.diff() < 0).all())
    if not (0 < alpha_bar[0] <= 1 and falls and alpha_bar[-1] >= 0):
        first, last = float(alpha_bar[0]), float(alpha_bar[-1])
        raise DiffsearchError(
            f"{_RULE}; this one goes from {first:g} to {last:g}{'' if falls else ' and rises within'}"
        )
    if alpha_bar[-2] < NO_SIGNAL:
        raise DiffsearchError(f"{_RULE}, and only the last may lie below {NO_SIGNAL:g}: use fewer steps")
