"""The sections of a study file: their keys, types, defaults and one sentence on each. pydantic, at this boundary only.

Each field is the type of a **single** value. Whether a list (or a range) of such values is an axis is the section's
business: everywhere in `model`, `diffusion`, `training` and `sampling` it is, but for the fields named in `SINGLE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from diffsearch.registry import FAMILIES

_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kM])")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m)?\s*(?:(\d+(?:\.\d+)?)\s*s)?")


@dataclass(frozen=True, slots=True)
class Known:
    """Marks a string that must be a registered name of a family; its JSON schema is the list of those names."""

    family: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(FAMILIES[self.family].names())}

    def _check(self, name: str) -> str:
        registry = FAMILIES[self.family]
        if name not in registry:
            raise PydanticCustomError(
                "unknown_value", "unknown value '{read}'", {"read": name, "help": registry.help(name)}
            )
        return name


def _count(read: Any) -> Any:
    """`2k` as 2000 and `1e3` as 1000; anything else as it is, for pydantic to judge."""
    if isinstance(read, str) and (match := _COUNT.fullmatch(read)):
        read = float(match[1]) * {"k": 1e3, "M": 1e6}[match[2]]
    return int(read) if isinstance(read, float) and read.is_integer() else read


def _duration(read: Any) -> Any:
    """`10m`, `1h30m`, `90s` as seconds."""
    match = _DURATION.fullmatch(read) if isinstance(read, str) and read else None
    if match is None:
        raise PydanticCustomError("duration", "should be a duration such as 90s, 10m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _as_several(read: Any) -> Any:
    return tuple(read) if isinstance(read, list | tuple) else (read,)


def _off_is_none(read: Any) -> Any:
    return None if read == "off" else read


def _auto_is_none(read: Any) -> Any:
    return None if read == "auto" else read


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise PydanticCustomError("ascending", "must ascend and name no value twice")
    return values


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "names a value twice")
    return values


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise PydanticCustomError("rising", "must be [low, high] with low < high")
    return pair


_COUNT_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kM]$"}]}
_COUNTS_SCHEMA = {"anyOf": [_COUNT_SCHEMA, {"type": "array", "items": _COUNT_SCHEMA, "minItems": 1}]}
_NAMES_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}

Positive: TypeAlias = Annotated[int, Field(ge=1)]
Count: TypeAlias = Annotated[int, Field(ge=0), BeforeValidator(_count), WithJsonSchema(_COUNT_SCHEMA)]
Images: TypeAlias = Annotated[int, Field(ge=1), BeforeValidator(_count), WithJsonSchema(_COUNT_SCHEMA)]
Samples: TypeAlias = Annotated[int, Field(ge=2), BeforeValidator(_count), WithJsonSchema(_COUNT_SCHEMA)]
Tracks: TypeAlias = Annotated[
    tuple[Count, ...],
    Field(min_length=1),
    AfterValidator(_distinct),
    BeforeValidator(_as_several),
    WithJsonSchema(_COUNTS_SCHEMA),
]
Milestones: TypeAlias = Annotated[
    tuple[Positive, ...],
    Field(min_length=1),
    AfterValidator(_ascending),
    BeforeValidator(_as_several),
    WithJsonSchema(_COUNTS_SCHEMA),
]
Names: TypeAlias = Annotated[
    tuple[str, ...], AfterValidator(_distinct), BeforeValidator(_as_several), WithJsonSchema(_NAMES_SCHEMA)
]
Paths: TypeAlias = Annotated[
    tuple[str, ...], AfterValidator(_distinct), BeforeValidator(_as_several), WithJsonSchema(_NAMES_SCHEMA)
]
Duration: TypeAlias = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?$", "minLength": 2}),
]
Range: TypeAlias = Annotated[tuple[float, float], AfterValidator(_rising)]
Clip: TypeAlias = Annotated[
    float | None,
    Field(gt=0),
    BeforeValidator(_off_is_none),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}, {"const": "off"}]}),
]
GivingUp: TypeAlias = Annotated[
    int | None,
    Field(ge=1),
    BeforeValidator(_off_is_none),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}, {"const": "off"}]}),
]
Share: TypeAlias = Annotated[
    float | None,
    Field(ge=0),
    BeforeValidator(_auto_is_none),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"const": "auto"}]}),
]


class Section(BaseModel):
    """One section of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    DISCRIMINATOR: ClassVar[str] = ""  # the key that names a registered member, whose options are keys here too
    FAMILY: ClassVar[str] = ""
    SINGLE: ClassVar[frozenset[str]] = frozenset()  # keys that are never an axis


