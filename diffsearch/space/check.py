"""Checks across keys, before anything is trained: every choice is built once, every combination is possible.

Each check names the keys that it reads and is skipped where one of them is wrong already.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from diffsearch.errors import DiffsearchError
from diffsearch.registry import algorithm, dataset, model, noise_process, stopping_rule, suggest
from diffsearch.space.axes import axes_under, grid_size, member_at, points, values_of
from diffsearch.space.check_sampling import check_at, check_combinations, check_guidance, check_tracks
from diffsearch.space.check_scoring import check_metrics, check_screen
from diffsearch.space.check_training import check_needs
from diffsearch.space.conditions import default_of
from diffsearch.space.members import Draft
from diffsearch.space.settings import Choices, StudySpec, show
from diffsearch.space.strategies import START

MOST_BUILDS = 400  # combinations of model options, or of process and steps, that are built when a file is loaded
GUESSES = ((1, 28, 28), (3, 32, 32))  # image shapes to try where the data set's isn't known before it is read
_BUILD_ERRORS = (DiffsearchError, ValueError, TypeError, RuntimeError, ArithmeticError, LookupError)
_NO_SIGNAL = 1e-12  # alpha_bar below this is zero but for rounding


def check(spec: StudySpec, draft: Draft) -> None:
    """Note every problem that shows only where keys meet."""
    checks: tuple[tuple[Callable[[StudySpec, Draft], None], tuple[str, ...]], ...] = (
        (_check_processes, ("diffusion",)),
        (_check_models, ("data", "model", "diffusion.steps")),
        (check_needs, ()),
        (_check_stopping, ("search.stopping", "training.epochs")),
        (_check_wishes, ("search.algorithm", "search.warm_start")),
        (_check_algorithm, ("search.algorithm", "model", "diffusion", "training")),
        (_check_runs, ("search.runs", "search.finalists.top", "model", "diffusion", "training", "budget")),
        (check_tracks, ("sampling.ema", "training.ema_half_life", "search.finalists.sampling")),
        (check_guidance, ("sampling", "search.finalists.sampling")),
        (check_combinations, ("sampling", "training.loss", "diffusion.steps", "search.finalists.sampling")),
        (
            check_at,
            ("sampling.at", "search.algorithm", "search.finalists.top", "training.epochs", "evaluation.objectives"),
        ),
        (check_metrics, ("evaluation", "data", "search.finalists.samples")),
        (check_screen, ("evaluation", "data")),
    )
    touched = [draft.problems.touch(*needs) for _, needs in checks]
    for (run, _), skip in zip(checks, touched, strict=True):
        if not skip:
            run(spec, draft)


def _check_processes(spec: StudySpec, draft: Draft) -> None:
    failed: set[str] = set()
    seen: set[Any] = set()
    axes = axes_under(spec, ["diffusion"])
    for point in itertools.islice(points(axes, spec.fixed), 100 * MOST_BUILDS):
        values: dict[str, Any] = {**spec.fixed, **point}
        choice, steps = member_at(values, "diffusion"), values.get("diffusion.steps", default_of("diffusion.steps"))
        skips = values.get("diffusion.terminal") == "skip"
        if (choice, steps, skips) in seen or len(seen) > MOST_BUILDS:
            continue
        seen.add((choice, steps, skips))
        try:
            alpha_bar = noise_process.build(choice.name, steps, **choice.kwargs)
            if skips and steps == 1 and float(alpha_bar[-1]) < _NO_SIGNAL:
                message = "skip leaves nothing to train where diffusion.steps is 1"
                _note(failed, message, draft, "diffusion.terminal", "skip", "use data-mean or clamp, or more steps")
        except _BUILD_ERRORS as error:
            path = _named(str(error), "diffusion", values) or "diffusion.noise_process"
            message = f"{choice} can't be built with {steps} steps: {_one_line(error)}"
            _note(failed, message, draft, path, values.get(path))


def _check_models(spec: StudySpec, draft: Draft) -> None:
    """Every combination of the model's options, once, on the meta device: it has shapes, but no weights."""
    steps = max(values_of(spec, "diffusion.steps"))
    continuous = "continuous" in values_of(spec, "diffusion.time")
    axes = axes_under(spec, ["model"])
    outcomes: dict[Any, str | None] = {}
    failing: dict[str, tuple[Mapping[str, Any], str]] = {}  # reason → the first point that it stops, and the message
    passing: list[Mapping[str, Any]] = []
    for point in itertools.islice(points(axes, spec.fixed), 100 * MOST_BUILDS):
        choice = member_at({**spec.fixed, **point}, "model")
        if choice not in outcomes:
            if len(outcomes) >= MOST_BUILDS:
                continue
            outcomes[choice] = _build_anywhere(choice.name, choice.kwargs, steps, image_shapes(spec), continuous)
        reason = outcomes[choice]
        if reason is None:
            passing.append(point)
        else:
            failing.setdefault(reason, (point, f"{choice} can't be built: {reason}"))
    noted: set[str] = set()
    for bad, message in failing.values():
        everything = {**spec.fixed, **bad}
        never = [p for p in bad if p.startswith("model.") and all(good.get(p) != bad[p] for good in passing)]
        options = [path for path in never if path != "model.kind"]
        path = _named(message.partition(": ")[2], "model", everything) or (options or never or ["model.kind"])[0]
        _note(noted, message, draft, path, everything.get(path))


