"""Executes a study on recorded runs in simulated time, with any number of simulated workers.

Beside `runner.py` and `inprocess.py` the third who hands the conductor's tasks out and tells it what came of them: the
decisions are the very same. A task's items come at the simulated time at which a worker would have had them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

from diffsearch.records import EpochRecord, Evaluation, Outcome, State
from diffsearch.space.settings import RunSettings, SamplingPoint
from diffsearch.study.conductor import Conductor, Task
from diffsearch.study.ledger import Asked
from diffsearch.study.recording import RecordedRun
from diffsearch.trial import Item, Scored, Trained

Reuse: TypeAlias = Literal["keys", "none"]


class Source(Protocol):
    """Which recorded run answers one that a study asks for, and how good an evaluation is in truth."""

    def run(self, asked: Asked) -> RecordedRun: ...

    def truth(self, asked: Asked, epoch: int, point: SamplingPoint) -> float: ...


@dataclass(frozen=True, slots=True)
class Costs:
    """What a worker's time goes to, besides what was recorded of training, sampling and scoring.

    Args:
        overhead_s: of each task, in seconds: journal, ledger, lease, loading the network.
        reuse: "keys": milestones are points along one run, and what was computed once is there; "none": each
            evaluation trains its network from the start, and what is asked for again is computed again.
    """

    overhead_s: float = 0.05
    reuse: Reuse = "keys"


class Moment(NamedTuple):
    """Where a study stood: at each new best score, and at its end. All sums count what was executed until then."""

    simulated_s: float
    worker_s: float  # busy seconds over all workers
    runs: int  # that ended
    epochs: int
    images: int  # trained
    evaluations: int
    network_calls: int
    best: float  # objective as the metric gives it, of the best evaluation so far
    truth: float  # of that same point, epoch and sampling: as the source knows it, e.g. the mean over recorded seeds
    alone_s: float = 0.0  # busy seconds, had each evaluation trained its network from the start and nothing been reused


@dataclass
class SimulatedRun:
    """A run as far as it was simulated; what a `RunFolder` is to a real study."""

    records: list[EpochRecord] = field(default_factory=list)
    scored: dict[str, Evaluation] = field(default_factory=dict)
    ended: Outcome | None = None

    def epochs(self) -> tuple[EpochRecord, ...]:
        return tuple(self.records)

    def evaluations(self, measures: Mapping[str, str] | None = None) -> dict[str, Evaluation]:
        return self.scored

    def outcome(self) -> Outcome | None:
        return self.ended


class SimulatedStore:
    """What was simulated so far, by run key; without reuse it keeps nothing."""

    root = Path()

    def __init__(self, reuse: Reuse) -> None:
        self._keeps = reuse == "keys"
        self._runs: dict[str, SimulatedRun] = {}

    def run(self, key: str) -> SimulatedRun:
        return self._runs.setdefault(key, SimulatedRun()) if self._keeps else SimulatedRun()

    def runs_on(self, content: str) -> Iterator[tuple[str, RunSettings, SimulatedRun]]:
        """None of other studies."""
        return iter(())


class _Said(NamedTuple):
    """What a worker says, and when: ordered by time, then by who began first."""

    at_s: float
    number: int
    took_s: float
    task: Task
    item: Item | Outcome
    rest: Generator[tuple[float, Item], None, Outcome]


@dataclass
class Simulation:
    """One study on simulated workers.

    Args:
        conductor: whose `wall_s` reads `now_s` here (see `replay`).
        workers: runs at once, at least 1.
    """

    source: Source
    store: SimulatedStore
    workers: int
    costs: Costs
    now_s: float = 0.0
    trace: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._queue: list[_Said] = []
        self._numbers = itertools.count()
        self._idle = self.workers
        self._done = Moment(0.0, 0.0, 0, 0, 0, 0, 0, float("inf"), float("nan"))
        self._best = float("inf")  # lower is better

    def run(self, conductor: Conductor) -> list[Moment]:
        """Simulate to the end of the study; its trace ends with a moment for the whole."""
        while True:
            while self._idle and isinstance(task := conductor.next(), Task):
                self._idle -= 1
                self._done = self._done._replace(alone_s=self._done.alone_s + self.costs.overhead_s)
                self._say_next(task, self._work(task), self.costs.overhead_s)
            if not self._queue:
                break
            said = heapq.heappop(self._queue)
            self.now_s = said.at_s
            self._hear(conductor, said)
        self._note()
        return self.trace

    def _hear(self, conductor: Conductor, said: _Said) -> None:
        task, item = said.task, said.item
        self._count(task, item, said.took_s)
        if isinstance(item, Outcome):
            conductor.ended(task, item)
        else:
            if isinstance(item, Scored):
                self._rank(conductor, task, item)
            if conductor.heard(task, item) or not isinstance(item, Scored):
                self._say_next(task, said.rest, 0.0)
                return
            conductor.stop(task, item.evaluation.epoch)
            self._done = self._done._replace(runs=self._done.runs + 1)
        self._idle += 1

    def _say_next(self, task: Task, work: Generator[tuple[float, Item], None, Outcome], after_s: float) -> None:
        item: Item | Outcome
        try:
            took_s, item = next(work)
        except StopIteration as end:
            took_s, item = 0.0, end.value
        took_s += after_s
        heapq.heappush(self._queue, _Said(self.now_s + took_s, next(self._numbers), took_s, task, item, work))

    # --- what a worker does -------------------------------------------------------------------------------------------

    def _work(self, task: Task) -> Generator[tuple[float, Item], None, Outcome]:
        """As `run_trial`, from the recorded run: each item with the seconds that it takes."""
        request, recorded = task.request, self.source.run(task.asked)
        kept = self.store.run(request.run_key)
        for milestone in request.milestones:
            points = request.points_at(milestone)
            for number, point in enumerate(points, start=1):
                key, seconds = request.evaluation_key(milestone, point), 0.0
                reused = key in kept.scored
                if not reused:
                    ended = yield from self._train(recorded, kept, milestone)
                    if ended is not None:
                        return ended
                    found = kept.scored[key] = recorded.evaluations[milestone, point]
                    seconds = found.sampling_s + found.scoring_s
                yield seconds, Scored(kept.scored[key], completes=number == len(points), reused=reused)
        return Outcome(State.FINISHED)

    def _train(
        self, recorded: RecordedRun, kept: SimulatedRun, milestone: int
    ) -> Generator[tuple[float, Item], None, Outcome | None]:
        """Train on from the deepest epoch that is kept, or from the start where nothing is; returns a divergence."""
        if self.costs.reuse == "none":
            kept.records.clear()
        first = len(kept.records) + 1
        until = milestone if recorded.diverged is None else recorded.diverged.details["epoch"]
        for epoch in range(first, min(milestone + 1, until + (recorded.diverged is None))):
            wall_s, images = recorded.seconds(epoch) - recorded.seconds(epoch - 1), recorded.images(epoch)
            images_per_s = images / epoch / wall_s if wall_s else 0.0
            line = EpochRecord(epoch, recorded.loss(epoch), images, images_per_s, wall_s, 0.0)
            kept.records.append(line)
            yield wall_s, Trained(line)
        if recorded.diverged is not None and until <= milestone:
            kept.ended = recorded.diverged
        return kept.ended

    # --- what is counted ----------------------------------------------------------------------------------------------

    def _count(self, task: Task, item: Item | Outcome, took_s: float) -> None:
        alone_s = self._done.alone_s + self._alone_s(task, item)
        done = self._done._replace(simulated_s=self.now_s, worker_s=self._done.worker_s + took_s, alone_s=alone_s)
        if isinstance(item, Trained):
            images = item.record.images_seen // item.record.epoch
            done = done._replace(epochs=done.epochs + 1, images=done.images + images)
        elif isinstance(item, Scored) and not item.reused:
            calls = done.network_calls + item.evaluation.network_calls
            done = done._replace(evaluations=done.evaluations + 1, network_calls=calls)
        elif isinstance(item, Outcome):
            done = done._replace(runs=done.runs + 1)
        self._done = done

    def _alone_s(self, task: Task, item: Item | Outcome) -> float:
        """What an evaluation, or a run that diverges, takes from the start."""
        if isinstance(item, Scored):
            found = item.evaluation
            return self.source.run(task.asked).seconds(found.epoch) + found.sampling_s + found.scoring_s
        if isinstance(item, Outcome) and item.state is State.DIVERGED:
            return self.source.run(task.asked).seconds(item.details["epoch"] - 1)
        return 0.0

    def _rank(self, conductor: Conductor, task: Task, item: Scored) -> None:
        """Note a score of the search that is better than all before it."""
        if task.trial is None or (score := conductor.score(task, item)) >= self._best:
            return
        self._best = score
        epoch, point = item.evaluation.epoch, item.evaluation.sampling
        truth = self.source.truth(task.asked, epoch, point)
        self._done = self._done._replace(best=conductor.sign * score, truth=truth)
        self._note()

    def _note(self) -> None:
        self.trace.append(self._done)
