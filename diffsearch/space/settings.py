"""What a study file means, as frozen dataclasses: past this module nothing reads a dictionary by key.

Three kinds of settings, as the five laws need them:

* `RunSettings`: all that a training run's weights depend on, and nothing else; hashed into the run key.
* `SamplingPoint`: all that the samples drawn from one checkpoint depend on besides the checkpoint.
* `StudySpec`: the whole file, with its axes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeAlias

LATER = "later"


def later(default: Any) -> Any:
    """A setting that runs already in a store were made without: at its default, which says what they did, it is
    left out of the JSON and so of every key."""
    return field(default=default, metadata={LATER: True})


Value: TypeAlias = "str | int | float | bool | tuple[Value, ...] | None"
Point: TypeAlias = Mapping[str, Any]  # dotted path of an axis → its value there (a plain Value or a Choice)


@dataclass(frozen=True, slots=True)
class Choice:
    """A registered name with the options that were given to it."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()  # sorted by name

    @classmethod
    def of(cls, name: str, **options: Any) -> Choice:
        return cls(name, tuple(sorted(options.items())))

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self.options)

    def __str__(self) -> str:
        inside = ", ".join(f"{key} {show(value)}" for key, value in self.options)
        return f"{self.name} ({inside})" if inside else self.name


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    loss: str  # e.g. "x0-l2": what the network predicts, and the norm
    batch_size: int
    normalization: str | tuple[float, float]  # a registered name or the range that [0, 255] is mapped to
    optimizer: Literal["adamw", "adam"]
    learning_rate: float  # peak
    schedule: Literal["constant", "cosine"]
    warmup: int  # images over which the learning rate rises linearly from 0
    weight_decay: float
    gradient_clip: float | None  # largest global norm; None: not clipped
    ema_half_life: tuple[int, ...]  # tracks kept side by side, half-lives in images; 0 is the raw weights
    precision: Literal["fp32", "bf16"]  # `auto` is resolved when the file is loaded
    deterministic: bool
    horizon: int | None  # epochs that the learning rate is planned for; None unless the schedule depends on it
    learning_rate_floor: float = later(0.0)  # where a falling rate ends, as a share of the peak
    conditioning: Literal["none", "class"] = later("none")  # what the network is told besides x_t and t
    label_dropout: float = later(0.1)  # share of the labels that training hides, so that guidance has both to compare
    augmentation: Literal["none", "flip", "crop", "flip-crop"] = later("none")
    min_snr_gamma: float | None = later(None)  # min-SNR weighting of the loss; None: every step weighs alike
    learned_variance: bool = later(False)  # the network says the variance of a step too, and is taught it


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One point on the training axes, and its seed: everything that a run's weights depend on."""

    dataset: Choice
    model: Choice
    noise_process: Choice
    steps: int  # T
    terminal: Literal["data-mean", "clamp", "skip"]  # the rule at alpha_bar_T = 0
    training: TrainingSettings
    seed: int
    time: Literal["discrete", "continuous"] = later("discrete")  # whether training draws a step or any noise level

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RunSettings:
        training = dict(plain["training"])
        training["normalization"] = to_value(training["normalization"])
        training["ema_half_life"] = tuple(training["ema_half_life"])
        return cls(
            dataset=choice_from_json(plain["dataset"]),
            model=choice_from_json(plain["model"]),
            noise_process=choice_from_json(plain["noise_process"]),
            steps=plain["steps"],
            terminal=plain["terminal"],
            training=TrainingSettings(**training),
            seed=plain["seed"],
            time=plain.get("time", "discrete"),
        )


@dataclass(frozen=True, slots=True)
class SamplingPoint:
    """One point on the sampling axes: how a trained checkpoint is sampled. Never retrains."""

    sampler: Choice
    steps: int | None  # network calls a sample; None: every step of the process, T
    ema: int  # half-life in images of the track that is sampled; 0: the raw weights
    guidance: float = later(0.0)  # w of Ho & Salimans 2022: (1 + w) conditional - w unconditional; 0: none

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> SamplingPoint:
        return cls(**{**plain, "sampler": choice_from_json(plain["sampler"])})

    def __str__(self) -> str:
        steps = "" if self.steps is None else f", {self.steps} steps"
        guidance = f", guidance w {show(self.guidance)}" if self.guidance else ""
        return f"{self.sampler}{steps}{guidance}, EMA {show_count(self.ema) if self.ema else 'off'}"


# --- axes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choices:
    """Values to choose from, in file order."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Uniform:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LogUniform:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Integers:
    low: int
    high: int  # inclusive


Domain: TypeAlias = Choices | Uniform | LogUniform | Integers


@dataclass(frozen=True, slots=True)
class Axis:
    """One hyperparameter that the study varies by training again, or by sampling again."""

    path: str  # dotted, as in the file: "training.loss"
    domain: Domain
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()  # exists only where each named path has one of these values
    line: int = 0

    @property
    def name(self) -> str:
        return self.path.rsplit(".", 1)[-1]

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Whether the axis has a meaning, given the values of the paths that it depends on."""
        return all(
            any(value == wanted or (isinstance(value, Choice) and value.name == wanted) for wanted in allowed)
            for path, allowed in self.when
            for value in [values.get(path)]
        )


