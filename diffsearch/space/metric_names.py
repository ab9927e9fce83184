"""Metrics by name: what a study file may call an objective.

A name says the kind, the extractor and the reference: `fd-digits` is the Fréchet distance on the features of `digits`
to the test images, `fd-digits-train` to the images that were trained on; `fid`, `fid-infinity`, `kid` and `is` are the
usual names of four kinds on `inception`. A kind that compares with no real images, such as `is`, has no `-train`; one
that reads class logits has names on those extractors alone that are classifiers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diffsearch.errors import DiffsearchError
from diffsearch.registry import extractor, metric, suggest

TRAIN = "-train"
_ALIASES = {
    "fid": ("fd", "inception"),
    "fid-infinity": ("fd-infinity", "inception"),
    "kid": ("kd", "inception"),
    "is": ("is", "inception"),
}

Split: TypeAlias = Literal["test", "train"]
Scale: TypeAlias = Literal["log", "linear"]  # on which repeats of a score are summarised and compared


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric's name, taken apart. `str` gives the one spelling that keys, tables and MLflow use.

    Args:
        reference: the real images that are compared with; None for a kind that needs none.
    """

    kind: str
    extractor: str
    reference: Split | None

    def __str__(self) -> str:
        pair = (self.kind, self.extractor)
        short = next((name for name, meaning in _ALIASES.items() if meaning == pair), f"{self.kind}-{self.extractor}")
        return short + (TRAIN if self.reference == "train" else "")

    @property
    def direction(self) -> Literal["min", "max"]:
        found: Literal["min", "max"] = metric.member(self.kind).traits.get("direction", "min")
        return found

    @property
    def scale(self) -> Scale:
        """`log` of a kind that is positive and whose repeats vary by a share of it; see docs/statistics.md."""
        found: Scale = metric.member(self.kind).traits.get("scale", "linear")
        return found

    @property
    def reads_logits(self) -> bool:
        """Whether the metric is of the extractor's class logits rather than of its features."""
        return bool(metric.member(self.kind).traits.get("logits", False))

    @property
    def has_logits(self) -> bool:
        """Whether the extractor is a classifier."""
        return "classes" in extractor.member(self.extractor).traits

    @property
    def dim(self) -> int:
        """Features of the extractor; needs no weights."""
        return int(extractor.member(self.extractor).traits.get("dim", 1))

    @property
    def minimum_samples(self) -> int:
        """The fewest images that can be scored; needs no weights."""
        least = metric.member(self.kind).traits.get("minimum_samples")
        return 2 if least is None else int(least(self.dim))

    @property
    def is_unbiased(self) -> bool:
        """Whether its mean over draws is the same at every number of images: few order as many do, with noise."""
        return bool(metric.member(self.kind).traits.get("unbiased", False))

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """The only (C, H, W) that the extractor reads, None for any; needs no weights."""
        shape = extractor.member(self.extractor).traits.get("image_shape")
        return None if shape is None else tuple(shape)

    def fits(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether the extractor reads images of that shape."""
        return self.image_shape in (None, tuple(image_shape))

    def against(self, which: Split) -> MetricName:
        """The same metric to another reference, itself where it has none: how `evaluation.reference` is applied."""
        return self if self.reference is None else MetricName(self.kind, self.extractor, which)


def known_metrics() -> Iterator[MetricName]:
    """Every metric that there is."""
    for kind in metric.names():
        references: tuple[Split | None, ...] = ("test", "train") if _compares(kind) else (None,)
        for features in extractor.names():
            found = [MetricName(kind, features, which) for which in references]
            if found[0].has_logits or not found[0].reads_logits:
                yield from found


def find(name: str) -> MetricName | None:
    """The metric of that name; None where there is none."""
    return next((candidate for candidate in known_metrics() if str(candidate) == name), None)


def parse(name: str) -> MetricName:
    """Take a metric's name apart.

    Raises:
        DiffsearchError: unknown; the message says why, or holds the known names and the nearest.
    """
    found = find(name)
    if found is None:
        raise DiffsearchError(". ".join(refusal(name)))
    return found


def scale_of(name: str) -> Scale:
    """The scale of a metric; `linear` of one that isn't known here, such as a user's own whose file isn't loaded."""
    found = find(name)
    return "linear" if found is None else found.scale


def refusal(name: str) -> tuple[str, str]:
    """Why a name stands for no metric, and what may be written: the two halves of an error message."""
    base = name.removesuffix(TRAIN)
    pairs = (MetricName(kind, features, None) for kind in metric.names() for features in extractor.names())
    meant = next((pair for pair in pairs if str(pair) == base), None)
    names = sorted(str(known) for known in known_metrics() if known.reference != "train")
    if meant is None:
        usual = suggest(name, names)
        return f"unknown metric '{name}'", f"{usual}   Those that compare with real images may end in {TRAIN}."
    if meant.reads_logits and not meant.has_logits:
        on = ", ".join(sorted(str(known) for known in known_metrics() if known.kind == meant.kind))
        return f"'{name}' is no metric: {meant.kind} reads class logits, and {meant.extractor} has none", f"known: {on}"
    return f"'{name}' is no metric: {meant.kind} compares with no reference images", f"write {base}"


def against_train(name: str) -> str:
    """The name of the same metric against the training images; as it is where it has no reference or isn't known."""
    found = find(name)
    return name if found is None else str(found.against("train"))


def _compares(kind: str) -> bool:
    return bool(metric.member(kind).traits.get("reference", True))
