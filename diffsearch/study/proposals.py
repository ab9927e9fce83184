"""What the search asks for and what it was told: points of the journal, each begun once and answered with its scores.

Knows nothing of tasks and attempts: the conductor begins a trial's runs, reports what they score and settles them.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from diffsearch.errors import DiffsearchError
from diffsearch.records import CUT, Outcome, State
from diffsearch.search import samplers
from diffsearch.search.earned import Earned, best_by_epoch
from diffsearch.search.sequential import Proposal, Sequential, sequential
from diffsearch.space.axes import grid, grid_size, settings_at, walk
from diffsearch.space.settings import Point, canonical
from diffsearch.study.answers import Answers, mean_curve, mean_evaluations
from diffsearch.study.budget import Spending
from diffsearch.study.inherit import inherit, points_again
from diffsearch.study.journal import SearchJournal, Trial
from diffsearch.study.requests import Requests
from diffsearch.training.memory import parameters_of
from diffsearch.trial import missing

REFUSED_PROPOSALS = 5  # in a row that a constraint refuses, before feasible points are drawn at random
MOST_DRAWS = 10_000  # of those, before the search is taken to be over
IDLE_PROPOSALS = 200  # proposals in a row that were known already: the search finds nothing new by itself


@dataclass
class _Open:
    """A trial that isn't told yet: its runs and what they earned."""

    proposal: Proposal
    identity: str  # of the proposal
    numbers: list[int]  # of the trials that it answers: the same point may be proposed again while it runs
    waiting: set[str]
    scores: dict[str, dict[int, float]] = field(default_factory=dict)  # run key → epoch → best score
    earned: dict[str, dict[tuple[int, str], Earned]] = field(default_factory=dict)  # run key → epoch, sampling → it
    stopped: bool = False
    failed: bool = False


