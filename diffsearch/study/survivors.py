"""Successive evaluation: what of a screened search is scored in full, what of that is repeated, and what may go then.

A search with a screen learns from few images and an unbiased metric. When it is over, the best share of its
evaluations is scored in full, on the checkpoints that are there: nothing is trained for it. Finalists are chosen from
the full scores alone, so that scores of different metrics or sample counts never meet in one ranking.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from diffsearch.space.settings import Point, canonical
from diffsearch.store import Lease, LeaseHeld, Store
from diffsearch.study.ledger import Asked, Stage
from diffsearch.study.requests import Requests
from diffsearch.trial import stored_evaluation


@dataclass(frozen=True, slots=True)
class Candidate:
    """An epoch and a sampling point of one configuration, with the mean of its repeats."""

    score: float  # of the stage's objective, lower is better
    epoch: int
    place: int  # of the sampling point
    runs: tuple[Asked, ...]  # of the search, one a repeat

    @property
    def point(self) -> Point:
        return self.runs[0].point


def survivors(requests: Requests) -> list[Asked]:
    """The runs of the search that are scored in full, each at those milestones and sampling points that the screen
    let pass: the best `keep` of all candidates, and the next ones where that isn't as many configurations as finalists.
    """
    screen, top = requests.spec.evaluation.screen, requests.spec.search.finalists.top
    assert screen is not None
    found = candidates(requests, "search")
    count = math.ceil(screen.keep * len(found))
    passed = found[:count]
    configurations = {canonical(dict(each.point)) for each in passed}
    for each in found[count:]:
        if len(configurations) < top and canonical(dict(each.point)) not in configurations:
            configurations.add(canonical(dict(each.point)))
            passed.append(each)
    pairs: dict[str, set[tuple[int, int]]] = {}
    runs: dict[str, Asked] = {}
    for each in passed:
        for asked in each.runs:
            runs[asked.run_key] = asked
            pairs.setdefault(asked.run_key, set()).add((each.epoch, each.place))
    return [requests.in_full(asked, pairs[key]) for key, asked in runs.items()]


def best(requests: Requests, top: int) -> list[tuple[Point, int]]:
    """(point, epoch) of the best full scores of distinct points, best first."""
    distinct: dict[str, tuple[Point, int]] = {}
    for each in candidates(requests, "full"):
        distinct.setdefault(canonical(dict(each.point)), (each.point, each.epoch))
    return list(distinct.values())[:top]


def candidates(requests: Requests, stage: Stage) -> list[Candidate]:
    """What every repeat of a configuration has a score of at a stage, best first, among equals the first asked.

    A run that failed in the search takes its configuration with it, as in what the search is told.
    """
    members: dict[str, list[Asked]] = {}
    for asked in requests.ledger.of(requests.asks):
        if asked.stage == "search":
            members.setdefault(canonical(dict(asked.point)), []).append(asked)
    found: list[tuple[float, int, int, int, Candidate]] = []
    for number, runs in enumerate(members.values()):
        scores = [dict(_scores(requests, asked, stage)) for asked in runs]
        for epoch, place in set.intersection(*map(set, scores)):
            mean = sum(each[epoch, place] for each in scores) / len(scores)
            found.append((mean, number, epoch, place, Candidate(mean, epoch, place, tuple(runs))))
    return [candidate for *_, candidate in sorted(found, key=lambda entry: entry[:4])]


def _scores(requests: Requests, asked: Asked, stage: Stage) -> Iterator[tuple[tuple[int, int], float]]:
    """(epoch, place of the sampling point) → score at a stage, of a run of the search as far as it came."""
    ended, ledger, scoring = requests.ledger.end_of(asked), requests.ledger, requests.scoring(stage)
    if ended is None or not ended.ok:
        return
    last = ended.details.get("epoch", asked.milestones[-1])
    of_stage = asked if stage == "search" else ledger.find(asked.asks, stage, asked.run_key)
    if of_stage is None:
        return
    request, folder = requests.request(of_stage), requests.store.run(asked.run_key)
    for epoch in (epoch for epoch in of_stage.milestones if epoch <= last):
        for point in of_stage.points_at(epoch):
            evaluation = stored_evaluation(folder, request, epoch, point)
            if evaluation is not None:
                score = scoring.sign * evaluation.scores[scoring.objective].value
                yield (epoch, asked.points.index(point)), score


def let_go(requests: Requests) -> None:
    """Remove the checkpoints that `keep: last` or `best` doesn't keep, now that none is needed to be scored in full.

    A run that somebody else works on is left alone.
    """
    store = requests.store
    if requests.spec.keep not in ("last", "best") or not isinstance(store, Store):  # a replay has none to remove
        return
    order: dict[str, list[Candidate]] = {}
    for each in (*candidates(requests, "full"), *candidates(requests, "search")):  # one after the other, never mixed
        for asked in each.runs:
            order.setdefault(asked.run_key, []).append(each)
    for asked in requests.ledger.of(requests.asks):
        folder = store.run(asked.run_key)
        kept = [epoch for epoch in folder.kept() if epoch in asked.milestones]
        if asked.stage != "search" or not kept:
            continue
        stay = {kept[-1]}
        if requests.spec.keep == "best":
            stay |= {each.epoch for each in order.get(asked.run_key, ())[:1]}
        gone = [epoch for epoch in kept if epoch not in stay]
        if gone:
            with contextlib.suppress(LeaseHeld), Lease.claim(folder.path / "lease", requests.session):
                for epoch in gone:
                    folder.checkpoint(epoch).unlink(missing_ok=True)