def _build_anywhere(
    name: str, options: Mapping[str, Any], steps: int, shapes: Iterable[tuple[int, int, int]], continuous: bool
) -> str | None:
    """None if the model can be built for any of the shapes, and told a step between two if need be; else why not."""
    reason = None
    for shape in shapes:
        try:
            with torch.device("meta"):
                network = model.build(name, shape, steps, **options)
                if continuous:
                    network(torch.empty(2, *shape), torch.full((2,), 0.5))
        except _BUILD_ERRORS as error:
            reason = _one_line(error)
        else:
            return None
    return reason


def image_shapes(spec: StudySpec) -> tuple[tuple[int, int, int], ...]:
    """The data set's image shape if it is known without reading it, else shapes that it might have."""
    chosen = member_at(spec.fixed, "data")
    shape = dataset.member(chosen.name).traits.get("image_shape")
    size = chosen.kwargs.get("size")
    if isinstance(size, int):
        return tuple((channels, size, size) for channels in ((shape[0],) if shape else (1, 3)))
    return (tuple(shape),) if shape else GUESSES


def _check_stopping(spec: StudySpec, draft: Draft) -> None:
    rule = spec.search.stopping
    ours = rule.name in stopping_rule
    if ours:
        try:
            stopping_rule.build(rule.name, **rule.kwargs)
        except _BUILD_ERRORS as error:
            draft.problems.add(draft.place("search.stopping"), "search.stopping", _one_line(error))
            return
    needs = stopping_rule.member(rule.name).traits.get("needs_milestones", rule.name != "none") if ours else True
    if needs and len(spec.milestones) < 2:
        help = "give training.epochs at least two milestones, e.g. [1, 3, 9], or take stopping: none"
        message = f"{rule.name} compares runs before their end, but training.epochs has one milestone"
        draft.problems.add(draft.place("search.stopping"), "search.stopping", message, help)


def _check_algorithm(spec: StudySpec, draft: Draft) -> None:
    choice, path = spec.search.algorithm, "search.algorithm"
    if choice.name not in algorithm:
        return
    if algorithm.member(choice.name).traits.get("finite"):
        for axis in spec.axes:
            if not isinstance(axis.domain, Choices):
                message = f"{choice.name} goes through lists of values, and this is a range"
                draft.problems.add(draft.place(axis.path), axis.path, message, "write a list of values")
    else:
        _check_options(spec, draft)
    domains = {axis.path: axis.domain.values for axis in spec.axes if isinstance(axis.domain, Choices)}
    known = {**domains, "training.epochs": spec.milestones}
    start = choice.kwargs.get(START) or {}
    if not isinstance(start, Mapping):
        draft.problems.add(draft.place(path), path, "start takes a mapping, e.g. {training.batch_size: 64}")
        return
    for at, value in start.items():
        if at not in known:
            draft.problems.add(draft.place(path), path, f"start names '{at}', which is no axis", suggest(at, known))
        elif value not in known[at]:
            help = f"its values: {', '.join(show(each) for each in known[at])}"
            draft.problems.add(draft.place(path), path, f"start has {at} {show(value)}, which the axis hasn't", help)
    order = choice.kwargs.get("order") or ()
    for at in order:
        if at not in known:
            draft.problems.add(draft.place(path), path, f"order names '{at}', which is no axis", suggest(at, known))
    later = choice.kwargs.get("later_epochs")
    if later is not None and later not in spec.milestones:
        help = f"its values: {', '.join(map(str, spec.milestones))}"
        draft.problems.add(draft.place(path), path, f"later_epochs is {later}, which training.epochs hasn't", help)
    left_out = [at for at in domains if order and at not in order]
    if left_out:
        draft.problems.add(draft.place(path), path, f"order leaves out {', '.join(left_out)}")


