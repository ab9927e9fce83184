"""`search.constraints` and `search.enqueue`: what a study wishes for, read once its axes are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffsearch.registry import suggest
from diffsearch.space.axes import start_of, walk
from diffsearch.space.lines import Node
from diffsearch.space.members import Draft, name_of
from diffsearch.space.quantities import COSTS, help_for, parse_constraint
from diffsearch.space.settings import (
    Axis,
    Choice,
    Choices,
    Constraint,
    Integers,
    LogUniform,
    Point,
    Uniform,
    canonical,
    show,
)
from diffsearch.space.values import shown

CONSTRAINTS, ENQUEUE = "constraints", "enqueue"
_NOTHING = object()


def read_constraints(draft: Draft, metrics: Sequence[str]) -> tuple[Constraint, ...]:
    """Each `quantity < bound`, of a cost or of one of the metrics that the study computes."""
    path, read = f"search.{CONSTRAINTS}", []
    for node in _items(draft, path):
        constraint = parse_constraint(node.value) if isinstance(node.value, str) else None
        if constraint is None:
            message = f"should be a quantity and its bound, read {shown(node.plain)}"
            draft.problems.add(node.place, path, message, "e.g. peak_memory_mb < 8000, parameters < 2M")
        elif constraint.quantity not in COSTS and constraint.quantity not in metrics:
            message = f"unknown quantity '{constraint.quantity}'"
            draft.problems.add(node.place, path, message, help_for(constraint.quantity, metrics))
        elif constraint in read:
            draft.problems.add(node.place, path, f"{constraint} is given twice")
        else:
            read.append(constraint)
    return tuple(read)


def read_enqueued(draft: Draft, axes: Sequence[Axis], fixed: Mapping[str, Any]) -> tuple[Point, ...]:
    """Points of the space: an axis that one leaves out takes its first value, a range its middle.

    What isn't an axis may be repeated as the file has it, so that a report's settings can be copied whole.
    """
    path, points = f"search.{ENQUEUE}", {}
    for node in _items(draft, path):
        if node.mapping is None:
            message = f"should be a point, read {shown(node.plain)}"
            draft.problems.add(node.place, path, message, "e.g. {training.loss: x0-l2, training.batch_size: 64}")
            continue
        point = _point(node, path, draft, axes, fixed)
        if point is not None and canonical(dict(point)) in points:
            draft.problems.add(node.place, path, "this point is enqueued already")
        elif point is not None:
            points[canonical(dict(point))] = point
    return tuple(points.values())


def _items(draft: Draft, path: str) -> Iterator[Node]:
    """What was written, one or several."""
    node = draft.wishes.get(path)
    if node is not None and node.value is not None:
        yield from node.items if node.items is not None else (node,)


def _point(node: Node, path: str, draft: Draft, axes: Sequence[Axis], fixed: Mapping[str, Any]) -> Point | None:
    """One point; None where it is wrong, and its problems noted."""
    by_path, given, good = {axis.path: axis for axis in axes}, {}, True
    for key, inner in (node.mapping or {}).items():
        if key in by_path:
            value, message, help = _value(inner, by_path[key], draft)
            given[key] = value
        elif key == "training.epochs":
            message, help = "training.epochs are milestones, which every run passes", "leave it out"
        elif key in fixed:
            same = draft.kinds[key].read(inner)[0] in (fixed[key], name_of(fixed[key])) if key in draft.kinds else False
            message = "" if same else f"{key} is {show(fixed[key])} in this file, and no axis"
            help = "leave it out, or make it an axis"
        else:
            message, help = f"names '{key}', which is no axis", suggest(key, by_path)
        if message:
            draft.problems.add(inner.place if key in by_path or key in fixed else node.keys[key], path, message, help)
            good = False
    if not good:
        return None
    point = walk(axes, fixed, lambda axis: given[axis.path] if axis.path in given else start_of(axis))
    for key in given:
        if key not in point:
            where = " and ".join(f"{on} is {' or '.join(map(show, values))}" for on, values in by_path[key].when)
            draft.problems.add(node.keys[key], path, f"{key} doesn't exist here: only where {where}", "leave it out")
            good = False
    return point if good else None


def _value(node: Node, axis: Axis, draft: Draft) -> tuple[Any, str, str]:
    """A value of an axis, and what is wrong with it and what would do: "" where nothing is."""
    read, issues = draft.kinds[axis.path].read(node)
    if issues:
        return None, f"{axis.path} {issues[0][1]}", issues[0][2]
    match axis.domain:
        case Choices(values):
            found = next((value for value in values if _meets(value, read)), _NOTHING)
            help = f"its values: {', '.join(map(show, values))}"
            message = f"{axis.path} {show(read)} is none of the axis' values" if found is _NOTHING else ""
            return found, message, help
        case Uniform(low, high) | LogUniform(low, high) | Integers(low, high):
            number = isinstance(read, int | float) and not isinstance(read, bool)
            inside = number and low <= read <= high
            message = "" if inside else f"{axis.path} {show(read)} lies outside of the axis' range"
            found = (int(read) if isinstance(axis.domain, Integers) else float(read)) if inside else None
            return found, message, f"from {show(low)} to {show(high)}"


def _meets(value: Any, read: Any) -> bool:
    """The same value, 1 being no True; or a choice of that name, whatever its options."""
    same = bool(value == read) and isinstance(value, bool) == isinstance(read, bool)
    return same or (isinstance(value, Choice) and value.name == read)
