"""What a search begins with: earlier forms of its study file, and the studies and stores that it is started from.

Optuna refuses a categorical whose choices changed, so another space is another Optuna study, filled from here.

* The same space, asked otherwise (later milestones, a sampling sweep, a metric): the same points again, in the same
  order; the store answers what it can, and only what is missing is computed.
* Another space, or another study of this store (`search.warm_start`): runs that this study could have asked for and
  that are complete are taken over. They are known, stand in its tables and cost no run of `runs`.
* Runs of another seed, and all runs of another store: history for the sampler alone. They stand in no table, and the
  search may ask for their points, to have runs of its own there. Nothing of another store is copied. Runs of the
  seeds over which this study repeats its finalists are passed over: what chooses a finalist never judges it.

Scored alike means: the same data, metrics measured with the same extractor on as many samples, at each of this study's
milestones and sampling points. Runs that lack some of that are left out, those that were stopped early among them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffsearch.errors import StoreError
from diffsearch.records import Evaluation, Outcome, State
from diffsearch.registry import suggest
from diffsearch.search.earned import Earned, best_by_epoch
from diffsearch.search.sequential import Proposal
from diffsearch.space.axes import point_of
from diffsearch.space.settings import Point, RunSettings, canonical
from diffsearch.store import RunFolder, Store, run_key
from diffsearch.study.answers import mean_curve, mean_evaluations
from diffsearch.study.journal import SearchJournal
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.study.requests import Requests
from diffsearch.trial import missing


@dataclass(frozen=True, slots=True)
class History:
    """What is known of a point."""

    scores: dict[int, float]  # by epoch, lower is better
    evaluations: tuple[Earned, ...] = ()  # where a score doesn't say it all


def points_again(requests: Requests) -> list[Proposal]:
    """The points of this same space that an earlier form of the file asked for, in their order."""
    return [Proposal(asked.point) for asked in _earlier(requests) if asked.space == requests.space]


def inherit(requests: Requests, journal: SearchJournal, sign: float, known: Collection[str]) -> dict[str, History]:
    """Fill a journal, once, from other spaces and from each source of the warm start: proposal identity → history.

    Args:
        sign: 1 where a lower objective is better, else -1.
        known: identities that the journal has already.

    Raises:
        StoreError: a study to start from isn't in this store.
    """
    found: dict[str, History] = {}
    if not journal.has_inherited:
        for asked in _earlier(requests):
            if asked.space != requests.space:
                _take(requests, journal, sign, asked.settings, asked.run_key, known, found)
        journal.set_inherited()
    for source in requests.spec.search.warm_start:
        if source not in journal.warmed:
            begun = {trial.elsewhere for trial in journal.trials()} - {""}  # before a kill
            for settings, folder in _runs_of(source, requests):
                if not _take(requests, journal, sign, settings, folder.key, known, found) and folder.key not in begun:
                    _learn(requests, journal, sign, settings, folder)
            journal.set_warmed(source)
    return found


def _take(
    requests: Requests,
    journal: SearchJournal,
    sign: float,
    settings: RunSettings,
    key: str,
    known: Collection[str],
    found: dict[str, History],
) -> bool:
    """Take over a point that this study could have asked for, if all its runs are whole; whether it is known now."""
    point = point_of(requests.spec, settings)
    if point is None:
        return False
    identity = Proposal(point).identity
    wanted = [requests.search_run(point, repeat, None) for repeat in range(requests.spec.repeats)]
    if key not in {each.run_key for each in wanted}:
        return False
    if identity in known or identity in found:
        return True
    if any(missing(requests.store.run(each.run_key), requests.request(each)) for each in wanted):
        return False
    scores = mean_curve([requests.scores(each, sign) for each in wanted])
    if not scores:
        return False
    for each in wanted:
        requests.ledger.ask(each)
        requests.ledger.end(each, Outcome(State.FINISHED))
    history = History(scores, mean_evaluations([_earned(requests, each) for each in wanted]))
    _add(requests, journal, point, history)
    found[identity] = history
    return True


def _earned(requests: Requests, asked: Asked) -> dict[tuple[int, str], Earned]:
    """(epoch, sampling point) → what a run earned there, where a score doesn't say it all."""
    found = (requests.earned(asked, sheet) for sheet in requests.sheets(asked))
    return {(each.epoch, each.sampling): each for each in found if each is not None}


