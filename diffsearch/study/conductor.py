"""Who decides: which run next, whether it goes on, what its end means. Knows nothing of who executes.

`next()` hands out tasks, `heard()` takes what a task reports and says whether it may go on, `ended()` takes its end.
The runner drives it with Ray Tune; tests drive it in-process; both get the same study.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from diffsearch import registry
from diffsearch.records import Outcome, State
from diffsearch.scoring.metrics import parse
from diffsearch.search.sequential import EPOCHS, Proposal, Sequential, sequential
from diffsearch.search.stopping import Rule
from diffsearch.space.axes import grid, grid_size, settings_at
from diffsearch.space.settings import Point, canonical
from diffsearch.store import RunFolder
from diffsearch.study.inherit import points_again, take_over
from diffsearch.study.journal import SearchJournal, Trial
from diffsearch.study.ledger import Asked
from diffsearch.study.requests import Requests
from diffsearch.training.memory import describe
from diffsearch.trial import Item, Scored, TrialRequest, missing, stored_evaluation

log = logging.getLogger(__name__)

NOT_RETRIED = (State.FAILED, State.OUT_OF_MEMORY, State.KILLED)  # once a study has settled for them
MAX_KILLS = 3  # attempts at one run that a killed worker may cost
IDLE_PROPOSALS = 200  # proposals in a row that were known already: the search finds nothing new by itself


class Signal(Enum):
    WAIT = "nothing to hand out until a task reports"
    DONE = "nothing left"


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at one run, for a worker."""

    id: str
    asked: Asked
    request: TrialRequest
    trial: int | None  # of the search journal
    wanted: tuple[int, ...]  # milestones; `asked` has fewer where this study stopped the run in an earlier session
    alone: bool = False  # no other task beside it: what is left to try after out of memory


@dataclass
class _Open:
    """A trial of the search that isn't told yet: its runs and what they earned."""

    proposal: Proposal
    numbers: list[int]  # of the trials that it answers: the same point may be proposed again while it runs
    waiting: set[str]
    scores: dict[str, dict[int, float]] = field(default_factory=dict)  # run key → epoch → best score
    stopped: bool = False
    failed: bool = False


