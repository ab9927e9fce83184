"""Training of the classifiers in `classifier`, on any labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import optimize, special
from torch import Tensor

from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.scoring.classifier import IMAGE_SHAPE, ClassifierNet, check_name, outputs_of
from diffsearch.scoring.named import write_named

_TRACE = 100.0
_BATCH = 256
_SEEN = 100_000  # images that training sees at least, where it isn't said for how many epochs
_LEAST_EPOCHS = 12
_HELD_OUT = 5  # one in so many of each class, where the data has no labelled test images


@dataclass(frozen=True, slots=True)
class Progress:
    """One epoch of a classifier's training; `path` is the weights file, with the last epoch only."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float  # on held-out images
    path: Path | None


@dataclass(frozen=True, eq=False)
class Labelled:
    """uint8 images (N, C, H, W) and their classes, int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray


def train_classifier(
    data: ImageData, folder: Path, name: str, *, epochs: int | None = None, seed: int = 0
) -> Iterator[Progress]:
    """Train a classifier and write its weights into `folder`; yields after each epoch.

    Args:
        data: with labels. Accuracy, scale and calibration are of its test images, or of a fifth of each class held out.
        folder: where `<name>-<hash>.safetensors` is put after the last epoch.
        name: of the extractor that it becomes.
        epochs: None: until 100,000 images were seen, but at least 12.

    Raises:
        MetricError: no labels, a class without images, or nothing to hold out.

    Repeats bit for bit on one machine with one number of threads; elsewhere the hash of the file tells. To ship
    digits trained anew: train on `mnist`, put the file into `weights/`, name it in `classifier.SHIPPED_DIGITS`, and
    let `reference.ship` write the statistics that belong to it.
    """
    check_name(name)
    train, held_out, classes = labelled(data)
    epochs = epochs or max(_LEAST_EPOCHS, -(-_SEEN // len(train.images)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ClassifierNet(data.image_shape, classes, training=True)
    for epoch, loss in enumerate(_epochs(net, train, epochs, seed), 1):
        plain = folded(net, data.image_shape)
        features, logits = outputs_of(plain, held_out.images)
        accuracy = float((logits.argmax(axis=1) == held_out.labels).mean())
        path = None
        if epoch == epochs:
            _calibrate(plain, features, logits, held_out.labels)
            tensors = {**plain.state_dict(), IMAGE_SHAPE: torch.tensor(data.image_shape)}
            path = write_named(folder, name, tensors)
        yield Progress(epoch, epochs, loss, accuracy, path)


def labelled(data: ImageData) -> tuple[Labelled, Labelled, int]:
    """Images to train on, held-out images, and the number of classes.

    Raises:
        MetricError: see `train_classifier`.
    """
    labels = data.train_labels
    if labels is None:
        raise MetricError(f"{data.name} has no labels, so no classifier can be trained on it")
    names = data.classes or tuple(map(str, range(int(labels.max()) + 1)))
    counts = np.bincount(labels, minlength=len(names))
    absent = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if absent:
        raise MetricError(f"{data.name} has no training images of {', '.join(absent)}")
    if len(names) < 2:
        raise MetricError(f"{data.name} has one class, {names[0]}: a classifier needs two at least")
    if data.test is not None and data.test_labels is not None:
        return Labelled(data.train, labels), Labelled(data.test, data.test_labels), len(names)
    rng = np.random.default_rng(0)
    members = [rng.permutation(np.flatnonzero(labels == each)) for each in range(len(names))]
    held_out = np.sort(np.concatenate([rows[: len(rows) // _HELD_OUT] for rows in members]))
    if not len(held_out):
        raise MetricError(f"{data.name} has fewer than {_HELD_OUT} images of each class: none can be held out")
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    return Labelled(data.train[kept], labels[kept]), Labelled(data.train[held_out], labels[held_out]), len(names)


def _epochs(net: ClassifierNet, train: Labelled, epochs: int, seed: int) -> Iterator[float]:
    """Train in place; yields the mean loss of each epoch."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(np.array(train.images)), torch.from_numpy(np.array(train.labels))
    size = min(_BATCH, len(images))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * (len(images) // size))
    for _ in range(epochs):
        net.train()
        total = torch.zeros(())
        order = torch.randperm(len(images), generator=generator)
        batches = torch.split(order, size)[: len(images) // size]
        for rows in batches:
            _, logits = net(_moved(images[rows].to(torch.float32) / 255, generator))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.detach()
        yield float(total) / len(batches)


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Small random affine maps: ±10° of turn, ±10 % of size, ±0.1 of shear, a shift of ±1/14 of the image's side."""
    draw = torch.rand(5, len(x), generator=generator) * 2 - 1
    angle, size, shear = draw[0] * 0.17, 1 + draw[1] * 0.1, draw[2] * 0.1
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    shift_x, shift_y = draw[3] * 2 / 14, draw[4] * 2 / 14  # of half a side
    theta = torch.stack([cos, -sin + shear, shift_x, sin, cos, shift_y], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def folded(trained: ClassifierNet, image_shape: tuple[int, int, int]) -> ClassifierNet:
    """The same function in eval mode, with each batch normalisation multiplied into the layer before it."""
    plain = ClassifierNet(image_shape, trained.classes.out_features, training=False)
    with torch.no_grad():
        pairs: list[tuple[Any, Any]] = [*zip(plain.conv, trained.conv, strict=True), (plain.embed, trained.embed)]
        for target, source in pairs:
            linear, norm = source
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            target.weight.copy_(linear.weight * gain.reshape(-1, *[1] * (linear.weight.ndim - 1)))
            target.bias.copy_((linear.bias - norm.running_mean) * gain + norm.bias)
        plain.classes.load_state_dict(trained.classes.state_dict())
    return plain.eval().requires_grad_(False)


@torch.no_grad()
def _calibrate(net: ClassifierNet, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
    """Set features' scale and logits' temperature by what the net, at scale 1, made of held-out images."""
    trace = float(features.astype(np.float64).var(axis=0, ddof=1).sum())
    scale: Tensor = net.scale  # type: ignore[assignment]
    scale.fill_((_TRACE / trace) ** 0.5)
    divisor = temperature(logits, labels)
    net.classes.weight.div_(divisor)
    net.classes.bias.div_(divisor)


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What logits (N, classes) must be divided by for the labels (N,) to be as likely as can be (Guo et al. 2017)."""
    rows, logits = np.arange(len(labels)), logits.astype(np.float64)

    def surprise(log_temperature: float) -> float:
        return float(-special.log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean())

    return float(np.exp(optimize.minimize_scalar(surprise, bounds=(-4, 4), method="bounded").x))
