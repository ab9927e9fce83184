"""Metrics by name: what a study file may call an objective, and how images become scores.

A name says the kind, the extractor and the reference: `fd-digits` is the Fréchet distance on the features of `digits`
to the test images, `fd-digits-train` to the images that were trained on; `fid` and `kid` are the usual names of
those two kinds on `inception`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.errors import DiffsearchError, MetricError
from diffsearch.records import Score
from diffsearch.scoring.features import (
    Extractor,
    extractor,
    frechet_distance,
    kernel_distance,
    moments,
    precision_recall,
)
from diffsearch.scoring.reference import Reference, reference

_ALIASES = {"fid": ("fd", "inception"), "kid": ("kd", "inception")}
_SUBSET = 1000  # images in one estimate of a kernel distance, where there are that many
_TRAIN = "-train"


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric's name, taken apart. `str` gives the one spelling that keys, tables and MLflow use."""

    kind: str
    extractor: str
    reference: Literal["test", "train"]

    def __str__(self) -> str:
        pair = (self.kind, self.extractor)
        short = next((name for name, meaning in _ALIASES.items() if meaning == pair), f"{self.kind}-{self.extractor}")
        return short + (_TRAIN if self.reference == "train" else "")

    @property
    def direction(self) -> Literal["min", "max"]:
        found: Literal["min", "max"] = registry.metric.member(self.kind).traits.get("direction", "min")
        return found

    @property
    def minimum_samples(self) -> int:
        """The fewest images that can be scored; needs no weights."""
        dim = registry.extractor.member(self.extractor).traits.get("dim", 1)
        least = registry.metric.member(self.kind).traits.get("minimum_samples")
        return 2 if least is None else int(least(dim))

    def fits(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether the extractor reads images of that shape; needs no weights."""
        wanted = registry.extractor.member(self.extractor).traits.get("image_shape")
        return wanted is None or tuple(wanted) == tuple(image_shape)

    def against(self, which: Literal["test", "train"]) -> MetricName:
        """The same metric to another reference: how `evaluation.reference` is applied."""
        return MetricName(self.kind, self.extractor, which)


def known_metric_names() -> tuple[str, ...]:
    """Every name that `parse` takes, sorted."""
    names = (
        MetricName(kind, features, which)
        for kind in registry.metric.names()
        for features in registry.extractor.names()
        for which in ("test", "train")
    )
    return tuple(sorted(str(name) for name in names))


def parse(name: str) -> MetricName:
    """Take a metric's name apart.

    Raises:
        DiffsearchError: unknown; the message holds the known names and the nearest.
    """
    for kind in registry.metric.names():
        for features in registry.extractor.names():
            for which in ("test", "train"):
                candidate = MetricName(kind, features, which)  # type: ignore[arg-type]
                if str(candidate) == name:
                    return candidate
    raise DiffsearchError(f"unknown metric '{name}'. {registry.suggest(name, known_metric_names())}")


# --- the kinds ----------------------------------------------------------------------------------------------------


def _fd_minimum(dim: int) -> int:
    return dim + 1  # with fewer, the covariance is singular by construction and the bias swamps the distance


@registry.metric.register("fd", direction="min", minimum_samples=_fd_minimum)
def fd(features: np.ndarray, against: Reference) -> Score:
    """Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017).

    Biased upwards by a term of order 1/N: compare equal sample counts only, and read it beside the floor.
    """
    mean, cov = moments(features)
    value = frechet_distance(mean, cov, against.mean, against.cov)
    return _score(value, len(features), against)


def _kd_minimum(dim: int) -> int:
    return 50  # the estimate is unbiased at any count ≥ 2; below this, its spread says nothing


@registry.metric.register("kd", direction="min", minimum_samples=_kd_minimum)
def kd(features: np.ndarray, against: Reference) -> Score:
    """Kernel distance (KID of Bińkowski et al. 2018): unbiased, so a little below zero is possible; with its spread.

    The spread is the standard deviation of one subset's estimate, not the standard error of the mean.
    """
    size = min(_SUBSET, len(features), len(against.features))
    value, spread = kernel_distance(features, against.features, subset_size=size)
    return _score(value, len(features), against, spread)


def _prc_minimum(dim: int) -> int:
    return 50  # defined from five images on; below this, a share of so few says nothing


@registry.metric.register("precision", direction="max", minimum_samples=_prc_minimum)
def precision(features: np.ndarray, against: Reference) -> Score:
    """Share of drawn images that lie among the real ones (Kynkäänniemi et al. 2019, k = 3): how real they look.

    Both shares depend on the counts: as many real images are taken as were drawn, if there are that many.
    """
    share, _ = precision_recall(features, _as_many(features, against))
    return _score(share, len(features), against)


@registry.metric.register("recall", direction="max", minimum_samples=_prc_minimum)
def recall(features: np.ndarray, against: Reference) -> Score:
    """Share of real images that lie among the drawn ones (Kynkäänniemi et al. 2019, k = 3): how much is covered."""
    _, share = precision_recall(features, _as_many(features, against))
    return _score(share, len(features), against)


def _as_many(features: np.ndarray, against: Reference) -> np.ndarray:
    """Features of as many real images as there are drawn ones, the same at each call."""
    real = against.features
    chosen = np.random.default_rng(0).permutation(len(real))[: len(features)]
    return real[np.sort(chosen)]


def _score(value: float, samples: int, against: Reference, spread: float | None = None) -> Score:
    if not math.isfinite(value) or (spread is not None and not math.isfinite(spread)):
        raise MetricError(f"the distance of {samples} images to the reference is {value}: features that aren't finite")
    return Score(value, samples, against.extractor, spread)


# --- scoring ------------------------------------------------------------------------------------------------------


def score(images: np.ndarray | Tensor, metrics: Sequence[str], data: ImageData, folder: Path) -> dict[str, Score]:
    """Score drawn images; features are extracted once for each extractor.

    Args:
        images: uint8 (N, C, H, W).
        metrics: names that `parse` knows.
        data: what the images are compared with.
        folder: where reference statistics are kept.

    Raises:
        MetricError: too few images, an extractor that doesn't fit them or can't be had, no reference, not finite.
    """
    names = [parse(metric) for metric in metrics]
    for name in names:
        check_fit(name, tuple(images.shape), data)
    used = dict.fromkeys(name.extractor for name in names)
    features = {chosen: extractor(chosen).extract(images) for chosen in used}
    return {
        metric: score_features(name, features[name.extractor], reference_for(name, data, folder))
        for metric, name in zip(metrics, names, strict=True)
    }


def score_features(name: MetricName, features: np.ndarray, against: Reference) -> Score:
    """The score of features (N, d) that were extracted already."""
    if not np.isfinite(features).all():
        raise MetricError(f"{name}: the features hold NaN or infinity")
    found: Score = registry.metric.build(name.kind, features, against)
    return replace(found, extractor=measure(name))


def measure(name: MetricName) -> str:
    """What a score was measured with: the extractor's content, and the hashes of the user's files that took part.

    Scores of different measures are never compared, and one of another measure is computed anew.
    """
    members = registry.extractor.member(name.extractor), registry.metric.member(name.kind)
    return "+".join([extractor_of(name).content, *(member.origin for member in members if member.origin)])


def reference_for(name: MetricName, data: ImageData, folder: Path) -> Reference:
    """The reference that a metric's name asks for."""
    return reference(data, name.reference, extractor_of(name), folder)


def extractor_of(name: MetricName) -> Extractor:
    """The loaded extractor of a metric."""
    return extractor(name.extractor)


def check_fit(name: MetricName, shape: tuple[int, ...], data: ImageData) -> None:
    """Raise MetricError unless images of `shape` (N, C, H, W) can be scored by this metric against `data`."""
    if len(shape) != 4 or tuple(shape[1:]) != data.image_shape:
        raise MetricError(f"{name}: images of shape {shape} don't match {data.name}, which has {data.image_shape}")
    if not name.fits(data.image_shape):
        wanted = registry.extractor.member(name.extractor).traits["image_shape"]
        raise MetricError(
            f"{name}: extractor '{name.extractor}' reads images of {wanted} only, {data.name} has {data.image_shape}; "
            f"fid and kid read any"
        )
    if shape[0] < name.minimum_samples:
        raise MetricError(f"{name} needs at least {name.minimum_samples} images, got {shape[0]}")
