"""Who decides: which run next, whether it goes on, what its end means. Knows nothing of who executes.

`next()` hands out tasks, `heard()` takes what a task reports and says whether it may go on, `ended()` takes its end.
The runner drives it with Ray Tune; tests drive it in-process; both get the same study.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from diffsearch import registry
from diffsearch.records import Outcome, State
from diffsearch.scoring.metrics import parse
from diffsearch.search.sequential import EPOCHS, Proposal, Sequential, sequential
from diffsearch.search.stopping import Rule
from diffsearch.space.axes import finalist_points, grid_size, point_of, sampling_points, settings_at
from diffsearch.space.settings import Point, StudySpec, canonical
from diffsearch.store import Store, run_key
from diffsearch.study.identity import asks_hash, space_hash
from diffsearch.study.journal import SearchJournal, Trial
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.training.memory import describe
from diffsearch.trial import Item, Scored, TrialRequest, missing, stored_evaluation

log = logging.getLogger(__name__)

FRESH_SEEDS = 1000  # finalists are repeated over seeds that no search run has
MAX_KILLS = 3  # attempts at one run that a killed worker may cost
IDLE_PROPOSALS = 200  # proposals in a row that were known already: the space is used up


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
    alone: bool = False  # no other task beside it: what is left to try after out of memory


@dataclass
class _Open:
    """A trial of the search that isn't told yet: its runs and what they earned."""

    proposal: Proposal
    waiting: set[str]
    scores: dict[str, dict[int, float]] = field(default_factory=dict)  # run key → epoch → best score
    stopped: bool = False
    failed: bool = False


