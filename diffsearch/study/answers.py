"""What a search knows of the points that it asked for: what they scored, which are best, and which lie on the front.

Points go by the identity of their proposal. Scores are lower-is-better here; a failure has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from diffsearch.search import pareto
from diffsearch.search.earned import Earned, Verdict
from diffsearch.search.sequential import EPOCHS, Proposal
from diffsearch.space.settings import Point, canonical
from diffsearch.study.ledger import Asked
from diffsearch.study.requests import Requests


class Answers:
    """The answers to one study's search.

    Args:
        requests: what the study asks for; with its ledger and the judge of its evaluations.
        at_epochs: whether a proposal is a point at one epoch, as in a coordinate search.
    """

    def __init__(self, requests: Requests, at_epochs: bool) -> None:
        self._requests, self._at_epochs = requests, at_epochs
        self.scores: dict[str, dict[int, float] | None] = {}  # identity → by epoch; None: failed, or refused
        self.evaluations: dict[str, tuple[Earned, ...]] = {}  # identity → all, where a score doesn't say it all
        self.without = 0  # runs compared since the last that was better than all before it
        self._best = math.inf
        self._seen: list[tuple[float, ...]] = []  # every feasible evaluation that was compared, of several objectives

    def __contains__(self, identity: str) -> bool:
        return identity in self.scores

    def add(self, identity: str, scores: dict[int, float] | None, evaluations: tuple[Earned, ...] = ()) -> None:
        """A point was answered: its best score by epoch, and all evaluations where that doesn't say it all."""
        self.scores[identity] = scores or None
        if evaluations:
            self.evaluations[identity] = evaluations

    def compare(self, identity: str, is_run: bool = True) -> None:
        """Whether a point is better than all that were compared before, or joins their front; a failed one isn't.

        Args:
            is_run: False for what costs no run of this search: others must be better, but nobody waited for it.
        """
        best = min((self.scores[identity] or {}).values(), default=math.inf)
        better = best < self._best
        if self._requests.judge.several:
            own = [earned.values for earned in self.evaluations.get(identity, ()) if earned.feasible]
            better = any(not any(_at_most(before, values) for before in self._seen) for values in own)
            self._seen += own
        if is_run:
            self.without = 0 if better else self.without + 1
        self._best = min(self._best, best)

    def verdict(self, identity: str) -> Verdict | None:
        """What the sampler is told of a point beside all others, where a score doesn't say it all."""
        others = (earned for other, run in self.evaluations.items() if other != identity for earned in run)
        return self._requests.judge.verdict(self.evaluations.get(identity, ()), others)

    def best(self, top: int) -> list[tuple[Point, int]]:
        """(point, epoch) of the best evaluations of distinct points, best first; failures have none."""
        best: list[tuple[float, int, Point]] = []
        for number, asked in enumerate(self._requests.ledger.of(self._requests.asks)):
            curve = self.scores.get(self._identity(asked)) if asked.stage == "search" else None
            if curve:
                score, epoch = min((score, epoch) for epoch, score in curve.items())
                best.append((score, number, {**asked.point, EPOCHS: epoch}))
        distinct: dict[str, tuple[Point, int]] = {}
        for _, _, point in sorted(best, key=lambda entry: entry[:2]):
            bare = {path: value for path, value in point.items() if path != EPOCHS}
            distinct.setdefault(canonical(bare), (bare, point[EPOCHS]))
        return list(distinct.values())[:top]

    def front(self, top: int) -> list[tuple[Point, tuple[int, ...], tuple[str, ...]]]:
        """Points with most of the front's hypervolume, with the epochs and sampling points that are on it.

        A point is as good as its best evaluation; all that it has on the front is repeated with it.
        """
        found = [
            (asked.point, earned)
            for asked in self._requests.ledger.of(self._requests.asks)
            for earned in (self.evaluations.get(self._identity(asked), ()) if asked.stage == "search" else ())
            if earned.feasible
        ]
        members: dict[str, tuple[Point, list[Earned]]] = {}
        values = pareto.array([earned.values for _, earned in found], columns=len(self._requests.judge.objectives))
        for index in pareto.by_contribution(values):
            point, earned = found[index]
            members.setdefault(canonical(dict(point)), (point, []))[1].append(earned)
        return [
            (point, tuple(sorted({e.epoch for e in run})), tuple(dict.fromkeys(e.sampling for e in run)))
            for point, run in list(members.values())[:top]
        ]

    def _identity(self, asked: Asked) -> str:
        """Of the proposal that a search run answers."""
        return Proposal(asked.point, asked.milestones[-1] if self._at_epochs else None).identity


def mean_curve(runs: Sequence[dict[int, float]]) -> dict[int, float] | None:
    """Mean over repeats at the epochs that all of them reached."""
    shared = set.intersection(*(set(run) for run in runs)) if runs else set()
    return {epoch: sum(run[epoch] for run in runs) / len(runs) for epoch in sorted(shared)} or None


def mean_evaluations(runs: Sequence[dict[tuple[int, str], Earned]]) -> tuple[Earned, ...]:
    """Mean values over repeats of the evaluations that all of them have; a constraint holds where it does in each."""
    shared = set.intersection(*(set(run) for run in runs)) if runs else set()
    return tuple(
        replace(
            runs[0][where],
            values=tuple(sum(each) / len(runs) for each in zip(*(run[where].values for run in runs), strict=True)),
            violations=tuple(max(each) for each in zip(*(run[where].violations for run in runs), strict=True)),
        )
        for where in sorted(shared)
    )


def _at_most(values: tuple[float, ...], others: tuple[float, ...]) -> bool:
    """Whether no value is greater than the other's."""
    return all(value <= other for value, other in zip(values, others, strict=True))
