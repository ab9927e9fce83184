"""What a search hears of an evaluation: its objectives, lower being better, and by how much it breaks constraints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffsearch.records import EpochRecord, Evaluation
from diffsearch.search import pareto
from diffsearch.space.quantities import direction
from diffsearch.space.settings import Constraint


@dataclass(frozen=True, slots=True)
class Earned:
    """One evaluation of a run: what is ranked, and what a front is made of."""

    epoch: int
    sampling: str  # its sampling point, in words
    values: tuple[float, ...]  # an entry an objective, lower is better
    violations: tuple[float, ...] = ()  # an entry a constraint, as a share of its bound; > 0 where it's broken

    @property
    def feasible(self) -> bool:
        return all(violation <= 0 for violation in self.violations)

    @property
    def violation(self) -> float:
        """Of all constraints together; 0 where it is feasible."""
        return sum(violation for violation in self.violations if violation > 0)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Earned:
        return cls(plain["epoch"], plain["sampling"], tuple(plain["values"]), tuple(plain["violations"]))


def best_by_epoch(run: Iterable[Earned]) -> dict[int, float]:
    """The best first objective of what is feasible, by epoch, ascending; {} where nothing is."""
    best: dict[int, float] = {}
    for earned in run:
        if earned.feasible:
            best[earned.epoch] = min(earned.values[0], best.get(earned.epoch, earned.values[0]))
    return {epoch: best[epoch] for epoch in sorted(best)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a sampler is told of a run, where it is told more than one score."""

    values: tuple[float, ...]  # an entry an objective, lower is better
    constraints: Mapping[str, float]  # constraint → by how much it is broken; 0 or less where it holds


@dataclass(frozen=True)
class Judge:
    """A study's objectives and constraints, as they judge evaluations.

    Args:
        objectives: names of metrics and costs, at least one.
    """

    objectives: tuple[str, ...]
    constraints: tuple[Constraint, ...] = ()

    @cached_property
    def signs(self) -> tuple[float, ...]:
        """1 where a lower objective is better, else -1."""
        return tuple(1.0 if direction(name) == "min" else -1.0 for name in self.objectives)

    @property
    def several(self) -> bool:
        return len(self.objectives) > 1

    @property
    def is_plain(self) -> bool:
        """One objective and no constraint: a score says it all."""
        return not self.several and not self.constraints

    def reads(self, quantity: str) -> bool:
        return quantity in self.objectives or any(quantity == each.quantity for each in self.constraints)

    def earned(self, sheet: Evaluation, epochs: Sequence[EpochRecord], parameters: int | None) -> Earned | None:
        """What an evaluation earned; None where an objective of it isn't known. What isn't known breaks its bound.

        Args:
            epochs: of its run, at least up to its own.
            parameters: of its run's network.
        """
        values = [measured(name, sheet, epochs, parameters) for name in self.objectives]
        kept = [measured(each.quantity, sheet, epochs, parameters) for each in self.constraints]
        if any(value is None for value in values):
            return None
        return Earned(
            sheet.epoch,
            str(sheet.sampling),
            tuple(sign * value for sign, value in zip(self.signs, values, strict=True) if value is not None),
            tuple(1.0 if v is None else c.violation(v) for c, v in zip(self.constraints, kept, strict=True)),
        )

    def verdict(self, run: Sequence[Earned], known: Iterable[Earned]) -> Verdict | None:
        """What stands for a run's evaluations; None where there are none.

        With one objective it is the best of those that are feasible; with several the one that `pareto.telling` finds
        among them. Where none is feasible it is the one that is least infeasible: its values rank nowhere, and samplers
        that know constraints learn from them which way to go.

        Args:
            known: evaluations of other runs.
        """
        feasible = [earned for earned in run if earned.feasible]
        if not run:
            return None
        if not feasible:
            chosen = min(run, key=lambda earned: (earned.violation, earned.values))
        elif not self.several:
            chosen = min(feasible, key=lambda earned: earned.values)
        else:
            others = [earned.values for earned in known if earned.feasible]
            own = pareto.array([earned.values for earned in feasible])
            chosen = feasible[pareto.telling(own, pareto.array(others, columns=len(self.objectives)))]
        return Verdict(chosen.values, dict(zip(map(str, self.constraints), chosen.violations, strict=True)))

    def broken(self, sheet: Evaluation, epochs: Sequence[EpochRecord], parameters: int | None) -> str:
        """`peak_memory_mb 9120 breaks peak_memory_mb < 8000`: the first broken constraint; "" where all hold."""
        for constraint in self.constraints:
            value = measured(constraint.quantity, sheet, epochs, parameters)
            if value is not None and not constraint.holds(value):
                return breaks(constraint, value)
        return ""


def breaks(constraint: Constraint, value: float) -> str:
    return f"{constraint.quantity} {value:.6g} breaks {constraint}"


def measured(
    name: str, sheet: Evaluation, epochs: Sequence[EpochRecord], parameters: int | None = None
) -> float | None:
    """A metric or a cost of an evaluation, as it was measured; None where it wasn't."""
    until = [record for record in epochs if record.epoch <= sheet.epoch]
    match name:
        case "network_calls":
            return sheet.network_calls / sheet.samples
        case "parameters":
            return None if parameters is None else float(parameters)
        case "peak_memory_mb":
            return max((record.peak_memory_mb for record in until), default=None)
        case "training_images":
            return next((float(record.images_seen) for record in until if record.epoch == sheet.epoch), None)
    return sheet.scores[name].value if name in sheet.scores else None
