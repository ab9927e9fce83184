"""What to try next where objectives are traded off: what holds however they are weighed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffsearch.records import StudyHistory
from diffsearch.report import phrases
from diffsearch.report.axes import show_value
from diffsearch.report.extend import between
from diffsearch.report.importance import importances
from diffsearch.report.next_region import Region, region
from diffsearch.report.next_rules import Evidence, Finding, edges, fixed, milestones
from diffsearch.report.ranks import Member, Winner, members, point_key, sign, winner
from diffsearch.report.surrogate import value_of
from diffsearch.scoring.statistics import summarise
from diffsearch.search import pareto
from diffsearch.search.earned import Judge
from diffsearch.space.settings import Axis, Choices, Domain, Point, StudySpec

HEAVY = 3.0  # of an objective that counts more than the others, which count 1
SLIGHT = 0.05  # of the sum of all objectives beside the worst of them, as in ParEGO


@dataclass(frozen=True)
class Front:
    """What is known when a study of several objectives is over.

    Args:
        history: its search.
        knee: what stands for the study.
        views: the study as one objective, once for each way to weigh them; the first weighs all alike.
        found: its evaluations on the front, by the first objective.
    """

    history: StudyHistory
    knee: Winner
    views: tuple[Evidence, ...]
    found: tuple[Member, ...]

    @classmethod
    def of(cls, history: StudyHistory, spec: StudySpec) -> Front | None:
        """None where nothing may be compared."""
        every, knee = members(history), winner(history)
        if not every or knee is None:
            return None
        views = [
            Evidence(view, spec, won, importances(view)) for view in weighed(history, every) if (won := winner(view))
        ]
        return cls(history, knee, tuple(views), tuple(m for m in every if m.rank == 0))

    @property
    def points(self) -> list[Point]:
        """Of the front, each once, typed as the space has them."""
        points = {point_key(member.run): member.run.point for member in self.found}
        return [{path: value_of(value) for path, value in point.items()} for point in points.values()]

    def regions(self) -> list[Region]:
        """Where improvement is expected, under each way to weigh the objectives."""
        return [region(view) for view in self.views]

    def fixed(self) -> list[Finding]:
        """Axes that matter no longer however the objectives are weighed, at the knee's value."""
        idle = [{finding.path for finding in fixed(view)} for view in self.views]
        everywhere = set.intersection(*idle)
        return [
            replace(finding, why=f"{finding.why.rstrip('.')}, nor with the objectives weighed otherwise.")
            for finding in fixed(replace(self.views[0], won=self.knee), "the knee's")
            if finding.path in everywhere
        ]

    def narrowed(self, regions: Sequence[Region]) -> list[Finding]:
        """What no way to weigh the objectives finds promising is left out; what the front holds is kept."""
        axes = {axis.path: axis for axis in self.views[0].spec.axes}
        found = []
        for path, axis in axes.items():
            inside = [finding for each in regions for finding in each.findings if finding.path == path]
            if len(inside) == len(self.views):
                kept = self._union(axis, [finding.value for finding in inside])
                if kept != axis.domain:
                    found.append(Finding(path, kept, _why(axis, kept, inside[0].why, len(self.views))))
        return found

    def _union(self, axis: Axis, parts: Sequence[Any]) -> Domain:
        """What any of the parts holds, and the front's own values."""
        held = [point[axis.path] for point in self.points if axis.path in point]
        if isinstance(axis.domain, Choices):
            return Choices(tuple(v for v in axis.domain.values if v in held or any(v in part.values for part in parts)))
        low = min([*(part.low for part in parts), *held])
        return between(axis.domain, low, max([*(part.high for part in parts), *held]))

    def edges(self) -> list[Finding]:
        """Axes whose best value is the outermost under one way to weigh the objectives or another: each step once."""
        return list(
            {(edge.path, str(edge.value)): edge for view in reversed(self.views) for edge in edges(view)}.values()
        )

    def milestones(self) -> Finding | None:
        """One more, where the front's best in the first metric still gets better."""
        name = self.history.objective
        best = min(self.found, key=lambda member: sign(self.history) * member.sheet.scores[name].value)
        value = best.sheet.scores[name].value
        won = replace(self.views[0].won, run=best.run, sheet=best.sheet, summary=summarise([value]))
        return milestones(replace(self.views[0], history=replace(self.history, objectives=()), won=won))


def weighed(history: StudyHistory, every: Sequence[Member]) -> list[StudyHistory]:
    """The study as one objective, once for each way to weigh them: all alike, and each in turn HEAVY times the others.

    The score of an evaluation is then Chebyshev's distance from the corner of each objective's best, on the axes of a
    figure, and SLIGHT times the sum of distances (Knowles 2006, ParEGO). Evaluations that may not be compared, and the
    finalists', have none.
    """
    count = len(history.objectives)
    values = pareto.array([member.values for member in every], columns=count) * np.array(
        Judge(history.objectives).signs
    )
    places = pareto.on_axes(values)
    alike = np.ones(count)
    ways = [alike, *(np.where(np.arange(count) == one, HEAVY, 1.0) for one in range(count))]
    return [_view(history, every, _chebyshev(places, way / way.sum())) for way in ways]


def _chebyshev(places: Any, weights: Any) -> list[float]:
    far = places * weights
    return (far.max(axis=1) + SLIGHT * far.sum(axis=1)).tolist()  # type: ignore[no-any-return]


def _view(history: StudyHistory, every: Sequence[Member], scores: Sequence[float]) -> StudyHistory:
    name = history.objective
    new = {
        member.sheet.key: replace(member.sheet, scores={name: replace(member.sheet.scores[name], value=score)})
        for member, score in zip(every, scores, strict=True)
    }
    runs = tuple(
        replace(run, evaluations=tuple(new[sheet.key] for sheet in run.evaluations if sheet.key in new))
        for run in history.runs
        if run.stage == "search"
    )
    return replace(history, runs=runs, objectives=(), constraints=(), direction="min", metrics=(name,))


def _why(axis: Axis, kept: Domain, inner: str, ways: int) -> str:
    """What is left out, and the reason that the axis matters, which ends the finding's own."""
    reason = inner.rpartition(". ")[2]
    if isinstance(axis.domain, Choices):
        assert isinstance(kept, Choices)
        gone = phrases.listing([show_value(value) for value in axis.domain.values if value not in kept.values])
        return f"{axis.name}: left out {gone}, not promising under any of {ways} ways to weigh the objectives. {reason}"
    return f"{axis.name}: what is promising under one of {ways} ways to weigh the objectives or more. {reason}"
