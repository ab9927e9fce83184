"""What was read, put together: fixed values with defaults filled in, axes with their conditions, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffsearch.space.axes import default_track, points, sampling_point
from diffsearch.space.conditions import When, refuse_circles, resolve
from diffsearch.space.members import Draft, name_of
from diffsearch.space.metric_names import against_train
from diffsearch.space.quantities import COSTS
from diffsearch.space.schema import SECTIONS, TRAINING_SECTIONS, Evaluation, Finalists, Screen, Search, Study
from diffsearch.space.settings import (
    Axis,
    Budget,
    Choice,
    Choices,
    EvaluationSettings,
    FinalistSettings,
    Resources,
    SamplingPoint,
    ScreenSettings,
    SearchSettings,
    StudySpec,
)
from diffsearch.space.strategies import START
from diffsearch.space.values import Setting
from diffsearch.space.wishes import read_constraints, read_enqueued

_FINALIST_SAMPLING = "search.finalists."


def assemble(
    draft: Draft,
    *,
    source: Path | None,
    name: str,
    text: str,
    store: Path | None,
    precision: Callable[[], str],
    extensions: Mapping[str, str],
) -> StudySpec:
    """The study that the draft means; what is wrong in it is left at its default, its problem being noted already."""
    fixed, axes = _split(draft, TRAINING_SECTIONS)
    for auto in ("training.precision",):
        if fixed.get(auto) == "auto":
            fixed[auto] = precision()
        axes = [_resolved(axis, precision) if axis.path == auto else axis for axis in axes]
    sampling_fixed, sampling_axes = _split(draft, ("sampling",))
    sampling_at = sampling_fixed.pop("sampling.at")
    tracks = tuple(sorted(fixed["training.ema_half_life"]))
    fixed["training.ema_half_life"] = tracks
    if sampling_fixed.get("sampling.ema", 0) is None:
        sampling_fixed["sampling.ema"] = default_track(tracks)
    milestones = _value(draft, "training.epochs", SECTIONS["training"].model_fields["epochs"].default)
    written_store = _value(draft, "store", None)
    budget, resources = (
        {key: _value(draft, f"{section}.{key}", None) for key in SECTIONS[section].model_fields}
        for section in ("budget", "resources")
    )
    study = {key: _value(draft, key, info.default) for key, info in Study.model_fields.items()}
    evaluation = _evaluation(draft)
    search = replace(
        _search(draft, sampling_fixed, tracks),
        constraints=read_constraints(draft, evaluation.metrics),
        enqueue=read_enqueued(draft, axes, fixed),
        warm_start=tuple(_source(draft, each) for each in _value(draft, "search.warm_start", ())),
    )
    return StudySpec(
        name=study["name"] if "name" in draft.settings else name,
        seed=study["seed"],
        repeats=study["repeats"],
        fixed=fixed,
        axes=tuple(axes),
        milestones=milestones,
        sampling_fixed=sampling_fixed,
        sampling_axes=tuple(sampling_axes),
        evaluation=evaluation,
        search=search,
        budget=Budget(
            wall_s=budget["wall"],
            images=budget["images"],
            device_s=None if budget["device_hours"] is None else 3600 * budget["device_hours"],
            no_improvement=_value(draft, "budget.until.no_improvement", None),
        ),
        resources=Resources(cpu=resources["cpu"], gpu=resources["gpu"]),
        use=tuple((draft.folder / Path(file).expanduser()).resolve() for file in study["use"]),
        store=store if store is not None else draft.folder / written_store if written_store else None,
        keep=study["keep"],
        source=source,
        text=text,
        extensions=extensions,
        sampling_at=sampling_at,
    )


def _value(draft: Draft, path: str, default: Any) -> Any:
    return draft.settings[path].only if path in draft.settings else default


def _split(draft: Draft, sections: tuple[str, ...]) -> tuple[dict[str, Any], list[Axis]]:
    """Fixed values (defaults filled in) and axes of these sections, in file order."""
    fixed: dict[str, Any] = {
        f"{section}.{key}": info.default
        for section in sections
        for key, info in SECTIONS[section].model_fields.items()
        if not info.is_required() and key != "epochs"
    }
    axes: list[Axis] = []
    conditions: dict[str, When] = {}
    for path, setting in draft.settings.items():
        if path.partition(".")[0] not in sections or path == "training.epochs":
            continue
        when = resolve(setting, draft)
        if when is None:
            continue  # never exists: the default stands
        listed = isinstance(setting.domain, Choices)
        single = listed and len(setting.values) == 1 and not _is_list(setting)
        if not when and (not setting.varies or single):
            fixed[path] = setting.only
            continue
        fixed.pop(path, None)
        axes.append(Axis(path, setting.domain, when, setting.place.line))
        conditions[path] = when
    refuse_circles(axes, draft, conditions)
    return fixed, axes


def _source(draft: Draft, written: str) -> str:
    """A study's name as it is; a folder, which has a slash or begins with a dot, relative to the file."""
    path = Path(written).expanduser()
    is_folder = len(path.parts) > 1 or written.startswith(".")
    return str((draft.folder / path).resolve()) if is_folder else written


