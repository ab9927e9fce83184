"""What the store holds and the report reads: epochs, scores, evaluations, and how a run ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from diffsearch.space.settings import Constraint, RunSettings, SamplingPoint, as_json, later, to_value


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of training."""

    epoch: int  # 1-based: epochs finished
    loss: float  # mean over the epoch's images, of the run's own loss
    images_seen: int  # since the start of the run
    images_per_s: float
    wall_s: float
    peak_memory_mb: float  # resident on CPU, allocated on CUDA
    validation_loss: float | None = None  # of the images that were held out, raw weights; None where none were

    def to_json(self) -> dict[str, Any]:
        return as_json(self)


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one evaluation. Finite by construction."""

    value: float
    samples: int  # generated images that were scored
    extractor: str  # content hash of the extractor's weights
    spread: float | None = None  # within these images, where the metric has one: see its kind
    bias: float | None = later(None)  # how far too high it is for want of images, where the metric estimates that

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, got {self.value}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One score sheet: (run, epoch, sampling point, samples, noise seed) → metrics. The row of every table."""

    key: str
    run_key: str
    epoch: int
    sampling: SamplingPoint
    samples: int
    noise_seed: int
    scores: Mapping[str, Score]  # metric name → score
    network_calls: int
    sampling_s: float
    scoring_s: float

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Evaluation:
        fields = dict(plain)
        fields["sampling"] = SamplingPoint.from_json(plain["sampling"])
        fields["scores"] = {name: Score(**score) for name, score in plain["scores"].items()}
        return cls(**fields)


class State(str, Enum):
    """How a run, or an attempt at it, ended. Only FINISHED and STOPPED_EARLY carry scores that rank."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"  # one study's decision; the run itself may go on elsewhere
    DIVERGED = "diverged"
    FAILED = "failed"  # a bug or bad input; not retried
    OUT_OF_MEMORY = "out of memory"
    KILLED = "killed"
    INFEASIBLE = "infeasible"  # a constraint refuses the run before it is trained

    def __str__(self) -> str:
        return self.value


BY_MACHINE = "by machine"  # detail of an outcome
CUT = "budget"  # detail of a run that was stopped early since this limit was used up: raised, it goes on


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, with its reason where it isn't a success. Carries no number."""

    state: State
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # e.g. the traceback of a bug

    @property
    def by_machine(self) -> bool:
        """A failure that says nothing of the run, such as a full disk or one of a row: the next `run` tries again."""
        return bool(self.details.get(BY_MACHINE))

    @property
    def ok(self) -> bool:
        return self.state in (State.FINISHED, State.STOPPED_EARLY)


@dataclass(frozen=True, slots=True)
class RunHistory:
    """One run as one study saw it."""

    key: str
    settings: RunSettings
    point: Mapping[str, Any]  # dotted path of each training axis that exists here → value (a Choice as its JSON)
    stage: Literal["search", "finalist"]
    order: int  # 1-based, in the order in which the study asked for its runs
    outcome: Outcome
    epochs: tuple[EpochRecord, ...]
    evaluations: tuple[Evaluation, ...]  # only those that this study asked for
    reused_epochs: int  # of `epochs`, how many this study found in the store
    reused_evaluations: int
    attempts: tuple[Outcome, ...] = ()  # attempts that ended badly before this outcome, oldest first
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: int | None = later(None)  # where the study trades them off or bounds them
    screened: tuple[Evaluation, ...] = later(())  # by the screen of a study that has one, apart from `evaluations`
    reused_screened: int = later(0)

    @property
    def all_evaluations(self) -> tuple[Evaluation, ...]:
        """The screen's and the full ones: what was drawn and scored, never to be ranked together."""
        return (*self.screened, *self.evaluations)

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RunHistory:
        fields = dict(plain)
        fields["settings"] = RunSettings.from_json(plain["settings"])
        fields["point"] = {path: to_value(value) for path, value in plain["point"].items()}
        fields["outcome"] = _outcome(plain["outcome"])
        fields["epochs"] = tuple(EpochRecord(**epoch) for epoch in plain["epochs"])
        for kind in ("evaluations", "screened"):
            fields[kind] = tuple(Evaluation.from_json(line) for line in plain.get(kind, ()))
        fields["attempts"] = tuple(_outcome(attempt) for attempt in plain["attempts"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a score can be: real images against real ones, and pure noise, at one sample count."""

    metric: str
    samples: int
    floor: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class Screened:
    """What the search of a study with a screen ranked by; the study's own objective is then of full scores alone."""

    objective: str
    direction: Literal["min", "max"]
    samples: int


@dataclass(frozen=True, slots=True)
class StudyHistory:
    """Everything that a report of one study needs besides pictures."""

    name: str
    objective: str
    direction: Literal["min", "max"]
    metrics: tuple[str, ...]
    samples: int  # scored at each milestone
    axes: tuple[str, ...]  # dotted paths of the training axes, in file order
    milestones: tuple[int, ...]
    runs: tuple[RunHistory, ...]
    bounds: tuple[Bounds, ...]
    text: str  # the study file as it was run
    command: str
    wall_s: float  # working time over all sessions
    sessions: int
    workers: int
    train_images: int
    read_from: str  # "MLflow (sqlite:///...)" or "the store (...)"
    facts: Mapping[str, str] = field(default_factory=dict)  # versions, device, git sha, content hashes
    objectives: tuple[str, ...] = ()  # metrics and costs that the study trades off; () where it has one objective
    constraints: tuple[Constraint, ...] = ()
    search_ended: str = ""  # by what, e.g. "budget.wall (10m)"; "" while it goes on, or where that isn't known
    screen: Screened | None = None


def _outcome(plain: Mapping[str, Any]) -> Outcome:
    return Outcome(State(plain["state"]), plain["reason"], dict(plain["details"]))