class Proposals:
    """The search of one study.

    Args:
        requests: what the study asks for; with its spec and ledger.
        journal: of its search, written here alone.
        sign: 1 where a lower objective is better, else -1: scores here are lower-is-better.
        image_shape: of its data set.
        spending: the account of its budget.
    """

    def __init__(
        self,
        requests: Requests,
        journal: SearchJournal,
        sign: float,
        image_shape: tuple[int, int, int],
        spending: Spending,
    ) -> None:
        self._requests, self._spec, self.journal, self._sign = requests, requests.spec, journal, sign
        self._image_shape, self._spending = image_shape, spending
        self.sequential = self._build_sequential()
        self._open: dict[int, _Open] = {}  # trial number → trial
        self.answers = Answers(requests, at_epochs=self.sequential is not None)
        self._counted = 0  # runs that the search asked for, warm ones and repetitions aside
        self._first: deque[Trial | Proposal] = deque()  # before anything new
        self.is_over = False
        finite = samplers.traits(self._spec.search.algorithm).get("finite")
        self._patience = IDLE_PROPOSALS if finite else REFUSED_PROPOSALS  # with what is refused before it is trained
        self._recall()

    def next(self) -> Trial | None:
        """A trial whose runs are to begin, or None: there is none now, and none at all if `is_over`."""
        refusals = 0
        for _ in range(IDLE_PROPOSALS):
            trial = self._next_trial() if refusals < self._patience else self._next_feasible()
            if trial is None:
                return None
            identity = trial.proposal.identity
            if identity in self.answers:
                self._tell([trial.number], identity, stopped=False)
                continue
            if self._refuse(trial):
                refusals += not self._first
                continue
            same = [open_ for open_ in self._open.values() if open_.identity == identity]
            if same:
                same[0].numbers.append(trial.number)
                continue
            self._counted += 1
            return trial
        left = self._never_asked()
        if left is None:
            return self._end("the last point that it finds")
        self._counted += 1
        return self.journal.ask_for(left)

    def begin(self, trial: Trial, runs: Iterable[str]) -> None:
        """A trial's runs were asked for, by their keys."""
        self._requests.ledger.end_search(self._requests.asks, "")
        self._open[trial.number] = _Open(trial.proposal, trial.proposal.identity, [trial.number], set(runs))

    def earn(self, trial: int, run: str, epoch: int, score: float, what: Earned | None = None) -> float:
        """A run of a trial scored; returns its best at that epoch, infinity where nothing of it is feasible.

        Args:
            what: the evaluation, where the study has several objectives or constraints.
        """
        earned = self._open[trial].scores.setdefault(run, {})
        if what is not None:
            self._open[trial].earned.setdefault(run, {})[epoch, what.sampling] = what
            if not what.feasible:
                return earned.get(epoch, math.inf)
        earned[epoch] = min(score, earned.get(epoch, score))
        return earned[epoch]

    def settle(self, trial: int, run: str, outcome: Outcome) -> None:
        """A run of a trial has come to its end; with the last one the search is told."""
        open_ = self._open[trial]
        open_.waiting.discard(run)
        open_.stopped |= outcome.state == State.STOPPED_EARLY
        open_.failed |= not outcome.ok
        if open_.waiting:
            return
        scores = None if open_.failed else mean_curve(list(open_.scores.values()))
        earned = () if open_.failed else mean_evaluations(list(open_.earned.values()))
        del self._open[trial]
        self.answers.add(open_.identity, best_by_epoch(earned) if earned else scores, earned)
        self.answers.compare(open_.identity)
        self._tell(open_.numbers, open_.identity, open_.stopped)

    def _tell(self, numbers: Iterable[int], identity: str, stopped: bool) -> None:
        """Tell the journal what is known of a proposal."""
        scores, evaluations = self.answers.scores[identity], self.answers.evaluations.get(identity, ())
        verdict = self.answers.verdict(identity)
        for number in numbers:
            self.journal.tell(number, scores, stopped, evaluations, verdict)

    def earned_at(self, trial: int, run: str, epoch: int) -> list[Earned]:
        """What a run of a trial earned at one epoch, where a score doesn't say it all."""
        earned = self._open[trial].earned.get(run, {})
        return [what for (at, _), what in earned.items() if at == epoch]

    # --- what comes next --------------------------------------------------------------------------------------------

    def _next_trial(self) -> Trial | None:
        limit, spending = self._spec.search.runs, self._spending
        enough = limit is not None and self._counted >= limit
        while self._first:
            first = self._first.popleft()
            if isinstance(first, Trial):
                return first
            if not enough and (self._is_answered(first) or not (spending.used_up() or spending.crowded_out())):
                return self.journal.ask_for(first)
        if enough:
            return self._end(f"search.runs ({limit})")
        if by := spending.used_up():
            return self._end(by)
        if by := spending.crowded_out() or spending.patience_ended(self.answers.without):
            if not (self._counted or self.answers.scores) and spending.crowded_out():
                raise DiffsearchError(spending.complaint())
            return None if self._open else self._end(by)  # a run under way may stop early, or be the best
        if self.sequential is not None:
            return self._next_sequential(self.sequential)
        size = grid_size(self._spec)
        if self.journal.is_exhausted() or (size is not None and len(self._known()) >= size):
            return self._end("the last point of the space")
        return self.journal.ask()

    def _refuse(self, trial: Trial) -> bool:
        """Whether a constraint refuses a proposal before it is trained; it is then at its end."""
        if not self._spec.search.constraints:
            return False
        asked = self._requests.search_run(trial.proposal.point, 0, trial.proposal.epochs)
        refused = self._requests.refused(asked)
        if refused:
            self._requests.ledger.ask(asked)
            reason = "; ".join(why for _, why in refused.values())
            self._requests.ledger.end(asked, Outcome(State.INFEASIBLE, reason))
            self.journal.refuse(trial.number, {name: violation for name, (violation, _) in refused.items()})
            self.answers.add(trial.proposal.identity, None)
        return bool(refused)

    def _next_feasible(self) -> Trial | None:
        """A new point that no constraint refuses beforehand, drawn at random: the search finds none by itself.

        What it keeps proposing it would propose again, where it doesn't learn from what was never trained.
        """
        known = self._known()
        rng = random.Random(samplers.seed_of(self._spec.seed, len(self.journal.trials())))
        for _ in range(MOST_DRAWS):
            point = walk(self._spec.axes, self._spec.fixed, lambda axis: samplers.draw(axis, rng))
            proposal = Proposal(point)
            if proposal.identity not in known and not self._requests.is_refused(proposal.point):
                return self.journal.ask_for(proposal)
        return self._end("the last point of the space")

    def _end(self, by: str) -> Trial | None:
        """Nothing more is asked for; why is noted in the ledger."""
        self.is_over = True
        self._requests.ledger.end_search(self._requests.asks, by, self._spending.stamp)
        return None

    def _is_answered(self, proposal: Proposal) -> bool:
        """Whether the store has all of a point's runs that this study wants now."""
        for repeat in range(self._spec.repeats):
            asked = self._requests.search_run(proposal.point, repeat, proposal.epochs)
            before = self._requests.stopped_before(asked)
            request = self._requests.request(asked)
            lacking = missing(self._requests.store.run(asked.run_key), request)
            if any(before is None or epoch <= before.details["epoch"] for epoch, _ in lacking):
                return False
        return True

    def _next_sequential(self, search: Sequential) -> Trial | None:
        wanted = search.wanted(self.answers.scores)
        underway = {open_.identity for open_ in self._open.values()}
        fresh = [proposal for proposal in wanted if proposal.identity not in underway]
        if not wanted:
            return self._end("its last axis")
        return self.journal.ask_for(fresh[0]) if fresh else None

    def _never_asked(self) -> Proposal | None:
        """A point that the search doesn't find by itself, where the space is a grid and has one left."""
        known = self._known()
        for proposal in (Proposal(point) for point in grid(self._spec) or ()):
            if proposal.identity not in known and not self._requests.is_refused(proposal.point):
                return proposal
        return None

    def _known(self) -> set[str]:
        return {*self.answers.scores, *(open_.identity for open_ in self._open.values())}

    def _build_sequential(self) -> Sequential | None:
        algorithm = self._spec.search.algorithm
        if algorithm.name != "sequential":
            return None
        return sequential(  # type: ignore[no-any-return]
            self._spec.axes, self._spec.milestones, self._spec.fixed, self._cost, **algorithm.kwargs
        )

    def _cost(self, point: Point) -> float:
        settings = settings_at(self._spec, point, self._spec.seed)
        return parameters_of(settings, self._image_shape) * settings.steps

    # --- what an earlier session knew -------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Take up the journal: told trials are known, those left running come first; a new space inherits the old."""
        asked, idle, (refused, cut) = set(), 0, self._unfinished()
        again: dict[str, Proposal] = {}
        trials = self.journal.trials()
        for trial in trials:
            if trial.elsewhere:
                continue
            identity = trial.proposal.identity
            idle = 0 if identity not in asked else idle + (not trial.chosen)
            asked.add(identity)
            if trial.evaluations:
                self.answers.evaluations[identity] = trial.evaluations
            point = canonical(dict(trial.proposal.point))
            if trial.finished and not trial.warm and (point in cut or (not trial.scores and point in refused)):
                again[identity] = trial.proposal
            elif trial.finished:
                again.pop(identity, None)
                self._counted += not trial.warm and not trial.refused and identity not in self.answers
                self.answers.add(identity, dict(trial.scores or {}))
            else:
                self._first.append(trial)
        self._compare_again(trials, again)
        under_way = {first.proposal.identity for first in self._first if isinstance(first, Trial)}
        self._first.extend(again[identity] for identity in again if identity not in {*self._known(), *under_way})
        self.is_over = idle >= IDLE_PROPOSALS and not self._first
        if self.sequential is None:
            self._first.extend(point for point in points_again(self._requests) if point.identity not in asked)
            self._first.extend(p for p in map(Proposal, self._spec.search.enqueue) if p.identity not in asked)
            for identity, history in inherit(self._requests, self.journal, self._sign, known=asked).items():
                self.answers.add(identity, history.scores, history.evaluations)
                self.answers.compare(identity, is_run=False)

    def _compare_again(self, trials: Iterable[Trial], again: Collection[str]) -> None:
        """What was told, in the order in which it was; warm trials are no runs, but others must be better."""
        seen = set(again)
        told = (trial for trial in trials if trial.finished and not trial.elsewhere)
        for trial in sorted(told, key=lambda each: each.told_at):
            if (trial.scores or None) != self.answers.scores.get(trial.proposal.identity):
                continue  # a failure that a later trial made good
            if trial.proposal.identity not in seen:
                self.answers.compare(trial.proposal.identity, is_run=not (trial.warm or trial.refused))
            seen.add(trial.proposal.identity)

    def _unfinished(self) -> tuple[set[str], set[str]]:
        """Points with a run that failed through no fault of its own; that a budget cut off which has room again."""
        ledger, room = self._requests.ledger, not self._spending.used_up()
        refused, cut = set(), set()
        for asked in ledger.of(self._requests.asks):
            outcome = ledger.end_of(asked)
            if asked.stage == "search" and outcome is not None:
                point = canonical(dict(asked.point))
                refused |= {point} if outcome.by_machine else set()
                cut |= {point} if room and CUT in outcome.details else set()
        return refused, cut
