"""Where a sampling sweep is scored, and what each choice costs in network calls: counted, never timed.

`at: milestones` scores every sampling point at every milestone, `last` the base point alone (the first value of each
sampling axis) before a run's last milestone, `finalists` the base point alone in the whole search.

`at: auto` takes the first of the three whose calls beyond the base point's are no more, a run, than its training costs:
an image trained is three network calls, one forward and a backward of twice its cost. What a study can't have is left
out: `last` where a sequential search compares a run's milestones, `finalists` where there are none, or where several
objectives make a front of the search's evaluations. If none is that
cheap it is the last that there is. The same file on the same data is decided alike on every machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from diffsearch.space.axes import (
    axes_under,
    compares_milestones,
    finalist_points,
    picked,
    points,
    points_at,
    sampling_points,
    searched_points,
    settings_at,
)
from diffsearch.space.settings import RunSettings, SamplingPoint, StudySpec

TRAINING_CALLS = 3  # network calls that an image trained is worth
MOST_POINTS = 1000  # of the training axes that sampling depends on, over which is averaged

At: TypeAlias = Literal["milestones", "last", "finalists"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was asked, what is done, and the cost of each choice."""

    asked: str
    at: At
    calls: Mapping[At, Calls]  # of each choice that the study has
    training_calls: float  # that the training of one run to its last milestone is worth


@dataclass(frozen=True, slots=True)
class Calls:
    """Network calls, means over the space."""

    run: tuple[float, ...]  # of a run of the search at each milestone, one after the other
    base: float  # of the base point alone at one milestone
    finalist: float  # of one run of a finalist

    @property
    def beyond_base(self) -> float:
        """What the sweep adds to a run of the search."""
        return sum(self.run) - len(self.run) * self.base


def settled(spec: StudySpec, train_images: int) -> StudySpec:
    """The study with `at: auto` decided; as it is where something else is written."""
    if spec.sampling_at != "auto":
        return spec
    return replace(spec, sampling_at=plan_sweep(spec, train_images).at)


def plan_sweep(spec: StudySpec, train_images: int) -> Sweep:
    """Count what each choice costs.

    Args:
        spec: with its own `sampling_at`, `auto` too.
        train_images: of the data set.
    """
    training = TRAINING_CALLS * train_images * spec.max_epochs
    costs = {at: _calls(replace(spec, sampling_at=at)) for at in choices(spec)}
    if spec.sampling_at == "auto":
        cheap = (at for at, calls in costs.items() if calls.beyond_base <= training)
        at = next(cheap, list(costs)[-1])
    else:
        at = spec.sampling_at
    return Sweep(spec.sampling_at, at, costs, training)


def choices(spec: StudySpec) -> tuple[At, ...]:
    """What the study may say of where its sweep is scored."""
    found: list[At] = ["milestones"]
    if not compares_milestones(spec):
        found.append("last")
    if spec.search.finalists.top and len(spec.evaluation.objectives) < 2:
        found.append("finalists")
    return tuple(found)


def points_a_milestone(spec: StudySpec, settings: RunSettings) -> tuple[int, ...]:
    """Sampling points that the search scores at each milestone of a run with these settings."""
    return tuple(len(here) for here in _searched(spec, settings))


def _calls(spec: StudySpec) -> Calls:
    """Of a study whose place for the sweep is settled."""
    evaluation, finals = spec.evaluation, spec.search.finalists
    samples = evaluation.screen.samples if evaluation.screen else evaluation.samples
    final_samples = finals.samples or evaluation.samples
    members = _settings(spec)
    at_milestones = [[network_calls(here, settings) for here in _searched(spec, settings)] for settings in members]
    base = [network_calls(sampling_points(spec, settings)[:1], settings) for settings in members]
    final = [network_calls(finalist_points(spec, settings), settings) for settings in members]
    return Calls(
        run=tuple(samples * sum(each) / len(members) for each in zip(*at_milestones, strict=True)),
        base=samples * sum(base) / len(members),
        finalist=final_samples * sum(final) / len(members) if finals.top else 0.0,
    )


def _searched(spec: StudySpec, settings: RunSettings) -> list[tuple[SamplingPoint, ...]]:
    """The sampling points that the search scores, milestone by milestone."""
    swept = searched_points(spec, sampling_points(spec, settings))
    only = picked(spec, spec.milestones, len(swept))
    return [points_at(swept, only, epoch) for epoch in spec.milestones]


def network_calls(swept: Sequence[SamplingPoint], settings: RunSettings) -> int:
    """Of one image drawn at each of these points; guidance takes two a step."""
    return sum((point.steps or settings.steps) * (1 if point.guidance in (0, -1) else 2) for point in swept)


def _settings(spec: StudySpec) -> list[RunSettings]:
    """Settings that differ in what sampling depends on; a range stands for its two ends."""
    on = ["diffusion.steps", *(path for axis in spec.sampling_axes for path, _ in axis.when)]
    found = itertools.islice(points(axes_under(spec, on), spec.fixed), MOST_POINTS)
    return [settings_at(spec, point, spec.seed) for point in found]
