"""Checks of what is scored: metric names, how many images they need, whether their extractor fits the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffsearch.registry import dataset, extractor, metric, suggest
from diffsearch.space.axes import member_at
from diffsearch.space.members import Draft
from diffsearch.space.settings import StudySpec

USUAL_NAMES = {"fid": ("fd", "inception"), "kid": ("kd", "inception"), "is": ("is", "inception")}
TRAIN = "-train"


@dataclass(frozen=True, slots=True)
class Parts:
    """A metric's name taken apart: `fd-digits-train` is `fd` on `digits`, to the training images."""

    kind: str
    extractor: str


def parts_of(name: str) -> Parts | None:
    """The registered kind and extractor that a metric's name stands for; None where it stands for none."""
    base = name.removesuffix(TRAIN)
    if base in USUAL_NAMES:
        kind, features = USUAL_NAMES[base]
        return Parts(kind, features) if kind in metric and features in extractor else None
    for kind in sorted(metric.names(), key=len, reverse=True):
        if base.startswith(f"{kind}-") and base.removeprefix(f"{kind}-") in extractor:
            return Parts(kind, base.removeprefix(f"{kind}-"))
    return None


def direction_of(name: str) -> Literal["min", "max"]:
    """Whether low or high scores of a metric are good; `name` is known."""
    parts = parts_of(name)
    assert parts is not None, f"{name} is no metric"
    found: Literal["min", "max"] = metric.member(parts.kind).traits.get("direction", "min")
    return found


def metric_names() -> tuple[str, ...]:
    """Every metric that has a name, those to the training images aside."""
    pairs = {(kind, features): f"{kind}-{features}" for kind in metric.names() for features in extractor.names()}
    usual = {name for name, pair in USUAL_NAMES.items() if pair in pairs}
    return tuple(sorted(usual | {name for pair, name in pairs.items() if pair not in USUAL_NAMES.values()}))


def check_metrics(spec: StudySpec, draft: Draft) -> None:
    """Known names, the objective among them, enough images for each, and images that the extractor can read."""
    written = draft.settings.get("evaluation.objective")
    objective = written.only if written is not None else spec.evaluation.objective
    listed = draft.settings.get("evaluation.metrics")
    metrics = listed.only if listed is not None else ()
    if listed is not None and metrics and objective not in metrics:
        message = f"the objective {objective} is not among them"
        draft.problems.add(listed.place, "evaluation.metrics", message, f"add {objective}")
    for name in dict.fromkeys((objective, *metrics)):  # as written: what is added beside them has the same needs
        path = "evaluation.objective" if name == objective else "evaluation.metrics"
        parts = parts_of(name)
        if parts is None:
            help = f"{suggest(name, metric_names())}   Each may end in {TRAIN}."
            draft.problems.add(draft.place(path), path, f"unknown metric '{name}'", help)
            continue
        _check_samples(name, parts, spec, draft)
        _check_images(name, parts, path, spec, draft)


def _check_samples(name: str, parts: Parts, spec: StudySpec, draft: Draft) -> None:
    traits, dim = metric.member(parts.kind).traits, extractor.member(parts.extractor).traits.get("dim", 1)
    least = traits["minimum_samples"](dim) if "minimum_samples" in traits else 2
    most = traits["maximum_samples"](dim) if "maximum_samples" in traits else None
    counts = {"evaluation.samples": spec.evaluation.samples}
    if spec.search.finalists.samples:
        counts["search.finalists.samples"] = spec.search.finalists.samples
    for path, count in counts.items():
        if count < least:
            message = f"{count:,} images are too few for {name}: its {dim} features need at least {least:,}"
            draft.problems.add(draft.place(path), path, message)
        elif most is not None and count > most:
            draft.problems.add(draft.place(path), path, f"{count:,} images are more than {name} can use: {most:,}")


def _check_images(name: str, parts: Parts, path: str, spec: StudySpec, draft: Draft) -> None:
    wanted = extractor.member(parts.extractor).traits.get("image_shape")
    has = dataset.member(member_at(spec.fixed, "data").name).traits.get("image_shape")
    if wanted is not None and has is not None and tuple(wanted) != tuple(has):
        message = f"{name} reads images of {_by(wanted)}, and the data set's are {_by(has)}"
        draft.problems.add(draft.place(path), path, message)


def _by(shape: tuple[int, int, int]) -> str:
    return "×".join(map(str, shape))