def _check_wishes(spec: StudySpec, draft: Draft) -> None:
    """Points to begin with, and history, need an algorithm that takes them; another store must be there."""
    search = spec.search
    if search.algorithm.name == "sequential":
        for key, given, help in (
            ("enqueue", search.enqueue, "say where it begins: algorithm: {name: sequential, start: {...}}"),
            ("warm_start", search.warm_start, "leave it out: what this store has is read in any case"),
        ):
            if given:
                message = "sequential asks for its own points, one axis after the other"
                draft.problems.add(draft.place(f"search.{key}"), f"search.{key}", message, help)
    for source in search.warm_start:
        if source == spec.name:
            message = f"{source} is this study itself, which remembers what it did in any case"
            draft.problems.add(draft.place("search.warm_start"), "search.warm_start", message)
        if Path(source).is_absolute() and not (Path(source) / "runs").is_dir():
            message, help = f"{source} is no store", "name a folder that holds runs, or a study of this store"
            draft.problems.add(draft.place("search.warm_start"), "search.warm_start", message, help)


def _check_options(spec: StudySpec, draft: Draft) -> None:
    """That a sampler of ours can be built with its options, and gets beyond its first, random generation."""
    choice, path = spec.search.algorithm, "search.algorithm"
    try:
        algorithm.build(choice.name, 0, spec.axes, **choice.kwargs)
    except _BUILD_ERRORS as error:
        draft.problems.add(draft.place(path), path, f"{choice.name}: {_one_line(error)}")
        return
    population = algorithm.member(choice.name).options().get("population_size")
    if population is not None and spec.search.runs is not None:
        size = choice.kwargs.get("population_size", population.default)
        if spec.search.runs <= size:
            message = f"{choice.name}'s first generation of {size} is random, and search.runs is {spec.search.runs}"
            help = f"e.g. {{name: {choice.name}, population_size: {max(2, spec.search.runs // 4)}}}"
            draft.problems.add(draft.place(path), path, message, help)


def _check_runs(spec: StudySpec, draft: Draft) -> None:
    size, runs, top = grid_size(spec), spec.search.runs, spec.search.finalists.top
    name = spec.search.algorithm.name
    endless = size is None and not (name in algorithm and algorithm.member(name).traits.get("finite"))
    if endless and runs is None and spec.budget.is_endless:
        message = "is needed where an axis is a range and there is no budget"
        draft.problems.add(draft.place("search"), "search.runs", message, "e.g. runs: 20")
    most = min((count for count in (size, runs) if count is not None), default=None)
    if most is not None and top > most:
        path = "search.finalists.top"
        draft.problems.add(draft.place(path), path, f"{top} finalists of {most} points that are tried")


def _named(message: str, section: str, values: Mapping[str, Any]) -> str | None:
    """The key of this section that a message speaks of first, by its full path."""
    named = [path for path in values if path.startswith(f"{section}.") and path in message]
    return min(named, key=message.index, default=None)


def _note(noted: set[str], message: str, draft: Draft, path: str, value: Any, help: str = "") -> None:
    """Note a problem at the value that brings it, once for each message."""
    if message not in noted:
        noted.add(message)
        place = draft.settings[path].place_of(value) if path in draft.settings else draft.place(path)
        draft.problems.add(place, path, message, help)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
