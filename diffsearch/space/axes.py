"""What a study's axes mean: settings at a point, every point of a space, its size. Pure functions of a `StudySpec`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffsearch.registry import FAMILIES, loss, sampler
from diffsearch.space.conditions import default_of, in_order
from diffsearch.space.schema import SECTIONS
from diffsearch.space.settings import (
    Axis,
    Choice,
    Choices,
    Integers,
    LogUniform,
    Point,
    RunSettings,
    SamplingPoint,
    StudySpec,
    TrainingSettings,
    Uniform,
    show,
)

GUIDANCE = "sampling.guidance_weight"
DIRECT_MEANS = frozenset({"mu-tilde", "x-prev"})  # the output is the posterior mean: no x_0 to jump with


def settings_at(spec: StudySpec, point: Point, seed: int) -> RunSettings:
    """The training settings at a point: fixed values, the point's, and defaults where an axis doesn't exist.

    Options that equal their factory's default are left out, so that to spell a default changes no run key.
    """
    values = {**spec.fixed, **point}

    def get(path: str) -> Any:
        return values[path] if path in values else default_of(path)

    training = {name: get(f"training.{name}") for name in SECTIONS["training"].model_fields if name != "epochs"}
    training["horizon"] = spec.max_epochs if training["schedule"] == "cosine" else None
    if training["precision"] == "auto":
        training["precision"] = "fp32"
    for idle in _idle(training):
        training[idle] = default_of(f"training.{idle}")
    return RunSettings(
        dataset=member_at(values, "data"),
        model=member_at(values, "model"),
        noise_process=member_at(values, "diffusion"),
        steps=get("diffusion.steps"),
        terminal=get("diffusion.terminal"),
        training=TrainingSettings(**training),
        seed=seed,
        time=get("diffusion.time"),
    )


def _idle(training: Mapping[str, Any]) -> Iterator[str]:
    """Settings that mean nothing beside the others, so that no key may depend on them."""
    if training["schedule"] == "constant":
        yield "learning_rate_floor"
    if training["conditioning"] == "none":
        yield "label_dropout"


def member_at(values: Mapping[str, Any], section: str) -> Choice:
    """The section's chosen member with those of its options that the values name and that aren't its defaults."""
    what = SECTIONS[section]
    path = f"{section}.{what.DISCRIMINATOR}"
    head = values[path] if path in values else default_of(path)
    name, own = (head.name, head.kwargs) if isinstance(head, Choice) else (head, {})
    defaults = {key: option.default for key, option in FAMILIES[what.FAMILY].member(name).options().items()}
    if section == "data":
        defaults["validation"] = 0.0  # an option of every data set
    beside = {key: values[f"{section}.{key}"] for key in defaults if f"{section}.{key}" in values}
    given = {**beside, **own}
    return Choice.of(name, **{key: value for key, value in given.items() if not _same(value, defaults[key])})


def value_at(settings: RunSettings, path: str) -> Any:
    """The value that a dotted path has in these settings: names as text, options with their defaults."""
    section, _, key = path.partition(".")
    if section == "training":
        return None if key == "epochs" else getattr(settings.training, key)
    if path in ("diffusion.steps", "diffusion.terminal", "diffusion.time"):
        return getattr(settings, key)
    chosen = {"data": settings.dataset, "model": settings.model, "diffusion": settings.noise_process}[section]
    if key == SECTIONS[section].DISCRIMINATOR:
        return chosen.name
    if key in chosen.kwargs:
        return chosen.kwargs[key]
    option = FAMILIES[SECTIONS[section].FAMILY].member(chosen.name).options().get(key)
    return None if option is None or option.required else option.default


def point_of(spec: StudySpec, settings: RunSettings) -> Point | None:
    """The point of this space that has these settings, or None; the inverse of `settings_at`."""
    candidates: list[list[Any]] = []
    for axis in spec.axes:
        found = value_at(settings, axis.path)
        if isinstance(axis.domain, Choices):
            alike = [v for v in axis.domain.values if _same(v.name if isinstance(v, Choice) else v, found)]
            candidates.append(alike or [None])
        else:
            candidates.append([found])
    for combination in itertools.product(*candidates):
        values = {axis.path: value for axis, value in zip(spec.axes, combination, strict=True)}
        point = walk(spec.axes, spec.fixed, lambda axis, values=values: values[axis.path])  # type: ignore[misc]
        inside = all(_inside(axis, point[axis.path]) for axis in spec.axes if axis.path in point)
        if inside and settings_at(spec, point, settings.seed) == settings:
            return point
    return None


def axes_under(spec: StudySpec, prefixes: Iterable[str]) -> tuple[Axis, ...]:
    """Training axes at or under these paths, and those that their existence depends on."""
    wanted = {axis.path for axis in spec.axes if any(f"{axis.path}.".startswith(f"{prefix}.") for prefix in prefixes)}
    while True:
        further = {path for axis in spec.axes if axis.path in wanted for path, _ in axis.when} - wanted
        if not further:
            return tuple(axis for axis in spec.axes if axis.path in wanted)
        wanted |= further


def values_of(spec: StudySpec, path: str) -> tuple[Any, ...]:
    """Every value that a training key takes somewhere in the study."""
    found = tuple(point[path] for point in points(axes_under(spec, [path]), spec.fixed) if path in point)
    return found or (spec.fixed.get(path, default_of(path)),)


def walk(axes: Sequence[Axis], fixed: Mapping[str, Any], choose: Callable[[Axis], Any]) -> Point:
    """A point: `choose` is asked for each axis that exists, after those that it depends on. In file order."""
    values: dict[str, Any] = {}
    for axis in in_order(axes):
        if axis.exists({**fixed, **values}):
            values[axis.path] = choose(axis)
    return {axis.path: values[axis.path] for axis in axes if axis.path in values}


def grid(spec: StudySpec) -> Iterator[Point] | None:
    """Every point of the training axes, the last axis varying fastest; None where an axis is a range."""
    return points(spec.axes, spec.fixed) if all(isinstance(axis.domain, Choices) for axis in spec.axes) else None


def grid_size(spec: StudySpec) -> int | None:
    """Number of points that `grid` goes through; None where an axis is a range."""
    if any(not isinstance(axis.domain, Choices) for axis in spec.axes):
        return None
    return _count(spec.axes, spec.fixed)


def points(axes: Sequence[Axis], fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values; a range stands for its two ends."""
    ordered = tuple(in_order(axes))
    for values in _combinations(ordered, fixed, {}):
        yield {axis.path: values[axis.path] for axis in axes if axis.path in values}


