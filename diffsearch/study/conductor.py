"""Who decides: which run next, whether it goes on, what its end means. Knows nothing of who executes.

`next()` hands out tasks, `heard()` takes what a task reports and says whether it may go on, `ended()` takes its end.
The runner drives it with Ray Tune; tests drive it in-process; both get the same study.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal

import numpy as np

from diffsearch import registry
from diffsearch.errors import GaveUp
from diffsearch.records import CUT, Outcome, State
from diffsearch.search import pareto
from diffsearch.search.stopping import Rule, Rung
from diffsearch.space.settings import Point
from diffsearch.store import RunRecords
from diffsearch.study.budget import Spending
from diffsearch.study.failures import FAILURES, Row
from diffsearch.study.journal import SearchJournal, Trial
from diffsearch.study.ledger import Asked
from diffsearch.study.proposals import Proposals
from diffsearch.study.requests import Requests
from diffsearch.study.survivors import best, let_go, survivors
from diffsearch.trial import Item, Scored, TrialRequest, missing, stored_evaluation

log = logging.getLogger(__name__)

MAX_KILLS = 3  # attempts at one run that a killed worker may cost


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


class Conductor:
    """The decisions of one study.

    Args:
        requests: what the study asks for; with its spec, store and ledger.
        journal: of its search, written by its proposals alone, as the ledger is here.
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
        self.sign = requests.scoring("search").sign
        self.spending = Spending(requests, wall_s)
        self.proposals = Proposals(requests, journal, self.sign, image_shape, self.spending)
        self._stored: Mapping[str, dict[int, float]] = {}  # as `_curves`, of other studies, for a rule that reads them
        self._rule: Rule | None = None  # None: somebody else's scheduler decides
        if spec.search.stopping.name in registry.stopping_rule:
            self._rule = registry.stopping_rule.build(spec.search.stopping.name, **spec.search.stopping.kwargs)
            if registry.stopping_rule.member(spec.search.stopping.name).traits.get("reads_store"):
                self._stored = requests.stored_curves(self.sign)
        self._curves: dict[str, dict[int, float]] = {}  # run key → milestone → best score, of the search runs
        self._fronts: dict[int, dict[str, list[tuple[float, ...]]]] = {}  # milestone → run key → several objectives
        self._broken: dict[str, str] = {}  # run key → why it can't be feasible any more
        self._ready: deque[Task] = deque()
        self._flying: dict[str, Task] = {}
        self._stage: Literal["search", "full", "finals"] = "search"
        self._ids = 0
        self.halted = False
        self.gave_up: GaveUp | None = None  # for who executes to raise
        self._row = Row(spec.name, spec.search.give_up_after, self.ledger)
        self._cut: dict[str, str] = {}  # task → the limit for which it is being stopped
        self.answered: Callable[[Asked, Outcome], object] = lambda asked, outcome: None  # told of what the store had
        self.stop_requests: set[str] = set()  # run keys, or beginnings of them, that a person wants stopped
        self._recall_curves()

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
                self.spending.begin(task.id, task.asked.run_key)
                return task
            if self._stage == "search" and not self.proposals.is_over:
                trial = self.proposals.next()
                if trial is not None:
                    self._begin(trial)
                    continue
                if not self.proposals.is_over:
                    return Signal.WAIT
            if self._flying:
                return Signal.WAIT
            if self._stage == "search" and self.spec.evaluation.screen is not None:
                self._stage = "full"
                for asked in survivors(self.requests):
                    self._ask(asked, None)
                continue
            if self._stage != "finals":
                self._stage = "finals"
                self._ask_finalists()
                continue
            return Signal.DONE
        return Signal.WAIT if self._flying else Signal.DONE

    def heard(self, task: Task, item: Item) -> bool:
        """Take one item of a task; False stops the run here, at a milestone that it has earned."""
        self.spending.heard(task.asked, item)
        if not isinstance(item, Scored):
            return True
        epoch, score = item.evaluation.epoch, self.earned(task, item)
        if not item.completes:
            return True
        if task.trial is not None and score < math.inf:
            self._curves.setdefault(task.asked.run_key, {})[epoch] = score
        if epoch == task.asked.milestones[-1] or self.halted:
            return True
        if self._unwanted(task.asked):
            return False
        if task.trial is None:
            return True
        self._broken[task.asked.run_key] = self.requests.broken(task.asked, item.evaluation)
        if self._broken[task.asked.run_key]:
            return False
        several = self.requests.judge.several
        if self._stops_among(task, epoch) if several else self._stops(task.asked, epoch, score):
            return False
        used_up = "" if item.reused else self.spending.used_up()
        if used_up:
            self._cut[task.id] = used_up
        return not used_up

    def earned(self, task: Task, item: Scored) -> float:
        """The objective, lower is better: of a run of the search the best sampling point so far at that milestone."""
        score = self.score(task, item)
        if task.trial is None:
            return score
        earned = self.requests.earned(task.asked, item.evaluation)
        return self.proposals.earn(task.trial, task.asked.run_key, item.evaluation.epoch, score, earned)

    def score(self, task: Task, item: Scored) -> float:
        """The objective of an evaluation, by its stage's scoring, lower is better."""
        scoring = self.requests.scoring(task.asked.stage)
        return scoring.sign * item.evaluation.scores[scoring.objective].value

    def stop(self, task: Task, epoch: int) -> Outcome:
        """Stop a run at a milestone whose score it has earned: this study's decision, not the run's own end."""
        details: dict[str, Any] = {"epoch": epoch, "milestones": list(task.wanted)}
        rule = self._broken.get(task.asked.run_key) or str(self.spec.search.stopping)
        reason = "by hand" if self._unwanted(task.asked) else rule
        if cut := self._cut.pop(task.id, ""):
            reason, details = cut, {**details, CUT: cut}
        return self.ended(task, Outcome(State.STOPPED_EARLY, f"{reason} after epoch {epoch}", details))

    def ended(self, task: Task, outcome: Outcome) -> Outcome:
        """Take the end of an attempt: tell the search, or try again as its cause deserves."""
        if outcome.state == State.FINISHED and task.asked.milestones != task.wanted:
            return self.stop(task, task.asked.milestones[-1])
        del self._flying[task.id]
        worked = self.spending.end(task.id)
        if outcome.state in (State.KILLED, State.OUT_OF_MEMORY):
            self.ledger.attempt(task.asked.run_key, outcome)
            past = [attempt.state for attempt in self.ledger.attempts[task.asked.run_key]]
            killed, too_big = past.count(State.KILLED), past.count(State.OUT_OF_MEMORY)
            if killed < MAX_KILLS and too_big < 2:
                self._ready.append(self._task(task.asked, task.trial, task.wanted, alone=too_big > 0))
                return outcome
        self._settle(task.asked, task.trial, outcome)
        if worked and self.gave_up is None:
            self.gave_up = self._row.add(task.asked, outcome)
            self.halted |= self.gave_up is not None
        return outcome

    def _unwanted(self, asked: Asked) -> bool:
        return any(asked.run_key.startswith(request) for request in self.stop_requests)

    def put_back(self, task: Task) -> None:
        """Hand a task out again, before others."""
        del self._flying[task.id]
        self.spending.put_back(task.id)
        self._ready.appendleft(task)

    def interrupted(self, task: Task) -> None:
        """A task that was taken back because the study stops here: it has no end, and is asked for again next time."""
        self._flying.pop(task.id, None)
        self.spending.end(task.id)

    # --- runs -----------------------------------------------------------------------------------------------------

    def _begin(self, trial: Trial) -> None:
        """Ask for a trial's runs; those that the store answers are settled at once."""
        proposal = trial.proposal
        wanted = [
            self.requests.search_run(proposal.point, repeat, proposal.epochs) for repeat in range(self.spec.repeats)
        ]
        self.proposals.begin(trial, (asked.run_key for asked in wanted))
        for asked in wanted:
            self._ask(asked, trial.number)

    def _ask(self, asked: Asked, trial: int | None) -> None:
        wanted = asked.milestones
        self.ledger.ask(asked)
        asked = replace(self.ledger.find(asked.asks, asked.stage, asked.run_key) or asked, milestones=wanted)
        before = self.requests.stopped_before(asked, by_budget=bool(self.spending.used_up()))
        if before is not None:
            asked = replace(asked, milestones=tuple(e for e in wanted if e <= before.details["epoch"]))
        task = self._task(asked, trial, wanted)
        if before is not None and CUT in before.details:
            self._cut[task.id] = before.details[CUT]
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
            points = asked.points_at(epoch)
            for number, point in enumerate(points, start=1):
                found = stored_evaluation(folder, task.request, epoch, point)
                if found is not None:
                    going = self.heard(task, Scored(found, number == len(points), reused=True))
        if not lacking:
            self.answered(asked, self.ended(task, Outcome(State.FINISHED)))
        elif not going:
            self.answered(asked, self.stop(task, earned))
        else:
            del self._flying[task.id]
            self.spending.ask(asked)
            self._ready.append(task)

    def _ran_out(self, asked: Asked, folder: RunRecords) -> Outcome | None:
        """A bad end that isn't tried again: the run diverged, or it failed in this study before by its own fault."""
        own = folder.outcome()
        if own is not None and own.details.get("epoch", 0) <= asked.milestones[-1]:
            return own
        ended = self.ledger.end_of(asked)
        final = ended is not None and ended.state in FAILURES and not ended.by_machine
        return ended if final else None

    def _stops(self, asked: Asked, epoch: int, score: float) -> bool:
        if self._rule is None:
            return False
        curve = {**self._curves.get(asked.run_key, {}), epoch: score}
        others = [other for key, other in self._curves.items() if key != asked.run_key]
        if score == math.inf:  # it breaks a constraint that may hold later: the worst of all here
            here = [other[epoch] for other in others if epoch in other]
            curve[epoch] = float(np.nextafter(max(here), math.inf)) if here else 0.0
        stored = [other for key, other in self._stored.items() if key != asked.run_key and key not in self._curves]
        until = {earned: curve[earned] for earned in sorted(curve) if earned <= epoch}
        ahead = tuple(milestone for milestone in asked.milestones if milestone > epoch)
        return self._rule(Rung(epoch, until, ahead, others, stored))

    def _stops_among(self, task: Task, epoch: int) -> bool:
        """Whether the rule stops a run by its place among those at this milestone, as MO-ASHA ranks them."""
        if self._rule is None or task.trial is None:
            return False
        rung, run = self._fronts.setdefault(epoch, {}), task.asked.run_key
        rung.pop(run, None)
        own = [earned.values for earned in self.proposals.earned_at(task.trial, run, epoch) if earned.feasible]
        runs = [*rung.values(), own] if own else [*rung.values()]
        places = [float(place) for place in pareto.places_of_runs([pareto.array(values) for values in runs])]
        if own:
            rung[run] = own
        else:
            places.append(float(len(places)))  # nothing of it is feasible here: the last of all
        ahead = tuple(milestone for milestone in task.asked.milestones if milestone > epoch)
        return self._rule(Rung(epoch, {epoch: places[-1]}, ahead, [{epoch: place} for place in places[:-1]]))

    def _settle(self, asked: Asked, trial: int | None, outcome: Outcome) -> None:
        self.ledger.end(asked, outcome)
        self.spending.settle(asked.run_key)
        if not outcome.ok and asked.stage == "search":
            self._curves.pop(asked.run_key, None)
            for front in self._fronts.values():
                front.pop(asked.run_key, None)
        if trial is not None:
            self.proposals.settle(trial, asked.run_key, outcome)

    def _recall_curves(self) -> None:
        """What search runs of earlier sessions scored at each milestone, as they scored it then."""
        for asked in self.ledger.of(self.requests.asks):
            ended = self.ledger.end_of(asked)
            if asked.stage == "search" and ended is not None and ended.ok:
                last = ended.details.get("epoch", asked.milestones[-1])
                for epoch, score in self.requests.scores(asked, self.sign).items():
                    if epoch <= last:
                        self._curves.setdefault(asked.run_key, {})[epoch] = score
                for sheet in self.requests.sheets(asked) if self.requests.judge.several else ():
                    earned = self.requests.earned(asked, sheet)
                    if earned is not None and earned.feasible and sheet.epoch <= last:
                        rung = self._fronts.setdefault(sheet.epoch, {})
                        rung.setdefault(asked.run_key, []).append(earned.values)

    # --- finalists ------------------------------------------------------------------------------------------------

    def _ask_finalists(self) -> None:
        """Repeat the best configurations over fresh seeds, up to the epoch where each earned its score."""
        finals, screened = self.spec.search.finalists, self.spec.evaluation.screen is not None
        if screened:
            let_go(self.requests)
        chosen: list[tuple[Point, tuple[int, ...], tuple[str, ...]]] = []
        if self.requests.judge.several:
            chosen += self.proposals.answers.front(finals.top)
        else:
            found = best(self.requests, finals.top) if screened else self.proposals.answers.best(finals.top)
            chosen += [(point, (epoch,), ()) for point, epoch in found]
        for point, epochs, sampled in chosen:
            for repeat in range(finals.repeats):
                self._ask(self.requests.finalist(point, repeat, epochs, () if finals.sampling else sampled), None)

    def _task(self, asked: Asked, trial: int | None, wanted: tuple[int, ...], alone: bool = False) -> Task:
        self._ids += 1
        return Task(f"{asked.run_key}-{self._ids}", asked, self.requests.request(asked), trial, wanted, alone)