class Conductor:
    """The decisions of one study.

    Args:
        spec: the study.
        store: where runs lie.
        data_content, image_shape: of its data set.
        ledger, journal: of its folder; written here alone.
        session: of this driver.
        wall_s: working time of the study so far, in seconds.
        environment: written into each run.json.
    """

    def __init__(
        self,
        spec: StudySpec,
        store: Store,
        data_content: str,
        image_shape: tuple[int, int, int],
        ledger: Ledger,
        journal: SearchJournal,
        session: str,
        wall_s: Callable[[], float],
        environment: Mapping[str, str],
    ) -> None:
        self.spec, self.store, self.ledger, self.journal = spec, store, ledger, journal
        self._content, self._image_shape = data_content, image_shape
        self._session, self._wall_s, self._environment = session, wall_s, environment
        self.space, self.asks = space_hash(spec, data_content), asks_hash(spec, data_content)
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
        if any(task.asked.run_key.startswith(request) for request in self.stop_requests):
            return False
        return task.trial is None or not self._stops(task.asked.run_key, epoch, score)

    def score(self, item: Scored) -> float:
        """The objective of an evaluation, lower is better."""
        return self.sign * item.evaluation.scores[self.spec.evaluation.objective].value

    def stop(self, task: Task, epoch: int, reason: str) -> Outcome:
        """Stop a run at a milestone whose score it has earned: this study's decision, not the run's own end."""
        details = {"epoch": epoch, "milestones": list(task.asked.milestones)}
        return self.ended(task, Outcome(State.STOPPED_EARLY, f"{reason} after epoch {epoch}", details))

    def ended(self, task: Task, outcome: Outcome) -> Outcome:
        """Take the end of an attempt: tell the search, or try again as its cause deserves."""
        del self._flying[task.id]
        if outcome.state in (State.KILLED, State.OUT_OF_MEMORY):
            self.ledger.attempt(task.asked.run_key, outcome)
            past = [attempt.state for attempt in self.ledger.attempts[task.asked.run_key]]
            killed, too_big = past.count(State.KILLED), past.count(State.OUT_OF_MEMORY)
            if killed < MAX_KILLS and too_big < 2:
                self._ready.append(self._task(task.asked, task.trial, alone=too_big > 0))
                return outcome
        self._settle(task.asked, task.trial, outcome)
        return outcome

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
            self._counted += 1
            self._begin(trial)
            return True
        self._search_over = True
        return False

    def _next_trial(self) -> Trial | None:
        while self._first:
            first = self._first.popleft()
            return first if isinstance(first, Trial) else self.journal.ask_for(first)
        limit = self.spec.search.runs
        if (limit is not None and self._counted >= limit) or self._out_of_time():
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
        milestones = tuple(
            e for e in self.spec.milestones if trial.proposal.epochs is None or e <= trial.proposal.epochs
        )
        wanted = [
            self._asked(trial.proposal.point, self.spec.seed + repeat, "search", milestones, repeat)
            for repeat in range(self.spec.repeats)
        ]
        self._open[trial.number] = _Open(trial.proposal, {asked.run_key for asked in wanted})
        for asked in wanted:
            self._ask(asked, trial.number)

    def _ask(self, asked: Asked, trial: int | None) -> None:
        self.ledger.ask(asked)
        asked = self.ledger.find(asked.asks, asked.stage, asked.run_key) or asked
        before = self._stopped_before(asked)
        if before is not None:
            asked = replace(asked, milestones=tuple(e for e in asked.milestones if e <= before))
        task = self._task(asked, trial)
        folder = self.store.run(asked.run_key)
        ran_out = folder.outcome()
        if ran_out is not None and ran_out.details.get("epoch", 0) <= asked.milestones[-1]:
            self._settle(asked, trial, ran_out)
            return
        lacking = {epoch for epoch, _ in missing(folder, task.request)}
        self._flying[task.id] = task
        going = True
        for epoch in asked.milestones:
            if epoch in lacking:
                break
            for number, point in enumerate(asked.points, start=1):
                found = stored_evaluation(folder, task.request, epoch, point)
                if found is not None:
                    going = self.heard(task, Scored(found, number == len(asked.points), reused=True))
        earned = [epoch for epoch in asked.milestones if epoch not in lacking]
        if not lacking and before is None:
            self.ended(task, Outcome(State.FINISHED))
        elif not lacking or not going:
            self.stop(task, earned[-1], str(self.spec.search.stopping))
        else:
            del self._flying[task.id]
            self._ready.append(task)

    def _stops(self, run: str, epoch: int, score: float) -> bool:
        rung = self._rungs.setdefault(epoch, {})
        others = [other for key, other in rung.items() if key != run]
        rung[run] = score
        return self._rule is not None and self._rule(score, others)

    def _settle(self, asked: Asked, trial: int | None, outcome: Outcome) -> None:
        self.ledger.end(asked, outcome)
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
        self.journal.tell(trial, scores, open_.stopped)

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
                seed = self.spec.seed + FRESH_SEEDS + repeat
                self._ask(self._asked(point, seed, "finalist", (epoch,), FRESH_SEEDS + repeat), None)

    def _best(self, top: int) -> list[tuple[Point, int]]:
        """(point, epoch) of the best evaluations of distinct points, best first; failures have none."""
        best: list[tuple[float, int, Point]] = []
        for number, asked in enumerate(self.ledger.of(self.asks)):
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

    # --- requests -------------------------------------------------------------------------------------------------

    def _asked(
        self, point: Point, seed: int, stage: Literal["search", "finalist"], milestones: tuple[int, ...], repeat: int
    ) -> Asked:
        settings = settings_at(self.spec, point, seed)
        key = run_key(settings, self._content, self.spec.extensions)
        finals = self.spec.search.finalists
        points, samples = sampling_points(self.spec, settings), self.spec.evaluation.samples
        if stage == "finalist":
            points, samples = finalist_points(self.spec, settings), finals.samples or samples
        folder = self.store.run(key)
        first = next((asked for asked in self.ledger.asked if asked.run_key == key and asked.stage == stage), None)
        return Asked(
            run_key=key,
            settings=settings,
            point=point,
            stage=stage,
            order=sum(1 for _ in self.ledger.of(self.asks)) + 1,
            space=self.space,
            asks=self.asks,
            milestones=milestones,
            points=points,
            samples=samples,
            noise_seed=self.spec.evaluation.seed + repeat,
            reused_epochs=first.reused_epochs if first else len(folder.epochs()),
            reused_evaluations=first.reused_evaluations if first else len(folder.evaluations()),
        )

    def _task(self, asked: Asked, trial: int | None, alone: bool = False) -> Task:
        self._ids += 1
        request = TrialRequest(
            run_key=asked.run_key,
            settings=asked.settings,
            milestones=asked.milestones,
            points=asked.points,
            metrics=self.spec.evaluation.metrics,
            samples=asked.samples,
            noise_seed=asked.noise_seed,
            store=self.store.root,
            session=self._session,
            keep=self.spec.keep,
            use=self.spec.use,
            extensions=self.spec.extensions,
            environment=self._environment,
        )
        return Task(f"{asked.run_key}-{self._ids}", asked, request, trial, alone)

    def _stopped_before(self, asked: Asked) -> int | None:
        """The epoch at which this study stopped that run earlier, where milestones are as they were then."""
        wanted = (asked.stage, asked.run_key, State.STOPPED_EARLY)
        for (_, stage, key), outcome in self.ledger.ended.items():
            if (stage, key, outcome.state) == wanted and tuple(outcome.details["milestones"]) == asked.milestones:
                return int(outcome.details["epoch"])
        return None

    # --- what an earlier session knew -----------------------------------------------------------------------------

    def _recall(self) -> None:
        """Take up the journal: told trials are known, those left running come first; a new space inherits the old."""
        for trial in self.journal.trials():
            if trial.finished:
                self._told[trial.proposal.identity] = dict(trial.scores) if trial.scores else None
                self._counted += not trial.warm
            else:
                self._first.append(trial)
        unique: dict[str, None] = dict.fromkeys(self._told)
        self._counted = min(self._counted, len(unique))
        self._recall_rungs()
        if self.journal.is_new:
            self._inherit()

    def _recall_rungs(self) -> None:
        for asked in self.ledger.of(self.asks):
            curve = self._told.get(self._identity(asked))
            for epoch, score in (curve or {}).items():
                self._rungs.setdefault(epoch, {})[asked.run_key] = score

    def _inherit(self) -> None:
        """Fill a new Optuna study from what this study asked for under an earlier form of its file.

        The same space, asked otherwise (later milestones, another metric): the same points again, in the same order;
        the store answers what it can. Another space: what fits into it and is complete becomes history.
        """
        seen: set[str] = set()
        for asked in self.ledger.asked:
            if asked.stage != "search" or asked.asks == self.asks or self._sequential is not None:
                continue
            identity = canonical(dict(asked.point))
            if identity in seen:
                continue
            seen.add(identity)
            if asked.space == self.space:
                self._first.append(Proposal(asked.point))
            else:
                self._take_over(asked)

    def _take_over(self, asked: Asked) -> None:
        point = point_of(self.spec, asked.settings)
        if point is None:
            return
        wanted = self._asked(point, asked.settings.seed, "search", self.spec.milestones, 0)
        if wanted.run_key != asked.run_key or self.spec.repeats > 1:
            return
        request = self._task(wanted, None).request
        folder = self.store.run(asked.run_key)
        if missing(folder, request):
            return
        scores: dict[int, float] = {}
        for epoch in request.milestones:
            for sampling in request.points:
                found = stored_evaluation(folder, request, epoch, sampling)
                if found is not None:
                    score = self.sign * found.scores[self.spec.evaluation.objective].value
                    scores[epoch] = min(score, scores.get(epoch, score))
        self.ledger.ask(wanted)
        self.ledger.end(wanted, Outcome(State.FINISHED))
        self.journal.take_over(point, scores)
        self._told[Proposal(point).identity] = scores

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