def _combinations(axes: Sequence[Axis], fixed: Mapping[str, Any], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not axes:
        yield chosen
        return
    axis, rest = axes[0], axes[1:]
    if not axis.exists({**fixed, **chosen}):
        yield from _combinations(rest, fixed, chosen)
        return
    for value in ends(axis):
        yield from _combinations(rest, fixed, {**chosen, axis.path: value})


def ends(axis: Axis) -> tuple[Any, ...]:
    """An axis' values, or the two ends of its range."""
    return axis.domain.values if isinstance(axis.domain, Choices) else (axis.domain.low, axis.domain.high)


def start_of(axis: Axis) -> Any:
    """The first value of a list; the middle of a range, of a log range in its logarithm."""
    match axis.domain:
        case Choices(values):
            return values[0]
        case Uniform(low, high):
            return (low + high) / 2
        case LogUniform(low, high):
            return math.sqrt(low * high)
        case Integers(low, high):
            return (low + high) // 2


# --- sampling -----------------------------------------------------------------------------------------------------


def sampling_points(spec: StudySpec, settings: RunSettings) -> tuple[SamplingPoint, ...]:
    """Every sampling point at which checkpoints of a run with these settings are scored, in file order."""
    paths = {path for axis in spec.sampling_axes for path, _ in axis.when if not path.startswith("sampling.")}
    fixed = {**spec.sampling_fixed, **{path: value_at(settings, path) for path in paths}}
    swept = (
        sampling_point({**fixed, **values}, settings.training.ema_half_life)
        for values in points(spec.sampling_axes, fixed)
    )
    return tuple(dict.fromkeys(swept))


def searched_points(spec: StudySpec, swept: tuple[SamplingPoint, ...]) -> tuple[SamplingPoint, ...]:
    """Those of a sweep that the search scores: all, or where finalists alone are swept the base point, the first."""
    return swept[:1] if spec.sampling_at == "finalists" else swept


def picked(spec: StudySpec, milestones: Sequence[int], count: int) -> tuple[tuple[int, int], ...]:
    """(milestone, place of a sampling point) pairs that the search scores; () where that is all of them."""
    if spec.sampling_at != "last" or count < 2 or len(milestones) < 2:
        return ()
    *earlier, last = milestones
    return (*((epoch, 0) for epoch in earlier), *((last, place) for place in range(count)))


def points_at(
    points: Sequence[SamplingPoint], only: Sequence[tuple[int, int]], epoch: int
) -> tuple[SamplingPoint, ...]:
    """The sampling points of one milestone: those that `only` has by (milestone, place), all where it is empty."""
    return tuple(points[place] for at, place in only if at == epoch) if only else tuple(points)


def compares_milestones(spec: StudySpec) -> bool:
    """Whether the search sets the scores of one run's milestones beside one another."""
    return spec.search.algorithm.name == "sequential" and len(spec.milestones) > 1


def finalist_points(spec: StudySpec, settings: RunSettings) -> tuple[SamplingPoint, ...]:
    """The sampling points of a finalist: those of `search.finalists.sampling` that its target and its T allow.

    Where finalists alone are swept, those of `sampling` come before them.
    """
    asked = spec.search.finalists.sampling
    taught = Taught.by(settings)
    possible = tuple(point for point in asked if refusal(taught, point) is None)
    if spec.sampling_at == "finalists":
        return tuple(dict.fromkeys((*sampling_points(spec, settings), *possible)))
    return possible or sampling_points(spec, settings)


def sampling_point(values: Mapping[str, Any], tracks: Sequence[int]) -> SamplingPoint:
    ema = values.get("sampling.ema")
    return SamplingPoint(
        sampler=member_at(values, "sampling"),
        steps=values.get("sampling.steps"),
        ema=default_track(tracks) if ema is None else ema,
        guidance=guidance(values),
    )


def guidance(values: Mapping[str, Any]) -> float:
    """w, by either of its two names: the weight is w, the scale 1 + w."""
    weight, scale = values.get("sampling.guidance_weight"), values.get("sampling.guidance_scale")
    if scale is not None:
        weight = round(scale - 1, 12)  # so that a scale of 1.1 and a weight of 0.1 are one setting
    return 0.0 if weight is None else float(weight)


def default_track(tracks: Sequence[int]) -> int:
    """The shortest track that averages; the raw weights where none does."""
    return min((track for track in tracks if track > 0), default=0)


@dataclass(frozen=True, slots=True)
class Taught:
    """What a network was taught, as far as it decides how it can be sampled."""

    loss: str
    steps: int
    conditioning: str
    label_dropout: float
    learned_variance: bool

    @classmethod
    def by(cls, settings: RunSettings) -> Taught:
        training = settings.training
        return cls(
            training.loss, settings.steps, training.conditioning, training.label_dropout, training.learned_variance
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sampling setting can't go with a training setting."""

    path: str  # the sampling setting
    on: str  # the training setting
    why: str


def refusal(taught: Taught, point: SamplingPoint) -> Refusal | None:
    """Why a network taught so can't be sampled so; None where it can."""
    traits = sampler.member(point.sampler.name).traits
    fewer = point.steps is not None and point.steps < taught.steps
    if point.steps is not None and point.steps > taught.steps:
        return Refusal("sampling.steps", "diffusion.steps", "more sampling steps than the process has")
    if fewer and not traits.get("few_step", True):
        return Refusal("sampling.steps", "diffusion.steps", f"{point.sampler.name} takes every step")
    if point.guidance and taught.conditioning == "none":
        return Refusal(GUIDANCE, "training.conditioning", "its network knows no classes to guide to")
    if point.guidance and not taught.label_dropout:
        return Refusal(GUIDANCE, "training.label_dropout", "its network was never taught what no label means")
    if point.sampler.kwargs.get("variance") == "learned" and not taught.learned_variance:
        return Refusal("sampling.variance", "training.learned_variance", "its network says no variance")
    if loss.member(taught.loss).traits.get("predicts") not in DIRECT_MEANS:
        return None
    if not traits.get("direct_mean", False):
        why = "its network gives the mean of the step before, and this sampler needs an estimate of x_0"
        return Refusal("sampling.sampler", "training.loss", why)
    if fewer:
        why = "its network gives the mean of the step before, so no step can be skipped"
        return Refusal("sampling.steps", "training.loss", why)
    return None


# --- in words -----------------------------------------------------------------------------------------------------


def describe_axes(spec: StudySpec) -> str:
    """One line for `plan`: `channels 2 · learning_rate log   → 1,152 points × a range`."""
    many = [axis for axis in spec.axes if not (isinstance(axis.domain, Choices) and len(axis.domain.values) == 1)]
    if not many:
        return "none   → 1 point"
    parts = [f"{axis.name} {_breadth(axis)}" for axis in many]
    lists = [axis for axis in many if isinstance(axis.domain, Choices)]
    ranges = len(many) - len(lists)
    count = _count([axis for axis in spec.axes if isinstance(axis.domain, Choices)], spec.fixed)
    times = "" if not ranges else " × a range" if ranges == 1 else f" × {ranges} ranges"
    return f"{' · '.join(parts)}   → {count:,} point{'s' if count != 1 else ''}{times}"


def _breadth(axis: Axis) -> str:
    if isinstance(axis.domain, Choices):
        return str(len(axis.domain.values))
    word = {LogUniform: "log", Integers: "int"}.get(type(axis.domain), "uniform")
    return f"{word} {show(axis.domain.low)} to {show(axis.domain.high)}"


def _count(axes: Sequence[Axis], fixed: Mapping[str, Any]) -> int:
    """Points of these lists; only axes that conditions join are gone through one by one."""
    joined = {path for axis in axes if axis.when for path in (axis.path, *(on for on, _ in axis.when))}
    free = (len(ends(axis)) for axis in axes if axis.path not in joined)
    return math.prod(free) * sum(1 for _ in points([axis for axis in axes if axis.path in joined], fixed))


def _inside(axis: Axis, value: Any) -> bool:
    if isinstance(axis.domain, Choices):
        return value in axis.domain.values
    return isinstance(value, int | float) and axis.domain.low <= value <= axis.domain.high


def _same(value: Any, other: Any) -> bool:
    """Equal, and 1 is not True."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