# --- the study ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """The cheap score that the search learns from, where its best evaluations alone are scored in full."""

    objective: str
    samples: int  # fewer than in full
    keep: float  # share of the search's evaluations that is scored in full, in (0, 1]


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    objective: str  # the metric that the search ranks by, e.g. "fd-digits"
    metrics: tuple[str, ...]  # every metric that is computed, the objective first
    samples: int  # images drawn and scored at each milestone
    reference: Literal["test", "train"]
    seed: int  # of the evaluation noise: the same for all runs of one repeat index
    objectives: tuple[str, ...] = later(())  # two or more metrics and costs, of which `objective` is the first metric
    screen: ScreenSettings | None = field(default=None, metadata={LATER: True})  # as `later`


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an evaluation must keep to win, e.g. `parameters < 2e6`."""

    quantity: str  # a cost or a metric
    relation: Literal["<", "<=", ">", ">="]
    bound: float

    def holds(self, value: float) -> bool:
        below, at = value < self.bound, value == self.bound and "=" in self.relation
        return at or (below if self.relation.startswith("<") else value > self.bound)

    def violation(self, value: float) -> float:
        """By how much it is broken, as a share of its bound; 0 or less where it holds, > 0 where it doesn't."""
        beyond = value - self.bound if self.relation.startswith("<") else self.bound - value
        share = beyond / (abs(self.bound) or 1.0)
        return share if self.holds(value) else max(share, 1e-9)

    def __str__(self) -> str:
        return f"{self.quantity} {self.relation} {self.bound:.15g}"


@dataclass(frozen=True, slots=True)
class FinalistSettings:
    top: int = 0  # 0: no finals
    repeats: int = 3  # fresh training seeds each
    samples: int = 0  # 0: as at milestones
    sampling: tuple[SamplingPoint, ...] = ()  # swept for finalists; () : as at milestones


@dataclass(frozen=True, slots=True)
class SearchSettings:
    algorithm: Choice
    runs: int | None  # None: until the space or the budget is used up
    stopping: Choice
    finalists: FinalistSettings
    constraints: tuple[Constraint, ...] = ()
    enqueue: tuple[Point, ...] = ()  # tried before the algorithm is asked
    warm_start: tuple[str, ...] = ()  # names of studies in this store, and folders of other stores
    give_up_after: int | None = None  # runs in a row that fail, which end the study; None: it never gives up


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of the search, each over all sessions of the study; None: none."""

    wall_s: float | None = None  # working time
    images: int | None = None  # trained by this study
    device_s: float | None = None  # of all workers together, times the part of a GPU that each has
    no_improvement: int | None = None  # runs in a row that don't better the best score

    @property
    def is_endless(self) -> bool:
        return self == Budget()


@dataclass(frozen=True, slots=True)
class Resources:
    """CPUs and GPUs of one run; `None` means auto: measured and divided by what the cluster has."""

    cpu: float | None = None
    gpu: float | None = None


@dataclass(frozen=True, slots=True)
class StudySpec:
    """A study file, parsed, checked and resolved."""

    name: str
    seed: int
    repeats: int  # training seeds of every point
    fixed: Mapping[str, Any]  # dotted path → value, for every training setting that isn't an axis (defaults filled in)
    axes: tuple[Axis, ...]  # training axes, in file order
    milestones: tuple[int, ...]  # ascending epochs, ≥ 1
    sampling_fixed: Mapping[str, Any]
    sampling_axes: tuple[Axis, ...]
    evaluation: EvaluationSettings
    search: SearchSettings
    budget: Budget
    resources: Resources
    use: tuple[Path, ...]
    store: Path | None
    keep: Literal["all", "milestones", "best", "last"]  # which checkpoints stay
    source: Path | None  # the file it was read from
    text: str  # the file as it was read, overrides applied: what a report repeats
    extensions: Mapping[str, str] = field(
        default_factory=dict
    )  # "family:name" → content hash, for members of `use:` files
    sampling_at: Literal["milestones", "last", "finalists", "auto"] = "milestones"  # where the sweep is scored

    @property
    def max_epochs(self) -> int:
        return self.milestones[-1]


# --- plain JSON ---------------------------------------------------------------------------------------------------


def as_json(record: Any) -> dict[str, Any]:
    """A dataclass as a JSON object; see `later` for what is left out."""
    return {name: to_plain(value) for name, value in told(record).items()}


def told(record: Any) -> dict[str, Any]:
    """A dataclass' fields by name, without those that are at the default of a setting that came `later`."""
    values = ((f, getattr(record, f.name)) for f in dataclasses.fields(record))
    return {f.name: value for f, value in values if not (f.metadata.get(LATER) and value == f.default)}


_PLAIN = (str, int, float, bool, type(None))


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as JSON types; the inverse of each `from_json`."""
    if type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_json(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return value


def to_value(plain: Any) -> Any:
    """JSON lists back as tuples."""
    return tuple(to_value(inner) for inner in plain) if isinstance(plain, list | tuple) else plain


def choice_from_json(plain: Mapping[str, Any]) -> Choice:
    return Choice(plain["name"], tuple((key, to_value(value)) for key, value in plain["options"]))


def canonical(value: Any) -> str:
    """One spelling for equal settings: sorted keys, no spaces, floats as Python repeats them."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# --- how values are shown -----------------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value in a table cell: `16-32-64` for channels, `[-1, 1]` for a range, `3e-04` for a rate."""
    if isinstance(value, tuple):
        if len(value) > 2 and all(isinstance(v, int) for v in value):
            return "-".join(map(str, value))
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def show_count(images: int) -> str:
    """2000 as `2k`."""
    return f"{images // 1000}k" if images and images % 1000 == 0 else str(images)


def show_duration(seconds: float) -> str:
    """5400 as `1h30m`, as a study file spells it."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{count:g}{unit}" for count, unit in parts if count) or "0s"


def walk_choices(settings: RunSettings) -> Iterator[tuple[str, str]]:
    """(family, name) of every registered member that a run's weights depend on."""
    yield "dataset", settings.dataset.name
    yield "model", settings.model.name
    yield "noise_process", settings.noise_process.name
    yield "loss", settings.training.loss
    if isinstance(settings.training.normalization, str):
        yield "normalization", settings.training.normalization