class Data(Section):
    """The images. Never an axis: scores on different data can't be compared."""

    DISCRIMINATOR, FAMILY, SINGLE = "dataset", "dataset", frozenset({"dataset", "validation"})
    dataset: Annotated[str, Known("dataset")] = Field(description="Which images. The data set's options go beside it.")
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the training images, by a fixed draw, whose loss is only watched."
    )


class Model(Section):
    """The network."""

    DISCRIMINATOR, FAMILY = "kind", "model"
    kind: Annotated[str, Known("model")] = Field("unet", description="Which network. Its options go beside it.")


class Diffusion(Section):
    """How images become noise."""

    DISCRIMINATOR, FAMILY = "noise_process", "noise_process"
    noise_process: Annotated[str, Known("noise_process")] = Field(
        "linear-noise", description="How the signal fades. The process's options go beside it."
    )
    steps: Positive = Field(15, description="T: how finely training discretises the noise. Changing it trains again.")
    terminal: Literal["data-mean", "clamp", "skip"] = Field(
        "data-mean", description="What the last step knows of the image where no signal is left."
    )
    time: Literal["discrete", "continuous"] = Field(
        "discrete", description="continuous: training draws any noise level, and the network reads it instead of t."
    )


class Training(Section):
    """How the network is trained."""

    SINGLE = frozenset({"ema_half_life", "deterministic", "epochs"})
    loss: Annotated[str, Known("loss")] = Field("x0-l2", description="What the network predicts, and the norm.")
    batch_size: Positive = Field(128, description="Images an optimiser step.")
    normalization: Annotated[str, Known("normalization")] | Range = Field(
        (-1.0, 1.0), description="The range that [0, 255] is mapped to, or a registered name."
    )
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="Betas are torch's defaults.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="At its peak.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine falls to 0 at the last milestone; its epochs aren't prefixes of longer runs."
    )
    learning_rate_floor: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Where cosine ends, as a share of the peak."
    )
    warmup: Count = Field(0, description="Images over which the learning rate rises from 0.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="Decoupled under adamw.")
    min_snr_gamma: Clip = Field(None, description="min-SNR weighting of the loss, 5 is usual, or off.")
    learned_variance: bool = Field(False, description="The network also says the variance of its step.")
    conditioning: Literal["none", "class"] = Field("none", description="What the network is told of the image.")
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of labels that training hides; guidance needs some."
    )
    augmentation: Literal["none", "flip", "crop", "flip-crop"] = Field(
        "none", description="Mirrored left to right, moved by up to an eighth, or both."
    )
    gradient_clip: Clip = Field(1.0, description="Largest global norm of the gradient, or off.")
    ema_half_life: Tracks = Field(
        (0, 2000, 8000), description="Averages of the weights kept by every run, half-lives in images; 0: raw weights."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto measures which is faster here.")
    deterministic: bool = Field(True, description="Same settings, same machine, same bits.")
    epochs: Milestones = Field((1, 3, 9), description="Milestones: points along one run, never separate runs.")


class FinalSampling(Section):
    """How a finalist is sampled: a list is a sweep that never trains again."""

    DISCRIMINATOR, FAMILY = "sampler", "sampler"
    sampler: Annotated[str, Known("sampler")] = Field("ancestral", description="Its options go beside it.")
    steps: Positive | None = Field(None, description="Network calls an image; null: all of diffusion.steps.")
    ema: Count | None = Field(
        None, description="The track that is sampled; null: the shortest that averages, else the raw weights."
    )
    guidance_weight: Annotated[float, Field(ge=-1)] | None = Field(
        None, description="w in (1 + w) conditional - w unconditional: 0 doesn't guide, -1 is unconditional."
    )
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        None, description="The same as 1 + w: 1 doesn't guide, 0 is unconditional. One of the two."
    )


class Sampling(FinalSampling):
    """How a trained network is sampled: a list is a sweep that never trains again."""

    SINGLE = frozenset({"at"})
    at: Literal["milestones", "last", "finalists", "auto"] = Field(
        "milestones",
        description="Where the sweep is scored; elsewhere its first point is alone. auto: as its network calls allow.",
    )


class Screen(Section):
    """A cheap score for the search; only its best evaluations are then scored in full."""

    objective: str | None = Field(None, description="An unbiased metric, e.g. kd-digits; default: the objective.")
    samples: Samples | None = Field(None, description="Images drawn and scored at each milestone; needed.")
    keep: Annotated[float, Field(gt=0, le=1)] = Field(0.25, description="Share of evaluations scored in full.")


