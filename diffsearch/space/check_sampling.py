"""Checks of how trained networks are sampled: every sampling point must fit every run that it is asked of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diffsearch.space.axes import GUIDANCE, Taught, compares_milestones, points, refusal, sampling_point
from diffsearch.space.conditions import default_of, in_order
from diffsearch.space.members import Draft, name_of
from diffsearch.space.settings import Axis, Choices, SamplingPoint, StudySpec, show, show_count

MOST_COMBINATIONS = 20_000
_FINALS = "search.finalists.sampling"
_TAUGHT = {  # how a network is taught → where a study file says so
    "loss": "training.loss",
    "steps": "diffusion.steps",
    "conditioning": "training.conditioning",
    "label_dropout": "training.label_dropout",
    "learned_variance": "training.learned_variance",
}


def check_guidance(spec: StudySpec, draft: Draft) -> None:
    """Guidance's strength has two conventions, and a study writes one of them."""
    for prefix in ("", "search.finalists."):
        both = [path for name in ("weight", "scale") if (path := f"{prefix}sampling.guidance_{name}") in draft.settings]
        if len(both) == 2:
            message = f"says the same as {both[0]} in another convention (scale = 1 + weight)"
            draft.problems.add(draft.place(both[1]), both[1], message, "give one of the two")


def check_at(spec: StudySpec, draft: Draft) -> None:
    """A sweep that is scored in one place only must not be what another part of the study compares."""
    path, finals = "sampling.at", spec.search.finalists
    if spec.sampling_at == "finalists" and not finals.top:
        message = "finalists are to be swept, but the study has none"
        draft.problems.add(draft.place(path), path, message, "give search.finalists a top, or take at: last")
    if spec.sampling_at == "finalists" and len(spec.evaluation.objectives) > 1:
        message = "a front is made of the search's evaluations, which then have one sampling point each"
        draft.problems.add(draft.place(path), path, message, "take at: last or milestones")
    if spec.sampling_at == "last" and compares_milestones(spec):
        message = "sequential compares a run's milestones with one another, and here the last alone has the sweep"
        draft.problems.add(draft.place(path), path, message, "take at: milestones or finalists")


def check_tracks(spec: StudySpec, draft: Draft) -> None:
    """A track that is sampled must be kept while training."""
    tracks = spec.fixed["training.ema_half_life"]
    asked = {"sampling.ema": [spec.sampling_fixed.get("sampling.ema")]}
    asked["sampling.ema"] += [v for axis in spec.sampling_axes if axis.path == "sampling.ema" for v in _values(axis)]
    asked[f"{_FINALS}.ema"] = [point.ema for point in spec.search.finalists.sampling]
    for path, values in asked.items():
        for track in dict.fromkeys(values):
            if track is not None and track not in tracks:
                known = ", ".join(show_count(each) for each in tracks)
                message = f"no average with a half-life of {show_count(track)} images is kept"
                help = f"kept: {known}. It can't be had later without training: add it to training.ema_half_life"
                place = draft.settings[path].place_of(track) if path in draft.settings else draft.place(path)
                draft.problems.add(place, path, message, help)


def _values(axis: Axis) -> tuple[Any, ...]:
    return axis.domain.values if isinstance(axis.domain, Choices) else ()


@dataclass
class _Clash:
    """A sampling value that some training values don't go with."""

    why: str
    bad: list[Any] = field(default_factory=list)


def check_combinations(spec: StudySpec, draft: Draft) -> None:
    """Refuse a sampling value with the training values that it can't be combined with."""
    for path, setting in draft.settings.items():
        if path.startswith(("sampling.", _FINALS)) and not isinstance(setting.domain, Choices):
            draft.problems.add(setting.place, path, "takes no range: a sweep is a list of values")
    clashes: dict[tuple[str, str, Any], _Clash] = {}
    training: dict[str, list[Any]] = {path: [] for path in _TAUGHT.values()}
    for taught, point in _asked(spec):
        for name, path in _TAUGHT.items():
            if (value := getattr(taught, name)) not in training[path]:
                training[path].append(value)
        found = refusal(taught, point)
        if found is not None:
            clash = clashes.setdefault((found.path, found.on, _blamed(found.path, point)), _Clash(found.why))
            bad = next(getattr(taught, name) for name, path in _TAUGHT.items() if path == found.on)
            if bad not in clash.bad:
                clash.bad.append(bad)
    for (path, on, value), clash in clashes.items():
        good = [show(each) for each in training[on] if each not in clash.bad]
        message = f"{show(value)} can't be combined with {on} {', '.join(map(show, clash.bad))}: {clash.why}"
        help = f"to keep them apart: {{values: [...], when: {{{on}: [{', '.join(good)}]}}}}" if good else ""
        draft.problems.add(_place(draft, path, value), path, message, help)
    _check_finals(spec, draft)


def _blamed(path: str, point: SamplingPoint) -> Any:
    """The value that a sampling point has at a path."""
    values = {"sampling.sampler": point.sampler.name, "sampling.steps": point.steps, GUIDANCE: point.guidance}
    return values[path] if path in values else point.sampler.kwargs.get(path.rpartition(".")[2])


def _place(draft: Draft, path: str, value: Any) -> Any:
    if path == GUIDANCE and path not in draft.settings:
        path, value = "sampling.guidance_scale", value + 1
    setting = draft.settings.get(path)
    if setting is None:
        return draft.place(path)
    return next((setting.place_of(each) for each in setting.values if name_of(each) == str(value)), setting.place)


def _asked(spec: StudySpec) -> Iterator[tuple[Taught, SamplingPoint]]:
    """(how a network is taught, how it is sampled) of every evaluation that the study may ask for."""
    tracks = spec.fixed["training.ema_half_life"]
    for values in _training_values(spec):
        fixed = {**spec.sampling_fixed, **values}
        for swept in points(spec.sampling_axes, fixed):
            yield _taught(values), sampling_point({**fixed, **swept}, tracks)


def _training_values(spec: StudySpec) -> Iterator[dict[str, Any]]:
    """Training values at each combination of the axes that sampling depends on."""
    wanted = {*_TAUGHT.values(), *(path for axis in spec.sampling_axes for path, _ in axis.when)}
    for axis in reversed(tuple(in_order(spec.axes))):
        if axis.path in wanted:
            wanted |= {path for path, _ in axis.when}
    relevant = [axis for axis in spec.axes if axis.path in wanted]
    for point in itertools.islice(points(relevant, spec.fixed), MOST_COMBINATIONS):
        yield {**spec.fixed, **point}


def _taught(values: dict[str, Any]) -> Taught:
    return Taught(**{name: values.get(path, default_of(path)) for name, path in _TAUGHT.items()})


def _check_finals(spec: StudySpec, draft: Draft) -> None:
    """A finalist's sampling point is left out where it doesn't fit, so it need fit somewhere only."""
    runs = tuple(dict.fromkeys(map(_taught, _training_values(spec))))
    for point in spec.search.finalists.sampling:
        refusals = [refusal(taught, point) for taught in runs]
        if refusals and all(refusals):
            first = refusals[0]
            assert first is not None
            path = f"search.finalists.{first.path}"
            draft.problems.add(_place(draft, path, point.sampler.name), path, f"{point} fits no run: {first.why}")