class Conductor:
    """The decisions of one study.

    Args:
        requests: what the study asks for; with its spec, store and ledger.
        journal: of its search; it and the ledger are written here alone.
        image_shape: of its data set.
        wall_s: working time of the study so far, in seconds.
    """

    def __init__(
        self,
        requests: Requests,
        journal: SearchJournal,
        image_shape: tuple[int, int, int],
        wall_s: Callable[[], float],
    ) -> None:
        spec = requests.spec
        self.spec, self.store, self.ledger, self.requests = spec, requests.store, requests.ledger, requests
        self.journal, self._image_shape, self._wall_s = journal, image_shape, wall_s
        self.sign = 1.0 if parse(spec.evaluation.objective).direction == "min" else -1.0
        self._rule: Rule | None = None  # None: somebody else's scheduler decides
        if spec.search.stopping.name in registry.stopping_rule:
            self._rule = registry.stopping_rule.build(spec.search.stopping.name, **spec.search.stopping.kwargs)
        self._sequential = self._build_sequential()
        self._rungs: dict[int, dict[str, float]] = {}  # milestone → run key → best score of the search runs
        self._open: dict[int, _Open] = {}  # trial number → trial
        self._told: dict[str, dict[int, float] | None] = {}  # proposal identity → scores
        self._counted = 0  # runs that the search asked for, warm ones and repetitions aside
        self._ready: deque[Task] = deque()
        self._flying: dict[str, Task] = {}
        self._stage: Literal["search", "finals"] = "search"
        self._search_over = False
        self._ids = 0
        self.halted = False
        self.answered: Callable[[Asked, Outcome], object] = lambda asked, outcome: None  # told of what the store had
        self.stop_requests: set[str] = set()  # run keys, or beginnings of them, that a person wants stopped
        self._first: deque[Trial | Proposal] = deque()
        self._recall()

    # --- asked by the runner --------------------------------------------------------------------------------------

    def next(self) -> Task | Signal:
        """A task, or why there is none."""
        while not self.halted:
            if any(task.alone for task in self._flying.values()):
                return Signal.WAIT
            if self._ready:
                if self._ready[0].alone and self._flying:
                    return Signal.WAIT
                task = self._ready.popleft()
                self._flying[task.id] = task
                return task
            if self._stage == "search" and not self._search_over:
                if self._propose():
                    continue
                if not self._search_over:
                    return Signal.WAIT
            if self._flying:
                return Signal.WAIT
            if self._stage == "search":
                self._stage = "finals"
                self._ask_finalists()
                continue
            return Signal.DONE
        return Signal.WAIT if self._flying else Signal.DONE

    def heard(self, task: Task, item: Item) -> bool:
        """Take one item of a task; False stops the run here, at a milestone that it has earned."""
        if not isinstance(item, Scored):
            return True
        epoch, score = item.evaluation.epoch, self.score(item)
        if task.trial is not None:
            earned = self._open[task.trial].scores.setdefault(task.asked.run_key, {})
            earned[epoch] = min(score, earned.get(epoch, score))
            score = earned[epoch]
        if not item.completes:
            return True
        if epoch == task.asked.milestones[-1] or self.halted:
            return True
        if self._unwanted(task.asked):
            return False
        return task.trial is None or not self._stops(task.asked.run_key, epoch, score)

    def score(self, item: Scored) -> float:
        """The objective of an evaluation, lower is better."""
        return self.sign * item.evaluation.scores[self.spec.evaluation.objective].value

    def stop(self, task: Task, epoch: int) -> Outcome:
        """Stop a run at a milestone whose score it has earned: this study's decision, not the run's own end."""
        details = {"epoch": epoch, "milestones": list(task.wanted)}
        reason = "by hand" if self._unwanted(task.asked) else str(self.spec.search.stopping)
        return self.ended(task, Outcome(State.STOPPED_EARLY, f"{reason} after epoch {epoch}", details))

    def ended(self, task: Task, outcome: Outcome) -> Outcome:
        """Take the end of an attempt: tell the search, or try again as its cause deserves."""
        if outcome.state == State.FINISHED and task.asked.milestones != task.wanted:
            return self.stop(task, task.asked.milestones[-1])
        del self._flying[task.id]
        if outcome.state in (State.KILLED, State.OUT_OF_MEMORY):
            self.ledger.attempt(task.asked.run_key, outcome)
            past = [attempt.state for attempt in self.ledger.attempts[task.asked.run_key]]
            killed, too_big = past.count(State.KILLED), past.count(State.OUT_OF_MEMORY)
            if killed < MAX_KILLS and too_big < 2:
                self._ready.append(self._task(task.asked, task.trial, task.wanted, alone=too_big > 0))
                return outcome
        self._settle(task.asked, task.trial, outcome)
        return outcome

    def _unwanted(self, asked: Asked) -> bool:
        return any(asked.run_key.startswith(request) for request in self.stop_requests)

    def put_back(self, task: Task) -> None:
        """Hand a task out again, before others."""
        del self._flying[task.id]
        self._ready.appendleft(task)

    def interrupted(self, task: Task) -> None:
        """A task that was taken back because the study stops here: it has no end, and is asked for again next time."""
        self._flying.pop(task.id, None)

    # --- search ---------------------------------------------------------------------------------------------------

    def _propose(self) -> bool:
        """Ask the search for one trial; False if it has none now."""
        for _ in range(IDLE_PROPOSALS):
            trial = self._next_trial()
            if trial is None:
                return False
            identity = trial.proposal.identity
            if identity in self._told:
                scores = self._told[identity]
                self.journal.tell(trial.number, scores, stopped=False)
                continue
            same = [open_ for open_ in self._open.values() if open_.proposal.identity == identity]
            if same:
                same[0].numbers.append(trial.number)
                continue
            self._counted += 1
            self._begin(trial)
            return True
        left = self._never_asked()
        if left is None:
            self._search_over = True
            return False
        self._counted += 1
        self._begin(self.journal.ask_for(left))
        return True

    def _never_asked(self) -> Proposal | None:
        """A point that the search doesn't find by itself, where the space is a grid and has one left."""
        known = {*self._told, *(open_.proposal.identity for open_ in self._open.values())}
        proposals = (Proposal(point) for point in grid(self.spec) or ())
        return next((proposal for proposal in proposals if proposal.identity not in known), None)

    def _next_trial(self) -> Trial | None:
        limit = self.spec.search.runs
        enough = limit is not None and self._counted >= limit
        while self._first:
            first = self._first.popleft()
            if isinstance(first, Trial):
                return first
            if not enough:
                return self.journal.ask_for(first)
        if enough or self._out_of_time():
            self._search_over = True
            return None
        if self._sequential is not None:
            return self._next_sequential(self._sequential)
        if self.journal.is_exhausted():
            self._search_over = True
            return None
        size = grid_size(self.spec)
        distinct = len(self._told) + len({open_.proposal.identity for open_ in self._open.values()})
        if size is not None and distinct >= size:
            self._search_over = True
            return None
        return self.journal.ask()

    def _next_sequential(self, search: Sequential) -> Trial | None:
        wanted = search.wanted(self._told)
        underway = {open_.proposal.identity for open_ in self._open.values()}
        fresh = [proposal for proposal in wanted if proposal.identity not in underway]
        self._search_over = not wanted
        return self.journal.ask_for(fresh[0]) if fresh else None

    def _begin(self, trial: Trial) -> None:
        """Ask for a trial's runs; those that the store answers are settled at once."""
        proposal = trial.proposal
        wanted = [
            self.requests.search_run(proposal.point, repeat, proposal.epochs) for repeat in range(self.spec.repeats)
        ]
        self._open[trial.number] = _Open(proposal, [trial.number], {asked.run_key for asked in wanted})
        for asked in wanted:
            self._ask(asked, trial.number)

    def _ask(self, asked: Asked, trial: int | None) -> None:
        wanted = asked.milestones
        self.ledger.ask(asked)
        asked = replace(self.ledger.find(asked.asks, asked.stage, asked.run_key) or asked, milestones=wanted)
        before = self.requests.stopped_before(asked)
        if before is not None:
            asked = replace(asked, milestones=tuple(e for e in wanted if e <= before))
        task = self._task(asked, trial, wanted)
        folder = self.store.run(asked.run_key)
        ran_out = self._ran_out(asked, folder)
        if ran_out is not None:
            self._settle(asked, trial, ran_out)
            self.answered(asked, ran_out)
            return
        lacking = {epoch for epoch, _ in missing(folder, task.request)}
        self._flying[task.id] = task
        going, earned = True, 0
        for epoch in asked.milestones:
            if epoch in lacking:
                break
            earned = epoch
            for number, point in enumerate(asked.points, start=1):
                found = stored_evaluation(folder, task.request, epoch, point)
                if found is not None:
                    going = self.heard(task, Scored(found, number == len(asked.points), reused=True))
        if not lacking:
            self.answered(asked, self.ended(task, Outcome(State.FINISHED)))
        elif not going:
            self.answered(asked, self.stop(task, earned))
        else:
            del self._flying[task.id]
            self._ready.append(task)

    def _ran_out(self, asked: Asked, folder: RunFolder) -> Outcome | None:
        """A bad end that isn't tried again: the run diverged, or it failed in this study before."""
        own = folder.outcome()
        if own is not None and own.details.get("epoch", 0) <= asked.milestones[-1]:
            return own
        ended = self.ledger.end_of(asked)
        return ended if ended is not None and ended.state in NOT_RETRIED else None

    def _stops(self, run: str, epoch: int, score: float) -> bool:
        rung = self._rungs.setdefault(epoch, {})
        others = [other for key, other in rung.items() if key != run]
        rung[run] = score
        return self._rule is not None and self._rule(score, others)

    def _settle(self, asked: Asked, trial: int | None, outcome: Outcome) -> None:
        self.ledger.end(asked, outcome)
        if not outcome.ok:
            for rung in self._rungs.values():
                rung.pop(asked.run_key, None)
        if trial is None:
            return
        open_ = self._open[trial]
        open_.waiting.discard(asked.run_key)
        open_.stopped |= outcome.state == State.STOPPED_EARLY
        open_.failed |= not outcome.ok
        if open_.waiting:
            return
        scores = None if open_.failed else _mean_curve(list(open_.scores.values()))
        del self._open[trial]
        self._told[open_.proposal.identity] = scores
        for number in open_.numbers:
            self.journal.tell(number, scores, open_.stopped)

    def _out_of_time(self) -> bool:
        limit = self.spec.budget.wall_s
        return limit is not None and self._wall_s() >= limit * self._search_share()

    def _search_share(self) -> float:
        """The part of a wall budget that is the search's: finalists get what their images cost, as a share of all."""
        finals = self.spec.search.finalists
        if not finals.top or self.spec.search.runs is None:
            return 1.0 if not finals.top else 0.7
        samples = (finals.samples or self.spec.evaluation.samples) * max(1, len(finals.sampling))
        ahead = finals.top * finals.repeats * (self.spec.max_epochs + samples / self.spec.evaluation.samples)
        search = self.spec.search.runs * (self.spec.max_epochs + len(self.spec.milestones))
        return search / (search + ahead)

    # --- finalists ------------------------------------------------------------------------------------------------

    def _ask_finalists(self) -> None:
        """Repeat the best configurations over fresh seeds, up to the epoch where each earned its score."""
        finals = self.spec.search.finalists
        for point, epoch in self._best(finals.top):
            for repeat in range(finals.repeats):
                self._ask(self.requests.finalist(point, repeat, epoch), None)

    def _best(self, top: int) -> list[tuple[Point, int]]:
        """(point, epoch) of the best evaluations of distinct points, best first; failures have none."""
        best: list[tuple[float, int, Point]] = []
        for number, asked in enumerate(self.ledger.of(self.requests.asks)):
            curve = self._told.get(self._identity(asked)) if asked.stage == "search" else None
            if curve:
                score, epoch = min((score, epoch) for epoch, score in curve.items())
                best.append((score, number, {**asked.point, EPOCHS: epoch}))
        distinct: dict[str, tuple[Point, int]] = {}
        for _, _, point in sorted(best, key=lambda entry: entry[:2]):
            bare = {path: value for path, value in point.items() if path != EPOCHS}
            distinct.setdefault(canonical(bare), (bare, point[EPOCHS]))
        return list(distinct.values())[:top]

    def _identity(self, asked: Asked) -> str:
        """Of the proposal that a search run answers."""
        full = asked.milestones[-1] if self._sequential is not None else None
        return Proposal(asked.point, full).identity

    def _task(self, asked: Asked, trial: int | None, wanted: tuple[int, ...], alone: bool = False) -> Task:
        self._ids += 1
        return Task(f"{asked.run_key}-{self._ids}", asked, self.requests.request(asked), trial, wanted, alone)

    # --- what an earlier session knew -----------------------------------------------------------------------------

    def _recall(self) -> None:
        """Take up the journal: told trials are known, those left running come first; a new space inherits the old."""
        asked, idle = set(), 0
        for trial in self.journal.trials():
            identity = trial.proposal.identity
            idle = idle + 1 if identity in asked else 0
            asked.add(identity)
            if trial.finished:
                self._counted += not trial.warm and identity not in self._told
                self._told[identity] = dict(trial.scores) if trial.scores else None
            else:
                self._first.append(trial)
        self._recall_rungs()
        self._search_over = idle >= IDLE_PROPOSALS and not self._first
        if self._sequential is None:
            self._first.extend(again for again in points_again(self.requests) if again.identity not in asked)
            if not self.journal.has_inherited:
                self._told |= take_over(self.requests, self.journal, self.sign, known=asked)
                self.journal.set_inherited()

    def _recall_rungs(self) -> None:
        for asked in self.ledger.of(self.requests.asks):
            curve = self._told.get(self._identity(asked))
            for epoch, score in (curve or {}).items():
                self._rungs.setdefault(epoch, {})[asked.run_key] = score

    def _build_sequential(self) -> Sequential | None:
        algorithm = self.spec.search.algorithm
        if algorithm.name != "sequential":
            return None
        return sequential(  # type: ignore[no-any-return]
            self.spec.axes, self.spec.milestones, self.spec.fixed, self._cost, **algorithm.kwargs
        )

    def _cost(self, point: Point) -> float:
        settings = settings_at(self.spec, point, self.spec.seed)
        return describe(settings, self._image_shape).parameters * settings.steps


def _mean_curve(curves: list[dict[int, float]]) -> dict[int, float] | None:
    """Mean over repeats at the epochs that all of them reached."""
    shared = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {epoch: sum(curve[epoch] for curve in curves) / len(curves) for epoch in sorted(shared)} or None
