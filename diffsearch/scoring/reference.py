"""What scores are measured against: statistics of real images, shipped or computed once and kept."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.files import locked, replace_file
from diffsearch.scoring.features import Extractor, moments
from diffsearch.scoring.named import SHIPPED, verified, write_named

_KEPT = 10_000  # images whose own features are kept, for metrics that need more than mean and covariance


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of real images under one extractor.

    Args:
        mean, cov: float64 (d,) and (d, d), over all `count` images.
        features: float32 (n, d), of min(count, 10,000) of them.
        extractor: content hash of the extractor.
        data: content hash of the images.
    """

    mean: np.ndarray
    cov: np.ndarray
    features: np.ndarray
    count: int
    extractor: str
    data: str


def reference(data: ImageData, which: Literal["train", "test"], extractor: Extractor, folder: Path) -> Reference:
    """The reference statistics of one split; loaded once a process.

    Shipped ones are used where they were made from these very images, and where the data has no test images of its
    own but belongs to a family that has (`mnist-5k`: MNIST's 10,000). Others are computed once and kept in `folder`.

    Raises:
        MetricError: `test` is asked for, and there are no test images.
    """
    content = data.content if which == "train" else data.test_content
    ready = shipped(data.reference_family, which, extractor.content)
    if ready is not None and content in (None, ready.data):
        return ready
    if content is None:
        raise MetricError(
            f"{data.name} has no test images, and no reference statistics for extractor '{extractor.name}' are "
            f"shipped for it: write `reference: train` in the section `evaluation`, or give the data a test split"
        )
    images = data.train if which == "train" else data.test
    assert images is not None
    path = folder / f"{extractor.name}-{extractor.content}-{content}-{which}-{len(images)}.safetensors"
    return _kept(path) if path.is_file() else _computed(path, images, content, extractor)


def from_features(features: np.ndarray, extractor: Extractor, data: str) -> Reference:
    """Statistics of features (N, d); of more than 10,000 images, a fixed draw of that many keeps its features."""
    mean, cov = moments(features)
    rows = np.arange(len(features))
    if len(rows) > _KEPT:
        rows = np.sort(np.random.default_rng(0).permutation(len(rows))[:_KEPT])
    return Reference(mean, cov, features[rows].astype(np.float32), len(features), extractor.content, data)


def ship(data: ImageData, extractor: Extractor, folder: Path = SHIPPED) -> list[Path]:
    """Write the statistics of both splits of a family's full set into the package, for use without its images.

    Raises:
        MetricError: the data has no family or no test images.
    """
    if data.reference_family is None or data.test is None or data.test_content is None:
        raise MetricError(f"{data.name} has no family of reference statistics or no test images")
    written = []
    for which, images, content in (("train", data.train, data.content), ("test", data.test, data.test_content)):
        made = from_features(extractor.extract(images), extractor, content)
        tensors = {name: torch.from_numpy(array) for name, array in _tensors(made).items()}
        tensors["features"] = tensors["features"].half()  # 3 digits: far below what a kernel distance resolves
        written.append(write_named(folder, f"{data.reference_family}-{which}-{extractor.content}", tensors))
    return written


@functools.lru_cache(maxsize=8)
def shipped(family: str | None, which: Literal["train", "test"], extractor_content: str) -> Reference | None:
    """The statistics of a family's full split that come with diffsearch; None where there are none."""
    if family is None:
        return None
    found = sorted(SHIPPED.glob(f"{family}-{which}-{extractor_content}-*.safetensors"))
    return _parsed(verified(found[0])[0], found[0]) if found else None


@functools.lru_cache(maxsize=8)
def _kept(path: Path) -> Reference:
    return _parsed(path.read_bytes(), path)


def _computed(path: Path, images: np.ndarray, content: str, extractor: Extractor) -> Reference:
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):  # the workers of a node wait for one rather than all compute it
        if not path.is_file():
            made = from_features(extractor.extract(images), extractor, content)
            replace_file(path, safetensors.numpy.save(_tensors(made)))
    return _kept(path)


def _tensors(made: Reference) -> dict[str, np.ndarray]:
    """The file's layout. All are tensors: safetensors' metadata has no fixed order, so its hash would vary."""
    return {
        "mean": made.mean,
        "cov": made.cov,
        "features": made.features,
        "count": np.array([made.count], np.int64),
        "extractor": np.frombuffer(bytes.fromhex(made.extractor), np.uint8).copy(),
        "data": np.frombuffer(bytes.fromhex(made.data), np.uint8).copy(),
    }


def _parsed(raw: bytes, path: Path) -> Reference:
    try:
        found = safetensors.numpy.load(raw)
        return Reference(
            mean=found["mean"],
            cov=found["cov"],
            features=found["features"].astype(np.float32),
            count=int(found["count"][0]),
            extractor=found["extractor"].tobytes().hex(),
            data=found["data"].tobytes().hex(),
        )
    except (SafetensorError, KeyError) as error:
        raise MetricError(f"{path} does not hold reference statistics ({error}); delete it and run again") from error
