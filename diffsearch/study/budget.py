"""What a study may spend, what it has spent, and what of it is kept for its finals.

A budget ends the search, never an evaluation:

* `wall`, `device_hours`: once the search's part is used up, no further run begins, and each run under way stops at the
  next milestone that it trains to, with the scores that it earned. Overshot by no more than what one run takes from a
  milestone to the next.
* `images`: a run begins only where it would fit if it went to its last milestone, beside those under way. Never
  overshot by the search.
* `until.no_improvement`: runs under way go to their end; if one of them is better than all before, the search goes on.

The finals are run in full. What their images and samples are expected to cost, up to half of each limit, is kept for
them: images are counted; time is told by the pace of this study's own search runs, and before there is one by their
share of all the work that the file asks for. Raised, a budget lets the same command go on, with what it cut off first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from diffsearch.records import EpochRecord, Evaluation
from diffsearch.space.axes import ends, finalist_points, settings_at, walk
from diffsearch.space.settings import StudySpec, canonical, show_duration
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.study.requests import Requests
from diffsearch.study.sweep import TRAINING_CALLS
from diffsearch.trial import Item, Scored, Trained

MOST_KEPT = 0.5  # of a limit, for the finals
UNKNOWN_FINALS = 0.3  # of a time limit, where the file doesn't say how many runs there will be


@dataclass
class Pace:
    """What the work of the search took."""

    seconds: float = 0.0
    images: float = 0.0  # trained
    calls: float = 0.0  # of the network, one image each
    samples: float = 0.0  # drawn

    @property
    def s_per_image(self) -> float | None:
        """Seconds that a trained image, or its worth in sampling, takes; None before any was."""
        work = self.images + self.calls / TRAINING_CALLS
        return self.seconds / work if work else None

    def take(self, evaluation: Evaluation) -> None:
        self.seconds += evaluation.sampling_s + evaluation.scoring_s
        self.calls += evaluation.network_calls
        self.samples += evaluation.samples

    def train(self, record: EpochRecord) -> None:
        self.seconds += record.wall_s
        self.images += record.images_seen / record.epoch


@dataclass
class Spending:
    """The account of one study, over all of its sessions.

    Args:
        requests: what the study asks for; with its spec, store and ledger.
        wall_s: its working time so far, in seconds; the clock of everything here.
        workers: runs at once, those of the last session until this one says.
        devices: of one run: 1, or its part of a GPU.
    """

    requests: Requests
    wall_s: Callable[[], float]
    workers: int = field(default=1, init=False)
    devices: float = field(default=1.0, init=False)
    images: int = field(default=0, init=False)  # trained for this study
    pace: Pace = field(default_factory=Pace, init=False)

    def __post_init__(self) -> None:
        self._limits, self._finals = self.requests.spec.budget, self.requests.spec.search.finalists
        self._device_s_before = self.requests.ledger.device_s
        self._sealed = self.requests.ledger.search_ended.get(self.requests.asks, {})
        self._busy_s = 0.0  # of this session's ended tasks, times `devices`
        self._since: dict[str, float] = {}  # task id → when it was handed out
        self._epochs: dict[str, int] = {}  # run key → epochs that it has
        self._ahead: dict[str, int] = {}  # run key → images that it may yet train
        sessions = self.requests.ledger.sessions
        self.workers = int(sessions[-1]["workers"]) if sessions else 1
        self._recall(self.requests.ledger)

    # --- what is spent ----------------------------------------------------------------------------------------------

    @property
    def device_s_here(self) -> float:
        """Of this session: the time of every task, times its part of a device."""
        now = self.wall_s()
        return self._busy_s + self.devices * sum(now - since for since in self._since.values())

    def begin(self, task: str, run: str) -> None:
        """A task was handed out."""
        self._since[task] = self.wall_s()
        self._epochs[run] = self._reached(run)

    def put_back(self, task: str) -> None:
        self._since.pop(task, None)

    def end(self, task: str) -> bool:
        """A task came to its end; whether a worker had it."""
        since = self._since.pop(task, None)
        self._busy_s += 0.0 if since is None else self.devices * (self.wall_s() - since)
        return since is not None

    def ask(self, asked: Asked) -> None:
        """A run will be worked on."""
        epochs = max(0, asked.milestones[-1] - self._reached(asked.run_key))
        self._ahead[asked.run_key] = epochs * self.requests.train_images

    def settle(self, run: str) -> None:
        """A run trains no further."""
        self._ahead.pop(run, None)

    def heard(self, asked: Asked, item: Item) -> None:
        """Count what a worker did."""
        if isinstance(item, Trained):
            record, key = item.record, asked.run_key
            new = max(0, record.epoch - self._epochs.get(key, 0))  # 0: trained again after a kill
            images = new * record.images_seen // record.epoch
            self.images += images
            self._epochs[key] = max(record.epoch, self._epochs.get(key, 0))
            self._ahead[key] = max(0, self._ahead.get(key, 0) - images)
            if asked.stage == "search":
                self.pace.train(record)
        elif isinstance(item, Scored) and not item.reused and asked.stage == "search":
            self.pace.take(item.evaluation)

    # --- whether the search goes on ---------------------------------------------------------------------------------

    def used_up(self) -> str:
        """The limit of time that the search has reached, "" while there is none: runs under way stop too."""
        limits = self._timed()
        if self._sealed.get("stamp") == self.stamp and self._sealed["by"] in limits:
            return self._sealed["by"]
        return next((by for by, (limit, spent, kept) in limits.items() if spent >= limit - kept), "")

    def crowded_out(self) -> str:
        """The limit under which no further run fits beside those under way, "" while one does."""
        limit = self._limits.images
        if limit is None or self.images + sum(self._ahead.values()) + self._a_run <= limit - self._kept_images:
            return ""
        return f"budget.images ({limit:,})"

    def patience_ended(self, without: int) -> str:
        """The limit that so many runs without a better score have reached, "" while there is none."""
        limit = self._limits.no_improvement
        return "" if limit is None or without < limit else f"budget.until.no_improvement ({limit})"

    @property
    def stamp(self) -> str:
        return stamp_of(self.requests.spec)

    def complaint(self) -> str:
        """Why not even one run fits into an untouched budget of images."""
        limit, kept = self._limits.images, self._kept_images
        finals = f", and {kept:,} are kept for the finals" if kept else ""
        return (
            f"budget.images: {limit:,} images buy no run: one trains {self._a_run:,} to its last milestone{finals}. "
            "Raise it, or lower training.epochs."
        )

    def _timed(self) -> dict[str, tuple[float, float, float]]:
        """Each limit of time, in words: (it, what was spent of it, what is kept of it for the finals), in seconds."""
        found: dict[str, tuple[float, float, float]] = {}
        wall, device = self._limits.wall_s, self._limits.device_s
        if wall is not None:
            found[f"budget.wall ({show_duration(wall)})"] = wall, self.wall_s(), self._kept_s(wall, wall=True)
        if device is not None:
            spent = self._device_s_before + self.device_s_here
            found[f"budget.device_hours ({device / 3600:g})"] = device, spent, self._kept_s(device, wall=False)
        return found

    # --- what is kept for the finals --------------------------------------------------------------------------------

    @property
    def _a_run(self) -> int:
        """Images of a point's runs, if each goes to its last milestone."""
        spec = self.requests.spec
        return spec.repeats * spec.max_epochs * self.requests.train_images

    @property
    def _kept_images(self) -> int:
        limit, finals = self._limits.images or 0, self._finals
        wanted = finals.top * finals.repeats * self.requests.spec.max_epochs * self.requests.train_images
        return min(wanted, int(limit * MOST_KEPT))

    def _kept_s(self, limit: float, *, wall: bool) -> float:
        runs, pace = self._finals.top * self._finals.repeats, self.pace.s_per_image
        if pace is None:
            return limit * min(MOST_KEPT, finals_share(self.requests.spec))
        one_s, passed_s = pace * self._finalist_work(), pace * self._passed_work()
        if wall:
            return min(limit * MOST_KEPT, one_s * math.ceil(runs / self.workers) + passed_s / self.workers)
        return min(limit * MOST_KEPT, (one_s * runs + passed_s) * self.devices)

    def _passed_work(self) -> float:
        """Of the full scores of what a screen lets pass of the search so far, in trained images."""
        evaluation = self.requests.spec.evaluation
        if evaluation.screen is None:
            return 0.0
        return (
            evaluation.screen.keep * self.pace.calls * evaluation.samples / evaluation.screen.samples / TRAINING_CALLS
        )

    def _finalist_work(self) -> float:
        """Of one finalist, in trained images, at the network calls that the search's samples took on average."""
        spec = self.requests.spec
        calls = finalist_samples(spec) * (self.pace.calls / self.pace.samples if self.pace.samples else 0.0)
        return spec.max_epochs * self.requests.train_images + calls / TRAINING_CALLS

    # --- what earlier sessions knew ---------------------------------------------------------------------------------

    def _recall(self, ledger: Ledger) -> None:
        """Images and pace of the runs that the study asked for, as the store has them."""
        deepest: dict[str, Asked] = {}
        for asked in ledger.asked:
            before = deepest.get(asked.run_key)
            if before is None or before.milestones[-1] < asked.milestones[-1]:
                deepest[asked.run_key] = asked
        for key, asked in deepest.items():
            folder = self.requests.store.run(key)
            records = [record for record in folder.epochs() if record.epoch <= asked.milestones[-1]]
            first = ledger.first(asked.stage, key) or asked
            new = max(0, len(records) - first.reused_epochs)
            self.images += new * records[-1].images_seen // records[-1].epoch if records else 0
            if asked.stage == "search":
                for record in records:
                    self.pace.train(record)
                for evaluation in folder.evaluations().values():
                    self.pace.take(evaluation)

    def _reached(self, run: str) -> int:
        return max((record.epoch for record in self.requests.store.run(run).epochs()), default=0)


def stamp_of(spec: StudySpec) -> str:
    """What the end of a search depends on besides its runs: a search that a limit ended stays so under the same."""
    return canonical([spec.budget, spec.search.finalists])


def finalist_samples(spec: StudySpec) -> int:
    """Images that are drawn of one finalist, over its sampling points."""
    settings = settings_at(spec, walk(spec.axes, spec.fixed, lambda axis: ends(axis)[0]), spec.seed)
    return (spec.search.finalists.samples or spec.evaluation.samples) * len(finalist_points(spec, settings))


def finals_share(spec: StudySpec) -> float:
    """The finals' part of all work, told by epochs and samples alone: a milestone's samples count as an epoch."""
    finals, runs = spec.search.finalists, spec.search.runs
    if not finals.top or runs is None:
        return UNKNOWN_FINALS if finals.top else 0.0
    ahead = finals.top * finals.repeats * (spec.max_epochs + finalist_samples(spec) / spec.evaluation.samples)
    return ahead / (ahead + runs * (spec.max_epochs + len(spec.milestones)))
