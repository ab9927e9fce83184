"""The kinds of metrics, and how images become scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.records import Score
from diffsearch.scoring import extrapolation
from diffsearch.scoring.features import (
    Extractor,
    Outputs,
    extractor,
    frechet_distance,
    kernel_distance,
    moments,
    outputs,
    precision_recall,
    split_score,
)
from diffsearch.scoring.reference import Reference, reference
from diffsearch.space.metric_names import MetricName, parse

_SUBSET = 1000  # images in one estimate of a kernel distance, where there are that many
_SPLITS = 10  # of the images, for an inception score


# --- the kinds ----------------------------------------------------------------------------------------------------


def _fd_minimum(dim: int) -> int:
    return dim + 1  # with fewer, the covariance is singular by construction and the bias swamps the distance


@registry.metric.register("fd", direction="min", minimum_samples=_fd_minimum, scale="log")
def fd(features: np.ndarray, against: Reference) -> Score:
    """Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017).

    Biased upwards by a term of order 1/N: compare equal sample counts only, and read it beside the floor and beside its
    bias, which is estimated from the distances of both halves where those have enough images.
    """
    mean, cov = moments(features)
    value = frechet_distance(mean, cov, against.mean, against.cov)
    enough = len(features) >= 2 * _fd_minimum(features.shape[1])
    return replace(_score(value, len(features)), bias=extrapolation.bias(features, against) if enough else None)


def _fd_infinity_minimum(dim: int) -> int:
    return extrapolation.LEAST * extrapolation.PER_FEATURE * dim


@registry.metric.register("fd-infinity", direction="min", minimum_samples=_fd_infinity_minimum)
def fd_infinity(features: np.ndarray, against: Reference) -> Score:
    """The Fréchet distance that infinitely many images would have (Chong & Forsyth 2020): effectively unbiased in N.

    Not bounded by 0: of images as good as real ones it is a little above or below. The spread is the standard error of
    the extrapolation, which says how straight the line is, not how it differs from draw to draw.
    """
    value, error = extrapolation.to_infinity(features, against)
    return _score(value, len(features), error)


def _kd_minimum(dim: int) -> int:
    return 50  # the estimate is unbiased at any count ≥ 2; below this, its spread says nothing


@registry.metric.register("kd", direction="min", minimum_samples=_kd_minimum, unbiased=True, edition=2)
def kd(features: np.ndarray, against: Reference) -> Score:
    """Kernel distance (KID of Bińkowski et al. 2018): unbiased, so a little below zero is possible; with its spread.

    The spread is the standard deviation of one subset's estimate, not the standard error of the mean. A subset is at
    most half of what there is on either side, without replacement: of whole sets all estimates would be one.
    """
    size = min(_SUBSET, len(features) // 2, len(against.features) // 2)
    subsets = 25 if size == _SUBSET else 100  # small ones cost little
    value, spread = kernel_distance(features, against.features, subset_size=size, subsets=subsets)
    return _score(value, len(features), spread)


def _prc_minimum(dim: int) -> int:
    return 50  # defined from five images on; below this, a share of so few says nothing


@registry.metric.register("precision", direction="max", minimum_samples=_prc_minimum)
def precision(features: np.ndarray, against: Reference) -> Score:
    """Share of drawn images that lie among the real ones (Kynkäänniemi et al. 2019, k = 3): how real they look.

    Both shares depend on the counts: as many real images are taken as were drawn, if there are that many.
    """
    share, _ = precision_recall(features, _as_many(features, against))
    return _score(share, len(features))


@registry.metric.register("recall", direction="max", minimum_samples=_prc_minimum)
def recall(features: np.ndarray, against: Reference) -> Score:
    """Share of real images that lie among the drawn ones (Kynkäänniemi et al. 2019, k = 3): how much is covered."""
    _, share = precision_recall(features, _as_many(features, against))
    return _score(share, len(features))


def _as_many(features: np.ndarray, against: Reference) -> np.ndarray:
    """Features of as many real images as there are drawn ones, the same at each call."""
    real = against.features
    chosen = np.random.default_rng(0).permutation(len(real))[: len(features)]
    return real[np.sort(chosen)]


def _is_minimum(dim: int) -> int:
    return 10 * _SPLITS  # a split of n images can score n at most, and of fewer than ten it says nothing


@registry.metric.register("is", direction="max", minimum_samples=_is_minimum, logits=True, reference=False)
def inception_score(logits: np.ndarray) -> Score:
    """exp E KL(p(class | image) || p(class)) (Salimans et al. 2016): from 1 to the number of classes; with its spread.

    It rewards images that the classifier is sure of, spread over all classes, and looks at no real image: one sharp
    image of each class, drawn again and again, scores best. The spread is the standard deviation over ten splits.
    """
    value, spread = split_score(logits, splits=_SPLITS)
    return _score(value, len(logits), spread)


def _score(value: float, samples: int, spread: float | None = None) -> Score:
    """A score but for what it was measured with, which `score_outputs` fills in."""
    if not math.isfinite(value) or (spread is not None and not math.isfinite(spread)):
        raise MetricError(f"the score of {samples} images is {value}: the network's outputs aren't finite")
    return Score(value, samples, "", spread)


# --- scoring ------------------------------------------------------------------------------------------------------


def score(images: np.ndarray | Tensor, metrics: Sequence[str], data: ImageData, folder: Path) -> dict[str, Score]:
    """Score drawn images; they go once through each extractor, for all of its metrics.

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
    made = {chosen: outputs(extractor(chosen), images) for chosen in used}
    return {
        metric: score_outputs(name, made[name.extractor], reference_for(name, data, folder))
        for metric, name in zip(metrics, names, strict=True)
    }


