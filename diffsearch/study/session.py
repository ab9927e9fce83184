"""What one driver holds while it works on a study: its ledger, journal, conductor, progress and tracker."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, replace

from diffsearch.data.datasets import ImageData
from diffsearch.files import replace_file
from diffsearch.records import Bounds, Evaluation, Outcome, Screened, State
from diffsearch.scoring.bounds import bounds
from diffsearch.space.axes import grid_size
from diffsearch.space.metric_names import parse
from diffsearch.space.settings import StudySpec
from diffsearch.store import Lease, Store
from diffsearch.study.conductor import Conductor, Task
from diffsearch.study.facts import environment
from diffsearch.study.failures import try_again
from diffsearch.study.history import Header, StudyFolder
from diffsearch.study.identity import asks_hash, space_hash
from diffsearch.study.journal import SearchJournal
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.study.observer import Observer
from diffsearch.study.progress import Progress
from diffsearch.study.requests import Requests
from diffsearch.study.tracker import Tracker
from diffsearch.trial import Item, Sampled, Trained

TICK_S = 5.0
STOP_REQUESTS = "stop"


@dataclass
class Session:
    """Everything that one `run` holds while it runs."""

    spec: StudySpec
    store: Store
    lease: Lease
    data: ImageData
    observer: Observer
    command: str
    retry_failed: bool = False
    ledger: Ledger = field(init=False)
    conductor: Conductor = field(init=False)
    progress: Progress = field(init=False)
    tracker: Tracker | None = None
    ticked: float = 0.0
    start_s: float | None = None  # until the first run trained

    def __post_init__(self) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.began = time.monotonic()
        self.path = self.store.study(self.spec.name)
        self.ledger = Ledger.open(self.path)
        asks = asks_hash(self.spec, self.data.content)
        if self.retry_failed:
            try_again(self.ledger, asks)
        journal = SearchJournal(
            self.path,
            f"{self.spec.name}-{space_hash(self.spec, self.data.content)}-{asks}",
            self.spec.axes,
            self.spec.fixed,
            self.spec.search.algorithm,
            self.spec.seed,
            max(1, len(self.spec.evaluation.objectives)),
        )
        wall_before = self.ledger.wall_s
        requests = Requests(
            self.spec,
            self.store,
            self.data.content,
            self.ledger,
            self.id,
            environment(),
            image_shape=self.data.image_shape,
            classes=len(self.data.classes),
            train_images=len(self.data.train),
        )
        self.header = self._header(requests)
        replace_file(self.path / "study.yaml", self.spec.text.encode())
        self.header.write(self.path)
        shape, elapsed = self.data.image_shape, lambda: wall_before + self.elapsed_s
        self.conductor = Conductor(requests, journal, shape, elapsed)
        self.progress = Progress(
            self.spec.evaluation.objective,
            requests.scoring("full").sign,
            self._expected(),
            self.header.axes,
            self.began,
            wall_before,
            screen=requests.scoring("search") if self.spec.evaluation.screen else None,
        )
        self.progress.counts = self._counts
        self._recall_progress()
        self.conductor.answered = self._answered

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.store, self.spec.name, self.header, self.ledger)

    def begin(self, workers: int, uri: str, devices: float = 1.0) -> Tracker:
        """Something will be computed: say so in the ledger, to MLflow and to who watches.

        Args:
            devices: of one run: 1, or its part of a GPU.
        """
        self.conductor.spending.workers, self.conductor.spending.devices = workers, devices
        self.header = replace(self.header, workers=workers)
        self.header.write(self.path)
        self.ledger.begin_session(self.id, {"command": self.command, "workers": workers})
        self.tracker = Tracker(self.folder, uri, self.observer.note)
        self.observer.began(self.progress, workers)
        return self.tracker

    def listen(self, task: Task, said: Item | Outcome | None) -> None:
        """Pass on what happens to the progress, the observer and MLflow."""
        if self.start_s is None and isinstance(said, Trained):
            self.start_s = self.elapsed_s - said.record.wall_s
        self.progress.heard(task, said)
        self.observer.heard(task, said)
        if self.tracker is not None and not isinstance(said, Sampled):
            self.tracker.tell(task.asked, ended=isinstance(said, Outcome))

    def beat(self) -> None:
        """Some ten times a second."""
        self.progress.search_ended = self._search_ended()
        self.observer.beat()
        if time.monotonic() - self.ticked > TICK_S:
            self.ticked = time.monotonic()
            self.tick()
            self._take_stop_requests()

    def tick(self) -> None:
        """Note the working time so far."""
        self.ledger.tick(self.id, self.elapsed_s, self.conductor.spending.device_s_here, self.start_s)

    def note_end_of_search(self) -> None:
        """Write into the header what ended the search, if it has ended."""
        ended = self._search_ended()
        if self.header.search_ended != ended:
            self.header = replace(self.header, search_ended=ended)
            self.header.write(self.path)

    def _search_ended(self) -> str:
        return self.ledger.search_ended.get(self.conductor.requests.asks, {}).get("by", "")

    def compute_bounds(self) -> None:
        """Floor and ceiling of each metric at the sample counts that the tables show."""
        counts = {self.spec.evaluation.samples}
        if self.spec.search.finalists.top:
            counts.add(self.spec.search.finalists.samples or self.spec.evaluation.samples)
        found: list[Bounds] = [
            bounds(metric, self.data, count, self.store.references)
            for metric in self.spec.evaluation.metrics
            for count in sorted(counts)
        ]
        if screen := self.spec.evaluation.screen:
            found.append(bounds(screen.objective, self.data, screen.samples, self.store.references))
        self.header = replace(self.header, bounds=tuple(found))
        self.header.write(self.path)

    def _take_stop_requests(self) -> None:
        for request in (self.path / STOP_REQUESTS).glob("*"):
            self.conductor.stop_requests.add(request.name)
            request.unlink(missing_ok=True)

    def _recall_progress(self) -> None:
        for asked in self.ledger.of(self.conductor.requests.asks):
            outcome = self.ledger.end_of(asked)
            if outcome is not None and not outcome.by_machine and outcome.state is not State.INFEASIBLE:
                self._answered(asked, outcome)

    def _counts(self, asked: Asked, evaluation: Evaluation) -> bool:
        """Whether it keeps the constraints."""
        earned = self.conductor.requests.earned(asked, evaluation)
        return earned is None or earned.feasible

    def _answered(self, asked: Asked, outcome: Outcome) -> None:
        """A run that needs no worker: it ended before, or the store has all of it."""
        evaluations = self.folder.evaluations(asked) if outcome.ok else ()
        self.progress.answered(asked, outcome, evaluations)

    def _expected(self) -> int | None:
        search, finals = self.spec.search, self.spec.search.finalists
        size = grid_size(self.spec)
        if search.algorithm.name == "sequential":
            return None
        points = min(x for x in (search.runs, size) if x is not None) if (search.runs or size) else None
        return None if points is None else points * self.spec.repeats + finals.top * finals.repeats

    def _workers_before(self) -> int:
        """Of the last session that computed something; 0 before the first."""
        return int(self.ledger.sessions[-1]["workers"]) if self.ledger.sessions else 0

    def _header(self, requests: Requests) -> Header:
        spec, objective = self.spec, parse(self.spec.evaluation.objective)
        hashes = {f"extractor {parse(metric).extractor}": what for metric, what in requests.measures.items()}
        return Header(
            name=spec.name,
            objective=spec.evaluation.objective,
            direction=objective.direction,
            metrics=spec.evaluation.metrics,
            samples=spec.evaluation.samples,
            axes=tuple(axis.path for axis in spec.axes),
            milestones=spec.milestones,
            text=spec.text,
            source=str(spec.source or ""),
            command=self.command,
            workers=self._workers_before(),
            train_images=len(self.data.train),
            asks=requests.asks,
            extensions=dict(spec.extensions),
            measures=requests.measures,
            objectives=spec.evaluation.objectives,
            constraints=tuple(map(str, spec.search.constraints)),
            screen=_screened(requests),
            facts={**environment(), **hashes, "data": f"{self.data.name} {self.data.content}", "seed": str(spec.seed)},
        )


def _screened(requests: Requests) -> Screened | None:
    if requests.spec.evaluation.screen is None:
        return None
    by = requests.scoring("search")
    return Screened(by.objective, parse(by.objective).direction, by.samples)