def _learn(requests: Requests, journal: SearchJournal, sign: float, settings: RunSettings, folder: RunFolder) -> None:
    """Tell the sampler of a run that this study can't have asked for, where it fits and was scored alike."""
    point = None if requests.is_final_seed(settings.seed) else point_of(requests.spec, settings)
    if point is None or run_key(settings, requests.content, requests.spec.extensions) != folder.key:
        return
    wanted = requests.search_run(point, 0, None)
    sheets = _alike(requests, wanted, folder)
    pairs = {(epoch, point) for epoch in wanted.milestones for point in wanted.points_at(epoch)}
    if {(sheet.epoch, sheet.sampling) for sheet in sheets} != pairs:
        return
    judge, objective = requests.judge, requests.scoring("search").objective
    if judge.is_plain:
        scores: dict[int, float] = {}
        for sheet in sheets:
            score = sign * sheet.scores[objective].value
            scores[sheet.epoch] = min(score, scores.get(sheet.epoch, score))
        history = History(scores)
    else:
        earned = (judge.earned(sheet, folder.epochs(), wanted.parameters) for sheet in sheets)
        known = tuple(each for each in earned if each is not None)
        history = History(best_by_epoch(known), known)
    if history.scores:
        _add(requests, journal, point, history, folder.key)


def _add(requests: Requests, journal: SearchJournal, point: Point, history: History, elsewhere: str = "") -> None:
    trials = journal.trials() if requests.judge.several else ()
    others = (earned for trial in trials for earned in trial.evaluations)
    verdict = requests.judge.verdict(history.evaluations, others)
    journal.take_over(point, history.scores, history.evaluations, verdict, elsewhere)


def _alike(requests: Requests, wanted: Asked, folder: RunFolder) -> list[Evaluation]:
    """The first evaluation of a run at each milestone and sampling point that counts here; its noise may be another."""
    found: dict[tuple[int, object], Evaluation] = {}
    for sheet in folder.evaluations(requests.measures).values():
        asked = sheet.epoch in wanted.milestones and sheet.sampling in wanted.points_at(sheet.epoch)
        whole = set(requests.scoring("search").metrics) <= set(sheet.scores)
        if asked and whole and sheet.samples == wanted.samples:
            found.setdefault((sheet.epoch, sheet.sampling), sheet)
    return list(found.values())


def _runs_of(source: str, requests: Requests) -> Iterator[tuple[RunSettings, RunFolder]]:
    """Runs of another study of this store, in the order in which it asked for them, or of another store."""
    store = requests.store
    if Path(source).is_absolute():
        yield from ((settings, run) for _, settings, run in Store(Path(source)).runs_on(requests.content))
        return
    if not isinstance(store, Store):
        raise StoreError("search.warm_start: a replay knows no other study")
    if source not in store.studies():
        raise StoreError(f"search.warm_start: no study '{source}' in {store.root}. {suggest(source, store.studies())}")
    asked = {each.run_key: each.settings for each in Ledger.open(store.study(source)).asked}
    yield from ((settings, store.run(key)) for key, settings in asked.items())


def _earlier(requests: Requests) -> Iterator[Asked]:
    """Search runs of earlier forms, each point once."""
    seen: set[str] = set()
    for asked in requests.ledger.asked:
        identity = canonical(dict(asked.point))
        if asked.stage == "search" and asked.asks != requests.asks and identity not in seen:
            seen.add(identity)
            yield asked
