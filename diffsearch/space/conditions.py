"""`when`: which values of which other keys an axis needs to exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from diffsearch.registry import suggest
from diffsearch.space.lines import Node, Place
from diffsearch.space.members import Draft, name_of
from diffsearch.space.schema import TRAINING_SECTIONS
from diffsearch.space.settings import Axis, Choice, Choices
from diffsearch.space.values import Kind, Setting

When: TypeAlias = "tuple[tuple[str, tuple[Any, ...]], ...]"


def resolve(setting: Setting, draft: Draft) -> When | None:
    """The conditions that depend on other axes; None where one can never hold, so that the default stands.

    A condition on a key of one value is settled here. Notes paths and values that don't exist.
    """
    resolved: list[tuple[str, tuple[Any, ...]]] = []
    possible = True
    for path, place, node in setting.when:
        kind = _target(setting, path, place, draft)
        if kind is None:
            continue
        wanted = _wanted(node, path, kind, setting.path, draft)
        target = draft.settings.get(path)
        if target is None:
            possible &= draft.problems.touch(path) or default_of(path) in wanted
        elif not isinstance(target.domain, Choices):
            draft.problems.add(place, setting.path, f"can't depend on {path}: that is a range")
        elif not target.varies:
            possible &= any(_meets(target.only, value) for value in wanted)
        else:
            reachable = tuple(value for value in wanted if any(_meets(one, value) for one in target.values))
            resolved.append((path, reachable))
            possible &= bool(reachable)
    return tuple(resolved) if possible else None


def _target(setting: Setting, path: str, place: Place, draft: Draft) -> Kind | None:
    """The type of the key that a condition names; None where it can't be depended on."""
    section = path.partition(".")[0]
    if path == setting.path or path not in draft.kinds or section not in (*TRAINING_SECTIONS, "sampling"):
        help = suggest(path, draft.kinds).partition(".   ")[2] if path != setting.path else ""
        draft.problems.add(place, setting.path, f"when names '{path}', which it can't depend on", help)
        return None
    if section == "sampling" and not setting.path.startswith("sampling."):
        draft.problems.add(place, setting.path, f"can't depend on {path}: sampling comes after training")
        return None
    if path == "training.epochs":
        draft.problems.add(place, setting.path, "can't depend on training.epochs: those are points along one run")
        return None
    return draft.kinds[path]


def _wanted(node: Node, path: str, kind: Kind, of: str, draft: Draft) -> tuple[Any, ...]:
    """One value, or a list of them."""
    value, issues = kind.read(node)
    if not issues:
        return (value,)
    found = [(value, issues)] if node.items is None else [kind.read(item) for item in node.items]
    for _, wrong in found:
        for place, message, help in wrong:
            draft.problems.add(place, of, f"when {path}: {message}", help)
    return tuple(value for value, wrong in found if not wrong)


def _meets(value: Any, wanted: Any) -> bool:
    """As `Axis.exists` compares them."""
    return bool(value == wanted) or (isinstance(value, Choice) and value.name == name_of(wanted))


def default_of(path: str) -> Any:
    """What holds where the file gives a key no value; None for options, whose default is their member's."""
    from diffsearch.space.schema import SECTIONS

    section, _, key = path.partition(".")
    fields = SECTIONS[section].model_fields if section in SECTIONS else {}
    return fields[key].get_default() if key in fields and not fields[key].is_required() else None


def in_order(axes: Sequence[Axis]) -> Iterator[Axis]:
    """The axes, each after those that its existence depends on, in file order otherwise; stops at a circle."""
    pending = list(axes)
    while pending:
        open_paths = {axis.path for axis in pending}
        ready = [axis for axis in pending if not any(path in open_paths for path, _ in axis.when)]
        if not ready:
            return
        yield ready[0]
        pending.remove(ready[0])


def refuse_circles(axes: Sequence[Axis], draft: Draft, conditions: Mapping[str, When]) -> None:
    """Notes every axis whose conditions lead back to itself."""
    settled = {axis.path for axis in in_order(axes)}
    for axis in axes:
        if axis.path not in settled:
            through = ", ".join(path for path, _ in conditions[axis.path])
            draft.problems.add(draft.place(axis.path), axis.path, f"when leads back to itself through {through}")