def score_outputs(name: MetricName, made: Outputs, against: Reference | None) -> Score:
    """The score of what an extractor made of images already; `against` is None for a metric that has no reference."""
    read = made.logits if name.reads_logits else made.features
    if read is None:
        raise MetricError(f"{name}: extractor '{name.extractor}' says that it has classes but gave no logits")
    if not np.isfinite(read).all():
        raise MetricError(f"{name}: the network's outputs hold NaN or infinity")
    given = (read,) if against is None else (read, against)
    found: Score = registry.metric.build(name.kind, *given)
    return replace(found, extractor=measure(name))


def measure(name: MetricName) -> str:
    """What a score was measured with: the extractor's content, and the hashes of the user's files that took part.

    Scores of different measures are never compared, and one of another measure is computed anew.
    """
    kind = registry.metric.member(name.kind)
    members = registry.extractor.member(name.extractor), kind
    parts = [extractor_of(name).content, *(member.origin for member in members if member.origin)]
    if "edition" in kind.traits:  # raised when a change of the code changes what a kind computes
        parts.append(f"{name.kind}-{kind.traits['edition']}")
    return "+".join(dict.fromkeys(parts))  # a trained classifier's content is its file's hash


def reference_for(name: MetricName, data: ImageData, folder: Path) -> Reference | None:
    """The reference that a metric's name asks for; None where it asks for none."""
    return None if name.reference is None else reference(data, name.reference, extractor_of(name), folder)


def extractor_of(name: MetricName) -> Extractor:
    """The loaded extractor of a metric."""
    return extractor(name.extractor)


def check_fit(name: MetricName, shape: tuple[int, ...], data: ImageData) -> None:
    """Raise MetricError unless images of `shape` (N, C, H, W) can be scored by this metric against `data`."""
    if len(shape) != 4 or tuple(shape[1:]) != data.image_shape:
        raise MetricError(f"{name}: images of shape {shape} don't match {data.name}, which has {data.image_shape}")
    if not name.fits(data.image_shape):
        raise MetricError(
            f"{name}: extractor '{name.extractor}' reads images of {name.image_shape} only, "
            f"{data.name} has {data.image_shape}; fid and kid read any"
        )
    if shape[0] < name.minimum_samples:
        raise MetricError(f"{name} needs at least {name.minimum_samples} images, got {shape[0]}")
