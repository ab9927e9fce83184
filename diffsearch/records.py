"""What the store holds and the report reads: epochs, scores, evaluations, and how a run ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from diffsearch.space.settings import SamplingPoint, to_plain


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of training."""

    epoch: int  # 1-based: epochs finished
    loss: float  # mean over the epoch's images, of the run's own loss
    images_seen: int  # since the start of the run
    images_per_s: float
    wall_s: float
    peak_memory_mb: float  # resident on CPU, allocated on CUDA

    def to_json(self) -> dict[str, Any]:
        return to_plain(self)


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one evaluation. Finite by construction."""

    value: float
    samples: int  # generated images that were scored
    extractor: str  # content hash of the extractor's weights
    spread: float | None = None  # standard deviation over subsets, where the metric has one

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
        return to_plain(self)

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

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, with its reason where it isn't a success. Carries no number."""

    state: State
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # e.g. the traceback of a bug

    @property
    def ok(self) -> bool:
        return self.state in (State.FINISHED, State.STOPPED_EARLY)