class Evaluation(Section):
    """What a sample is worth."""

    objective: str = Field("fid", description="The metric that the search ranks by, e.g. fid, kid, fd-digits.")
    objectives: Names = Field(
        (),
        description="Instead of objective: two or more metrics and costs to trade off, of network_calls (a sample), "
        "parameters, peak_memory_mb and training_images.",
    )
    metrics: Names = Field((), description="All to compute. Default: the objective, and it against train.")
    samples: Samples = Field(2500, description="Images drawn and scored at each milestone.")
    reference: Literal["test", "train"] = Field("test", description="The real images that are compared with.")
    seed: int = Field(0, description="Of the noise that samples start from, the same for all runs.")
    screen: Screen | None = Field(None, description="A cheap score for the search, see its keys.")


class Finalists(Section):
    """The best points again, with fresh seeds and more samples."""

    top: Annotated[int, Field(ge=0)] = Field(0, description="How many points; 0: no finals.")
    repeats: Positive = Field(3, description="Fresh training seeds each.")
    samples: Samples | None = Field(None, description="Images scored; null: as at milestones.")
    sampling: FinalSampling | None = Field(None, description="Sampling settings to sweep; others as at milestones.")


class Search(Section):
    """Which points are tried."""

    algorithm: str = Field("tpe", description="tpe, gp, nsga2, random, grid, sequential or a class of optuna.samplers.")
    runs: Positive | None = Field(None, description="Points to try; null: until the space or the budget is used up.")
    stopping: str = Field("none", description="none, asha, median or a scheduler class of ray.tune.")
    finalists: Finalists | None = Field(None, description="The final round.")
    constraints: Names = Field(
        (),
        description="What an evaluation must keep to win, e.g. [parameters < 2e6, network_calls <= 20]: costs and "
        "metrics. A point that breaks one before training is never trained.",
    )
    enqueue: tuple[Mapping[str, Any], ...] = Field(
        (),
        description="Points to try first, e.g. [{training.loss: x0-l2}]. Axes left out take their first value, ranges "
        "their middle.",
    )
    warm_start: Paths = Field(
        (),
        description="Studies of this store by their names, and folders of other stores: what they scored alike is "
        "known to the algorithm and costs no run.",
    )
    give_up_after: GivingUp = Field(
        10, description="Runs in a row that fail, run out of memory or are killed, which end the study; or off."
    )


class Until(Section):
    """What must go on for the search to go on."""

    no_improvement: Positive | None = Field(
        None, description="Runs in a row that don't better the best score, which end the search."
    )


class BudgetLimits(Section):
    """Whichever of runs and budget comes first ends the search; finals get their part of each."""

    wall: Duration | None = Field(None, description="Working time over all sessions, e.g. 10m.")
    images: Images | None = Field(
        None, description="Images trained by this study, e.g. 2M; what the store had is free. Never overshot."
    )
    device_hours: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Hours of all workers together; on a GPU, times their part of it."
    )
    until: Until | None = Field(None, description="End when nothing gets better.")


class Shares(Section):
    """What one run takes of the cluster."""

    cpu: Share = Field(None, description="CPUs of one run, or auto.")
    gpu: Share = Field(None, description="GPUs of one run, a fraction of one too, or auto.")


class Study(Section):
    """The keys at the top that hold one value."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        "study", description="Of reports and journals; default: the file's name."
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Of the search and of the training seeds.")
    repeats: Positive = Field(1, description="Training seeds of every point.")
    store: Path | None = Field(None, description="Folder of finished work; default .diffsearch.")
    keep: Literal["all", "milestones", "best", "last"] = Field(
        "milestones",
        description="Which checkpoints stay; best: the best milestone's and the last's, whatever other studies use.",
    )
    use: Paths = Field((), description="Your own files: Python that registers members, and trained classifiers.")


SECTIONS: Mapping[str, type[Section]] = {
    "data": Data,
    "model": Model,
    "diffusion": Diffusion,
    "training": Training,
    "sampling": Sampling,
    "evaluation": Evaluation,
    "search": Search,
    "budget": BudgetLimits,
    "resources": Shares,
}
TRAINING_SECTIONS = ("data", "model", "diffusion", "training")
VARIED_SECTIONS = frozenset({"model", "diffusion", "training", "sampling"})
