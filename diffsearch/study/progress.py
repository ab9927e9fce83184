"""Where a study stands, as numbers: fed with what the conductor and the workers say, drawn by the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from diffsearch.records import Evaluation, Outcome, State
from diffsearch.study.conductor import Task
from diffsearch.study.ledger import Asked
from diffsearch.study.requests import Scoring
from diffsearch.trial import Item, Sampled, Scored, Trained


@dataclass
class Running:
    """A task on a worker."""

    task: Task
    phase: str = "starting"  # "epoch 2/9", "sampling 500/1,000"
    images_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A run with its best evaluation so far."""

    asked: Asked
    evaluation: Evaluation
    score: float  # lower is better
    objective: str  # that its stage ranks by


@dataclass
class Progress:
    """The numbers behind the live table. `now` is monotonic seconds."""

    objective: str
    sign: float
    expected: int | None  # runs, finalists included; None where nobody knows
    axes: tuple[str, ...]
    began: float = field(default_factory=time.monotonic)
    wall_before_s: float = 0.0  # of earlier sessions
    running: dict[str, Running] = field(default_factory=dict)
    ended: dict[tuple[str, str], Outcome] = field(default_factory=dict)  # (stage, run key)
    failed: list[tuple[Asked, Outcome]] = field(default_factory=list)
    best: dict[tuple[str, str], Ranked] = field(default_factory=dict)
    trained_epochs: int = 0  # in this session
    evaluations: int = 0  # in this session
    ended_here: int = 0  # runs, in this session
    first_at: float | None = None  # when this session handed out its first run: what came before isn't its pace
    notes: list[str] = field(default_factory=list)
    counts: Callable[[Asked, Evaluation], bool] = lambda asked, evaluation: True  # whether a score may be the best
    search_ended: str = ""  # by what; "" while it goes on
    screen: Scoring | None = None  # what the search ranks by instead of the objective

    def heard(self, task: Task, said: Item | Outcome | None) -> None:
        """Take what the runner says of a task: None when it is handed out, an item, or its end."""
        where = (task.asked.stage, task.asked.run_key)
        if said is None:
            self.running[task.id] = Running(task)
            self.first_at = self.first_at or time.monotonic()
            self.ended.pop(where, None)  # an attempt that was killed is tried again
            return
        if isinstance(said, Outcome):
            self.running.pop(task.id, None)
            self.ended[where] = said
            self.ended_here += task.asked.stage != "full"
            if not said.ok:
                self.failed.append((task.asked, said))
                self.best.pop(where, None)
            return
        running = self.running[task.id]
        match said:
            case Trained(record):
                self.trained_epochs += 1
                running.phase = f"epoch {record.epoch}/{task.asked.milestones[-1]}"
                running.images_per_s = record.images_per_s
            case Sampled(_, done, total, images_per_s):
                running.phase = f"sampling {done:,}/{total:,}"
                running.images_per_s = images_per_s
            case Scored(evaluation, _, reused):
                self.evaluations += not reused
                self.scored(task.asked, evaluation)

    def answered(self, asked: Asked, outcome: Outcome, evaluations: Iterable[Evaluation]) -> None:
        """Take a run that ended without a worker of this session."""
        self.ended[asked.stage, asked.run_key] = outcome
        if not outcome.ok:
            self.failed.append((asked, outcome))
        for evaluation in evaluations:
            self.scored(asked, evaluation)

    def scored(self, asked: Asked, evaluation: Evaluation) -> None:
        """Take an evaluation, new or from the store."""
        if not self.counts(asked, evaluation):
            return
        where = (asked.stage, asked.run_key)
        ranks_by, sign = self.objective, self.sign
        if self.screen is not None and asked.stage == "search":
            ranks_by, sign = self.screen.objective, self.screen.sign
        score = sign * evaluation.scores[ranks_by].value
        if where not in self.best or score < self.best[where].score:
            self.best[where] = Ranked(asked, evaluation, score, ranks_by)

    def top(self, count: int) -> list[Ranked]:
        """The best runs of the stage that is under way: those of each stage are ranked among themselves."""
        begun = {of for of, _ in self.best}
        stage = next((stage for stage in ("finalist", "full") if stage in begun), "search")
        ranked = [ranked for (of, _), ranked in self.best.items() if of == stage]
        return sorted(ranked, key=lambda ranked: ranked.score)[:count]

    def count(self, state: State) -> int:
        return sum(outcome.state == state for (stage, _), outcome in self.ended.items() if stage != "full")

    @property
    def done(self) -> int:
        """Runs; to score one in full is no further run."""
        return sum(stage != "full" for stage, _ in self.ended)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def left_s(self) -> float | None:
        """A guess from this session's pace; None until a few runs have ended in it."""
        if self.expected is None or self.first_at is None or self.ended_here < 2 or self.done >= self.expected:
            return None
        under_way = 0.5 * len(self.running)
        pace_s = (time.monotonic() - self.first_at) / (self.ended_here + under_way)
        return pace_s * max(0.0, self.expected - self.done - under_way)

    @property
    def share(self) -> float:
        """Of the study that is done, in [0, 1]; 0 where nobody knows how much it is."""
        return 0.0 if not self.expected else min(1.0, self.done / self.expected)
