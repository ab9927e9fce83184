"""Checks of how networks are taught: what a loss, a network and a setting must have for each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diffsearch.registry import dataset, loss, model
from diffsearch.space.axes import DIRECT_MEANS, axes_under, member_at, points
from diffsearch.space.conditions import default_of
from diffsearch.space.members import Draft
from diffsearch.space.settings import StudySpec

MOST_COMBINATIONS = 20_000
_LOSSES = "a loss that predicts x0, v or epsilon"


@dataclass(frozen=True, slots=True)
class _Need:
    """A setting that needs another one to be of some kind."""

    path: str
    asks: Callable[[Any], bool]  # whether a value of `path` needs anything
    on: str
    has: Callable[[Any], bool]  # whether a value of `on` will do
    why: str
    remedy: str = ""


def _estimates(name: str) -> bool:
    return loss.member(name).traits.get("predicts") not in DIRECT_MEANS


def _may_be_mirrored(name: str) -> bool:
    return not dataset.member(name).traits.get("written", False)


def _takes(given: str) -> Callable[[Any], bool]:
    return lambda kind: model.member(kind).takes(given)


def _is_not(idle: Any) -> Callable[[Any], bool]:
    return lambda value: value != idle


def _is(wanted: Any) -> Callable[[Any], bool]:
    return lambda value: value == wanted


_CONDITIONING, _VARIANCE, _LOSS = "training.conditioning", "training.learned_variance", "training.loss"
_NEEDS = (
    _Need(_CONDITIONING, _is_not("none"), "model.kind", _takes("classes"), "it takes no labels", "kind: unet"),
    _Need(_VARIANCE, bool, "model.kind", _takes("outputs"), "it has no output for a variance", "kind: unet"),
    _Need(_VARIANCE, bool, _LOSS, _estimates, "its bound needs an estimate of x_0", _LOSSES),
    _Need(_VARIANCE, bool, "diffusion.time", _is("discrete"), "its bound is one of steps", "time: discrete"),
    _Need("training.min_snr_gamma", _is_not(None), _LOSS, _estimates, "it weighs x0, v and epsilon", _LOSSES),
    _Need("diffusion.time", _is_not("discrete"), _LOSS, _estimates, "no step comes before a noise level", _LOSSES),
    _Need(
        "training.augmentation",
        lambda how: "flip" in how,
        "data.dataset",
        _may_be_mirrored,
        "a mirrored character is another one or none",
        "images that may be mirrored; crop or none for these",
    ),
    _Need("training.label_dropout", _is_not(0.1), _CONDITIONING, _is_not("none"), "no labels are told", "class"),
    _Need("training.learning_rate_floor", bool, "training.schedule", _is_not("constant"), "nothing falls", "cosine"),
)


def check_needs(spec: StudySpec, draft: Draft) -> None:
    """Note each setting with the first value of another that it can't go with."""
    for need in _NEEDS:
        if draft.problems.touch(need.path, need.on):
            continue
        for values in _combinations(spec, need.path, need.on):
            given, other = values[need.path], values[need.on]
            if need.asks(given) and not need.has(other):
                place = (
                    draft.settings[need.path].place_of(given) if need.path in draft.settings else draft.place(need.path)
                )
                message = f"{given} can't be combined with {need.on} {other}: {need.why}"
                draft.problems.add(place, need.path, message, f"needs {need.remedy}; in a search, give it a when")
                break


def _combinations(spec: StudySpec, *paths: str) -> Iterator[Mapping[str, Any]]:
    """Every combination of values that these paths take, defaults filled in and members by their names."""
    for point in itertools.islice(points(axes_under(spec, paths), spec.fixed), MOST_COMBINATIONS):
        values = {**spec.fixed, **point}
        found = {path: values[path] if path in values else default_of(path) for path in paths}
        if "model.kind" in found:
            found["model.kind"] = member_at(values, "model").name
        yield found
