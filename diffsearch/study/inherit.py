"""A study file that was changed: what of its earlier forms the new search begins with.

Optuna refuses a categorical whose choices changed, so another space is another Optuna study, filled from here.

* The same space, asked otherwise (later milestones, a sampling sweep, a metric): the same points again, in the same
  order; the store answers what it can, and only what is missing is computed.
* Another space: runs that fit into it and are complete become its history. They are known, and cost no run of `runs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from diffsearch.records import Outcome, State
from diffsearch.search.sequential import Proposal
from diffsearch.space.axes import point_of
from diffsearch.space.settings import canonical
from diffsearch.study.journal import SearchJournal
from diffsearch.study.ledger import Asked
from diffsearch.study.requests import Requests
from diffsearch.trial import missing


def points_again(requests: Requests) -> list[Proposal]:
    """The points of this same space that an earlier form of the file asked for, in their order."""
    return [Proposal(asked.point) for asked in _earlier(requests) if asked.space == requests.space]


def take_over(
    requests: Requests, journal: SearchJournal, sign: float, known: Collection[str]
) -> dict[str, dict[int, float]]:
    """Add complete runs of other spaces to a journal; returns proposal identity → scores by epoch.

    Args:
        known: identities that the journal has already.
    """
    taken: dict[str, dict[int, float]] = {}
    if requests.spec.repeats > 1:
        return taken
    for asked in _earlier(requests):
        point = point_of(requests.spec, asked.settings) if asked.space != requests.space else None
        if point is None or Proposal(point).identity in {*known, *taken}:
            continue
        wanted = requests.search_run(point, 0, None)
        fits = wanted.run_key == asked.run_key
        whole = fits and not missing(requests.store.run(wanted.run_key), requests.request(wanted))
        if whole and (scores := requests.scores(wanted, sign)):
            requests.ledger.ask(wanted)
            requests.ledger.end(wanted, Outcome(State.FINISHED))
            journal.take_over(point, scores)
            taken[Proposal(point).identity] = scores
    return taken


def _earlier(requests: Requests) -> Iterator[Asked]:
    """Search runs of earlier forms, each point once."""
    seen: set[str] = set()
    for asked in requests.ledger.asked:
        identity = canonical(dict(asked.point))
        if asked.stage == "search" and asked.asks != requests.asks and identity not in seen:
            seen.add(identity)
            yield asked
