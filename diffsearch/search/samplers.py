"""Search algorithms by name: Optuna's samplers, and how an axis becomes an Optuna distribution.

A sampler re-made with the same seed proposes the same points again, so each trial's sampler is seeded by
(study seed, trial number): a study that was killed and taken up goes on as if it had never stopped. What a sampler
knows beyond that it reads off the history, where NSGA-II also keeps its generations.

Traits: `finite` goes through lists of values alone; `several` takes several objectives; `every_axis` models a fixed
set of axes, so that it proposes a value on each, also where the axis doesn't exist (the value is then without meaning,
as an unexpressed gene is, and is no part of the point); `ignores_pruned` learns nothing of a trial that Optuna calls
pruned, so that runs which were stopped early are told as complete.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from diffsearch.errors import DiffsearchError
from diffsearch.registry import algorithm, suggest
from diffsearch.space.axes import start_of, walk
from diffsearch.space.settings import Axis, Choice, Choices, Integers, LogUniform, Point, Uniform, to_plain, to_value

GRID = "grid"


@algorithm.register("random", finite=False, several=True)
def random_sampler(seed: int, axes: Sequence[Axis]) -> optuna.samplers.BaseSampler:
    """Independent draws; a draw that is known already costs nothing and isn't counted."""
    return optuna.samplers.RandomSampler(seed=seed)


@algorithm.register("tpe", finite=False, several=True)
def tpe_sampler(
    seed: int, axes: Sequence[Axis], *, startup_trials: int = 10, multivariate: bool = True
) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), over joint groups of axes where they are conditional.

    With several objectives the good trials are those of the first non-domination ranks, the last rank cut by
    hypervolume (MOTPE, Ozaki et al. 2022). Trials that break a constraint are the worst, by how far they break it.

    Args:
        startup_trials: random points before the model is asked.
        multivariate: model the axes jointly (Falkner et al. 2018) rather than one by one.
    """
    options: dict[str, Any] = {"n_startup_trials": startup_trials, "seed": seed, "constant_liar": True}
    if multivariate:
        options |= {"multivariate": True, "group": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(**options)


@algorithm.register("gp", finite=False, several=True, every_axis=True, ignores_pruned=True)
def gp_sampler(
    seed: int, axes: Sequence[Axis], *, startup_trials: int = 10, noiseless: bool = False
) -> optuna.samplers.BaseSampler:
    """Bayesian optimisation by log expected improvement (Ament et al. 2023) under a Gaussian process, Matérn 5/2.

    With several objectives a process each, and the improvement is the hypervolume's; constraints have processes too,
    and weigh it by the chance that they hold.

    Fitted anew at each proposal, from the same starting values: a proposal depends on the history and the seed alone.
    The fit grows with the cube of the history and takes place in the driver (see docs/search.md for what it takes).
    Categories are told apart by their Hamming distance. Needs torch and scipy, which diffsearch needs anyway.

    Args:
        startup_trials: random points before the model is asked.
        noiseless: a score depends on the point alone, not on the seed; the noise variance is then held at its least.
    """
    return optuna.samplers.GPSampler(
        seed=seed,
        n_startup_trials=startup_trials,
        deterministic_objective=noiseless,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
        warn_independent_sampling=False,
    )


@algorithm.register("nsga2", finite=False, several=True, every_axis=True, ignores_pruned=True)
def nsga2_sampler(
    seed: int,
    axes: Sequence[Axis],
    *,
    population_size: int = 16,
    mutation_prob: float | None = None,
    crossover_prob: float = 0.9,
    swapping_prob: float = 0.5,
) -> optuna.samplers.BaseSampler:
    """NSGA-II (Deb et al. 2002): the non-dominated of a generation are the parents of the next, crossed uniformly.

    Of parents that break a constraint the one that breaks it less wins. The first generation is random.

    Args:
        population_size: trials of a generation, at least 2; `search.runs` should be several times that.
        mutation_prob: of each axis, drawn anew where it mutates; None: 1 / number of axes.
        crossover_prob: of two parents rather than one.
        swapping_prob: of taking an axis from the second parent.
    """
    return optuna.samplers.NSGAIISampler(
        seed=seed,
        population_size=population_size,
        mutation_prob=mutation_prob,
        crossover_prob=crossover_prob,
        swapping_prob=swapping_prob,
    )


@algorithm.register(GRID, finite=True, several=True)
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
        try:
            return algorithm.build(choice.name, seed, axes, **choice.kwargs)  # type: ignore[no-any-return]
        except ValueError as error:
            raise DiffsearchError(f"search.algorithm: {choice.name}: {error}") from error
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


def traits(choice: Choice) -> Mapping[str, Any]:
    """What is known of an algorithm; nothing of a class of `optuna.samplers`."""
    return algorithm.member(choice.name).traits if choice.name in algorithm else {}


def genetic(choice: Choice, axes: Sequence[Axis]) -> optuna.samplers.BaseGASampler | None:
    """The algorithm where it breeds generations, to which points that were chosen elsewhere must belong; else None."""
    if choice.name in algorithm and "several" not in traits(choice):
        return None  # a coordinate search is no sampler
    built = build(choice, 0, axes)
    return built if isinstance(built, optuna.samplers.BaseGASampler) else None


def suggest_point(
    trial: optuna.Trial, axes: Sequence[Axis], fixed: Mapping[str, Any], every_axis: bool = False
) -> Point:
    """Ask a trial for a value of each axis that exists; with `every_axis` of each, those of no meaning left out."""
    if every_axis:
        drawn = {axis.path: _suggest(trial, axis) for axis in axes}
        return walk(axes, fixed, lambda axis: drawn[axis.path])
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


def draw(axis: Axis, rng: random.Random) -> Any:
    """A value of an axis, uniform over its list, its range or the logarithm of its range."""
    match axis.domain:
        case Choices(values):
            return rng.choice(values)
        case Uniform(low, high):
            return rng.uniform(low, high)
        case LogUniform(low, high):
            return min(high, max(low, math.exp(rng.uniform(math.log(low), math.log(high)))))
        case Integers(low, high):
            return rng.randint(low, high)


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


def on_every_axis(axes: Sequence[Axis], point: Point) -> Point:
    """A point with a value on the axes too that don't exist there: where each of those begins."""
    return {axis.path: point[axis.path] if axis.path in point else start_of(axis) for axis in axes}


def to_params(axes: Sequence[Axis], point: Point) -> dict[str, Any]:
    """A point as Optuna's parameters: categories as strings, numbers of ranges as they are."""
    return {
        axis.path: encode(point[axis.path]) if isinstance(axis.domain, Choices) else point[axis.path]
        for axis in axes
        if axis.path in point
    }


def from_params(axes: Sequence[Axis], fixed: Mapping[str, Any], params: Mapping[str, Any]) -> Point:
    """The point of Optuna's parameters: of those axes that exist there.

    Raises:
        KeyError: a parameter is lacking.
    """

    def value(axis: Axis) -> Any:
        return decode(params[axis.path]) if isinstance(axis.domain, Choices) else params[axis.path]

    return walk(axes, fixed, value)


def encode(value: Any) -> str:
    """A category as Optuna's storage keeps it: a string, since lists and objects as choices are refused or warn."""
    return json.dumps(to_plain(value), sort_keys=True)


def decode(text: str) -> Any:
    plain = json.loads(text)
    if isinstance(plain, dict):
        return Choice(plain["name"], tuple((key, to_value(value)) for key, value in plain["options"]))
    return to_value(plain)
