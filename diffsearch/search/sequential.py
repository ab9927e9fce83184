"""The coordinate search of the student reports: tune one axis after the other, keeping each winner.

It is a pure function of what is known: asked again after a kill, it goes on where it stood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffsearch.errors import DiffsearchError
from diffsearch.registry import algorithm, suggest
from diffsearch.space.settings import Axis, Choices, Point, canonical

EPOCHS = "training.epochs"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point that a search wants to know, trained for so many epochs (None: to the last milestone)."""

    point: Point
    epochs: int | None = None

    @property
    def identity(self) -> str:
        return canonical({"point": dict(self.point), "epochs": self.epochs})


Known = Mapping[str, Mapping[int, float] | None]  # Proposal.identity → score by epoch, lower is better; None: failed


@dataclass(frozen=True, slots=True)
class Sequential:
    """Coordinate search over finite axes and the milestones.

    Args:
        axes: in file order; each a list of values.
        order: paths in the order in which they are tuned; `training.epochs` may stand among them.
        start: value of each axis before it is tuned.
        start_epochs: epochs that each run trains for until the epochs are tuned.
        milestones: the values of the epochs axis, read off one run.
        cost: of a point, to break ties towards the cheaper.
        later_epochs: epochs that each run trains for once the epochs are tuned; None: the best of the milestones.
    """

    axes: tuple[Axis, ...]
    order: tuple[str, ...]
    start: Mapping[str, Any]
    start_epochs: int
    milestones: tuple[int, ...]
    cost: Callable[[Point], float]
    later_epochs: int | None = None

    def wanted(self, known: Known) -> list[Proposal]:
        """The proposals to answer next, all values of one axis side by side; [] when the last axis is settled."""
        tables = self.tables(known)
        return [proposal for _, rows in tables[-1:] for proposal in rows if proposal.identity not in known]

    def tables(self, known: Known) -> list[tuple[str, list[Proposal]]]:
        """(path, its values side by side) of each axis in turn, up to the first of which something isn't known.

        The epochs are one proposal: all of them are read off one run.
        """
        values, epochs = dict(self.start), self.start_epochs
        found: list[tuple[str, list[Proposal]]] = []
        for path in self.order:
            if path == EPOCHS:
                rows = [Proposal(self._existing(values), self.milestones[-1])]
            else:
                rows = self._side_by_side(path, values, epochs)
            found.append((path, rows))
            if any(proposal.identity not in known for proposal in rows):
                break
            if path == EPOCHS:
                curve = known[rows[0].identity] or {}
                epochs = self.later_epochs or min(curve, key=lambda epoch: (curve[epoch], epoch), default=epochs)
            elif rows:
                best = min(rows, key=lambda proposal: (_score(known, proposal, epochs), self.cost(proposal.point)))
                if _score(known, best, epochs) < math.inf:
                    values.update(best.point)
        return found

    def _side_by_side(self, path: str, values: Mapping[str, Any], epochs: int) -> list[Proposal]:
        axis = next(axis for axis in self.axes if axis.path == path)
        if path not in self._existing(values) or not isinstance(axis.domain, Choices):
            return []
        return [Proposal(self._existing({**values, path: value}), epochs) for value in axis.domain.values]

    def _existing(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {axis.path: values[axis.path] for axis in self.axes if axis.exists(values)}


def _score(known: Known, proposal: Proposal, epochs: int) -> float:
    curve = known[proposal.identity]
    return math.inf if curve is None else curve.get(epochs, math.inf)


@algorithm.register("sequential", finite=True)
def sequential(
    axes: Sequence[Axis],
    milestones: Sequence[int],
    fixed: Mapping[str, Any],
    cost: Callable[[Point], float],
    *,
    order: tuple[str, ...] | None = None,
    start: Mapping[str, Any] | None = None,
    later_epochs: int | None = None,
) -> Sequential:
    """Report 002's protocol.

    Args:
        order: paths of the axes (and `training.epochs`) as they are to be tuned; file order, epochs last, by default.
        start: path → value before tuning; the first value of each axis, and the last milestone, by default.
        later_epochs: a milestone to go on with once the epochs are tuned, whatever the curve says, as the report did
            ("the best trade-off between performance and speed"); None: the best one.

    Raises:
        DiffsearchError: a range where a list is needed, or a path or value that the space doesn't have.
    """
    domains: dict[str, tuple[Any, ...]] = {}
    for axis in axes:
        if not isinstance(axis.domain, Choices):
            raise DiffsearchError(f"sequential: {axis.path} is a range; write a list of values")
        domains[axis.path] = axis.domain.values
    known = {**domains, EPOCHS: tuple(milestones)}
    order = order or (*domains, EPOCHS)
    for path in (*order, *(start or {})):
        if path not in known:
            raise DiffsearchError(f"sequential: no axis '{path}'. {suggest(path, known)}")
    if missing := set(domains) - set(order):
        raise DiffsearchError(f"sequential: `order` leaves out {', '.join(sorted(missing))}")
    begin = {**{path: values[0] for path, values in domains.items()}, EPOCHS: milestones[-1], **(start or {})}
    for path, value in begin.items():
        if value not in known[path]:
            raise DiffsearchError(f"sequential: start of {path} is {value!r}, which the axis doesn't have")
    if later_epochs is not None and later_epochs not in milestones:
        raise DiffsearchError(f"sequential: later_epochs is {later_epochs}, which is no milestone")
    epochs = begin.pop(EPOCHS)
    return Sequential(tuple(axes), tuple(order), {**fixed, **begin}, epochs, tuple(milestones), cost, later_epochs)