def _is_list(setting: Setting) -> bool:
    """Whether one value was written as a list of one, which is an axis of one value."""
    return setting.varies and setting.places[:1] != (setting.place,)


def _resolved(axis: Axis, precision: Callable[[], str]) -> Axis:
    if not isinstance(axis.domain, Choices):
        return axis
    values = (precision() if value == "auto" else value for value in axis.domain.values)
    return replace(axis, domain=Choices(tuple(dict.fromkeys(values))))


def _evaluation(draft: Draft) -> EvaluationSettings:
    values = {key: _value(draft, f"evaluation.{key}", info.default) for key, info in Evaluation.model_fields.items()}
    if values["reference"] == "train":
        values["objective"] = against_train(values["objective"])
        for several in ("metrics", "objectives"):
            values[several] = tuple(against_train(name) for name in values[several])
    scored = tuple(name for name in values["objectives"] if name not in COSTS) or (values["objective"],)
    values["objective"] = scored[0]
    beside = values["metrics"] or tuple(map(against_train, scored))  # a model that memorises wins only there
    values["metrics"] = tuple(dict.fromkeys((*scored, *beside)))
    values["screen"] = _screen(draft, values)
    return EvaluationSettings(**values)


def _screen(draft: Draft, full: Mapping[str, Any]) -> ScreenSettings | None:
    if "evaluation.screen" not in draft.places:
        return None
    values = {key: _value(draft, f"evaluation.screen.{key}", info.default) for key, info in Screen.model_fields.items()}
    objective = values["objective"] or full["objective"]
    if full["reference"] == "train":
        objective = against_train(objective)
    return ScreenSettings(objective, values["samples"] or 0, values["keep"])


def _search(draft: Draft, sampling_fixed: Mapping[str, Any], tracks: tuple[int, ...]) -> SearchSettings:
    values = {key: _value(draft, f"search.{key}", info.default) for key, info in Search.model_fields.items()}
    final = {
        key: _value(draft, f"search.finalists.{key}", info.default) for key, info in Finalists.model_fields.items()
    }
    swept: tuple[SamplingPoint, ...] = ()
    if any(path.startswith(f"{_FINALIST_SAMPLING}sampling.") for path in draft.settings):
        swept = _finalist_points(draft, sampling_fixed, tracks)
    algorithm, stopping = (
        value if isinstance(value, Choice) else Choice(value) for value in (values["algorithm"], values["stopping"])
    )
    return SearchSettings(
        algorithm=_with_start(algorithm, draft),
        runs=values["runs"],
        stopping=stopping,
        finalists=FinalistSettings(final["top"], final["repeats"], final["samples"] or 0, swept),
        give_up_after=values["give_up_after"],
    )


def _finalist_points(
    draft: Draft, sampling_fixed: Mapping[str, Any], tracks: tuple[int, ...]
) -> tuple[SamplingPoint, ...]:
    """The sweep of `search.finalists.sampling`; keys that it leaves out are as at milestones."""
    fixed: dict[str, Any] = {}
    axes: list[Axis] = []
    for path, setting in draft.settings.items():
        if not path.startswith(f"{_FINALIST_SAMPLING}sampling."):
            continue
        own = path.removeprefix(_FINALIST_SAMPLING)
        if any(not on.startswith(_FINALIST_SAMPLING) for on, _, _ in setting.when):
            message = "takes no when here: what a finalist can't be sampled with is left out for it"
            draft.problems.add(setting.place, path, message)
            continue
        when = tuple((on.removeprefix(_FINALIST_SAMPLING), tuple(node.plain)) for on, _, node in setting.when)
        if setting.varies:
            axes.append(Axis(own, setting.domain, when, setting.place.line))
        else:
            fixed[own] = setting.only
    if "sampling.sampler" not in fixed and not any(axis.path == "sampling.sampler" for axis in axes):
        fixed["sampling.sampler"] = name_of(sampling_fixed.get("sampling.sampler", "ancestral"))
    return tuple(dict.fromkeys(sampling_point({**fixed, **values}, tracks) for values in points(axes, fixed)))


def _with_start(algorithm: Choice, draft: Draft) -> Choice:
    """The algorithm with the values of its `start` read as the axes that they name read theirs.

    What isn't an axis is left for `check` to note.
    """
    start = algorithm.kwargs.get(START)
    if not isinstance(start, Mapping):
        return algorithm
    read: dict[str, Any] = {}
    for path, plain in start.items():
        values = draft.settings[path].values if path in draft.settings else ()
        if path == "training.epochs":
            values = draft.settings[path].only if path in draft.settings else ()
        matching = [value for value in values if value == plain or (isinstance(value, Choice) and value.name == plain)]
        listed = tuple(plain) if isinstance(plain, list) else plain
        matching += [value for value in values if value == listed]
        read[path] = matching[0] if matching else listed
    return Choice.of(algorithm.name, **{**algorithm.kwargs, START: read})
