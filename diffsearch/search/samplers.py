"""Search algorithms by name: Optuna's samplers, and how an axis becomes an Optuna distribution.

A sampler re-made with the same seed proposes the same points again, so each trial's sampler is seeded by
(study seed, trial number): a study that was killed and taken up goes on as if it had never stopped.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from diffsearch.errors import DiffsearchError
from diffsearch.registry import algorithm, suggest
from diffsearch.space.axes import walk
from diffsearch.space.settings import Axis, Choice, Choices, Integers, LogUniform, Point, Uniform, to_plain, to_value

GRID = "grid"


@algorithm.register("random", finite=False)
def random_sampler(seed: int, axes: Sequence[Axis]) -> optuna.samplers.BaseSampler:
    """Independent draws; a draw that is known already costs nothing and isn't counted."""
    return optuna.samplers.RandomSampler(seed=seed)


@algorithm.register("tpe", finite=False)
def tpe_sampler(
    seed: int, axes: Sequence[Axis], *, startup_trials: int = 10, multivariate: bool = True
) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), over joint groups of axes where they are conditional.

    Args:
        startup_trials: random points before the model is asked.
        multivariate: model the axes jointly (Falkner et al. 2018) rather than one by one.
    """
    options: dict[str, Any] = {"n_startup_trials": startup_trials, "seed": seed, "constant_liar": True}
    if multivariate:
        options |= {"multivariate": True, "group": True}
    return optuna.samplers.TPESampler(**options)


@algorithm.register(GRID, finite=True)
def grid_sampler(seed: int, axes: Sequence[Axis]) -> optuna.samplers.BaseSampler:
    """Every point once, in a seeded order."""
    space: dict[str, Sequence[Any]] = {}
    for axis in axes:
        if not isinstance(axis.domain, Choices):
            raise DiffsearchError(f"grid: {axis.path} is a range; write a list of values")
        space[axis.path] = [encode(value) for value in axis.domain.values]
    return AskedGrid(space, seed=seed)


class AskedGrid(optuna.samplers.GridSampler):
    """Optuna's grid for a study that is asked and told, where nothing is there for the sampler to stop."""

    def after_trial(self, *_: Any) -> None:
        return None

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether every point was given out, answered or not."""
        given = {trial.system_attrs.get("grid_id") for trial in study.get_trials(deepcopy=False)} - {None}
        return len(given) >= self._n_min_trials


def build(choice: Choice, seed: int, axes: Sequence[Axis]) -> optuna.samplers.BaseSampler:
    """The sampler of that name: ours above, or any class of `optuna.samplers` with its own arguments.

    Raises:
        DiffsearchError: no such sampler, or arguments that it doesn't take.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if choice.name in algorithm:
        return algorithm.build(choice.name, seed, axes, **choice.kwargs)  # type: ignore[no-any-return]
    known = optuna_names()
    if choice.name not in known:
        raise DiffsearchError(f"search.algorithm: unknown '{choice.name}'. {suggest(choice.name, known)}")
    sampler = getattr(optuna.samplers, choice.name)
    takes = inspect.signature(sampler).parameters
    wrong = [name for name in choice.kwargs if name not in takes]
    if wrong:
        raise DiffsearchError(f"search.algorithm: {choice.name} takes no '{wrong[0]}'. {suggest(wrong[0], takes)}")
    seeded = {"seed": seed} if "seed" in takes else {}
    try:
        return sampler(**{**seeded, **choice.kwargs})  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise DiffsearchError(f"search.algorithm: {choice.name}: {error}") from error


def optuna_names() -> tuple[str, ...]:
    """Classes of `optuna.samplers` that can be built from a study file."""
    names = (name for name in optuna.samplers.__all__ if name.endswith("Sampler"))
    return tuple(name for name in names if not inspect.isabstract(getattr(optuna.samplers, name)))


def seed_of(study_seed: int, trial_number: int) -> int:
    """A 32-bit seed for one trial's proposal."""
    digest = hashlib.sha256(f"{study_seed}|{trial_number}|proposal".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def suggest_point(trial: optuna.Trial, axes: Sequence[Axis], fixed: Mapping[str, Any]) -> Point:
    """Ask a trial for a value of each axis that exists."""
    return walk(axes, fixed, lambda axis: _suggest(trial, axis))


def _suggest(trial: optuna.Trial, axis: Axis) -> Any:
    match axis.domain:
        case Choices(values):
            return decode(trial.suggest_categorical(axis.path, [encode(value) for value in values]))
        case Uniform(low, high):
            return trial.suggest_float(axis.path, low, high)
        case LogUniform(low, high):
            return trial.suggest_float(axis.path, low, high, log=True)
        case Integers(low, high):
            return trial.suggest_int(axis.path, low, high)


def distributions(axes: Sequence[Axis], point: Point) -> dict[str, optuna.distributions.BaseDistribution]:
    """The Optuna distribution of each axis that the point has a value on."""
    return {axis.path: _distribution(axis) for axis in axes if axis.path in point}


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    match axis.domain:
        case Choices(values):
            return optuna.distributions.CategoricalDistribution([encode(value) for value in values])
        case Uniform(low, high):
            return optuna.distributions.FloatDistribution(low, high)
        case LogUniform(low, high):
            return optuna.distributions.FloatDistribution(low, high, log=True)
        case Integers(low, high):
            return optuna.distributions.IntDistribution(low, high)


def to_params(axes: Sequence[Axis], point: Point) -> dict[str, Any]:
    """A point as Optuna's parameters: categories as strings, numbers of ranges as they are."""
    return {
        axis.path: encode(point[axis.path]) if isinstance(axis.domain, Choices) else point[axis.path]
        for axis in axes
        if axis.path in point
    }


def from_params(axes: Sequence[Axis], params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_params`."""
    return {
        axis.path: decode(params[axis.path]) if isinstance(axis.domain, Choices) else params[axis.path]
        for axis in axes
        if axis.path in params
    }


def encode(value: Any) -> str:
    """A category as Optuna's storage keeps it: a string, since lists and objects as choices are refused or warn."""
    return json.dumps(to_plain(value), sort_keys=True)


def decode(text: str) -> Any:
    plain = json.loads(text)
    if isinstance(plain, dict):
        return Choice(plain["name"], tuple((key, to_value(value)) for key, value in plain["options"]))
    return to_value(plain)
