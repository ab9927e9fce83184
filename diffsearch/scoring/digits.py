"""The `digits` classifier: the network behind `fd-digits` and `kd-digits`, its training and its weights file.

A network of 0.16 M parameters for 28×28 grey images, trained on MNIST's 60,000 digits. Its features are the 64
outputs of the layer before the classes, multiplied by one constant such that their covariance over the 10,000 test
digits has trace 100. So a Fréchet distance reads on a scale: 100 is what the spread of the data alone amounts to,
as lost by a model that always draws the mean digit's features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.files import replace_file

DIM = 64
IMAGE_SHAPE = (1, 28, 28)
WEIGHTS = Path(__file__).parent / "weights"
_TRACE = 100.0
_BATCH = 100  # images a call; always full, so that an image's features don't depend on its neighbours' number
_TRAINING_BATCH = 256


class DigitsNet(nn.Module):
    """Three convolutions and two linear layers; batch normalisation only while it is trained, then folded away."""

    def __init__(self, *, training: bool) -> None:
        super().__init__()
        self.conv = nn.ModuleList(
            [
                _layer(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), training),  # 28 → 14
                _layer(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), training),  # 14, pooled → 7
                _layer(nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), training),  # 7
            ]
        )
        self.embed = _layer(nn.Linear(48 * 7 * 7, DIM), nn.BatchNorm1d(DIM), training)
        self.classes = nn.Linear(DIM, 10)
        self.register_buffer("scale", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) in [0, 1] → (B, 64), scaled. Taken before the activation, which would cut them at 0."""
        scale: Tensor = self.scale  # type: ignore[assignment]
        return self._embedded(x) * scale

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) in [0, 1] → (B, 10) logits."""
        logits: Tensor = self.classes(F.relu(self._embedded(x)))
        return logits

    def _embedded(self, x: Tensor) -> Tensor:
        for layer, window in zip(self.conv, (1, 2, 1), strict=True):
            x = layer(x)
            x = F.relu(F.max_pool2d(x, window) if window > 1 else x)
        embedded: Tensor = self.embed(x.flatten(1))
        return embedded


def _layer(linear: nn.Conv2d | nn.Linear, norm: nn.Module, training: bool) -> nn.Module:
    return nn.Sequential(linear, norm) if training else linear


def _folded(trained: DigitsNet) -> DigitsNet:
    """The same function in eval mode, with each batch normalisation multiplied into the layer before it."""
    plain = DigitsNet(training=False)
    with torch.no_grad():
        pairs: list[tuple[Any, Any]] = [*zip(plain.conv, trained.conv, strict=True), (plain.embed, trained.embed)]
        for target, source in pairs:
            linear, norm = source
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            target.weight.copy_(linear.weight * gain.reshape(-1, *[1] * (linear.weight.ndim - 1)))
            target.bias.copy_((linear.bias - norm.running_mean) * gain + norm.bias)
        plain.classes.load_state_dict(trained.classes.state_dict())
    return plain.eval().requires_grad_(False)


# --- the extractor ------------------------------------------------------------------------------------------------


class DigitsExtractor:
    """Features of uint8 28×28 grey images, on the CPU in fp32: the same images always give the same bits.

    Raises:
        MetricError: the weights file is absent, or its content isn't the one that its name promises.
    """

    name = "digits"
    dim = DIM
    image_shape: tuple[int, int, int] | None = IMAGE_SHAPE

    def __init__(self, path: Path) -> None:
        content, self.content = verified(path)
        net = DigitsNet(training=False).eval().requires_grad_(False)
        self._net = net.to(memory_format=torch.channels_last)  # 2.4 times as fast on a CPU
        try:
            self._net.load_state_dict(safetensors.torch.load(content))
        except (SafetensorError, RuntimeError) as error:
            raise MetricError(f"{path} does not hold the weights of the digits classifier: {error}") from error

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 (N, 1, 28, 28) → float32 (N, 64)."""
        return self._map(self._net.features, images)

    def classify(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 (N, 1, 28, 28) → int64 (N,), the digit that each looks like."""
        found: np.ndarray = self._map(self._net, images).argmax(axis=1)
        return found

    @torch.inference_mode()
    def _map(self, function: Callable[[Tensor], Tensor], images: np.ndarray | Tensor) -> np.ndarray:
        rows = []
        for start in range(0, len(images), _BATCH):
            batch = torch.as_tensor(np.array(images[start : start + _BATCH]))
            padded = F.pad(batch, (0, 0, 0, 0, 0, 0, 0, _BATCH - len(batch)))
            rows.append(function(padded.to(torch.float32) / 255)[: len(batch)].numpy())
        return np.concatenate(rows)


def verified(path: Path) -> tuple[bytes, str]:
    """The bytes of a file named `<stem>-<16 hex of its sha256>.safetensors`, and that hash.

    Raises:
        MetricError: absent, or changed since it was named.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MetricError(f"{path} can't be read: {error}; reinstall diffsearch or say which file to use") from error
    digest = hashlib.sha256(content).hexdigest()[:16]
    if not path.stem.endswith(f"-{digest}"):
        raise MetricError(f"{path} holds {digest}, which isn't what its name says; it was changed or cut short")
    return content, digest


def write_named(folder: Path, stem: str, tensors: dict[str, Tensor]) -> Path:
    """Write `<stem>-<16 hex of its content>.safetensors` into the folder, atomically."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    replace_file(path, content)
    return path


# --- training -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DigitsProgress:
    """One epoch of the classifier's training; `path` is the weights file, with the last epoch only."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float  # on the test digits
    path: Path | None


def train_digits(mnist: ImageData, folder: Path, *, epochs: int = 12, seed: int = 0) -> Iterator[DigitsProgress]:
    """Train the classifier anew and write its weights into `folder`; yields after each epoch.

    To ship what it wrote: put the file into `weights/`, name it in `features.SHIPPED_DIGITS`, and let
    `reference.ship` write the statistics that belong to it.

    Args:
        mnist: all 60,000 and 10,000 digits, with labels.
        folder: where `digits-<hash>.safetensors` is put after the last epoch.

    Repeats bit for bit on one machine with one number of threads; elsewhere the hash of the file tells.
    """
    test, labelled, test_labels = mnist.test, mnist.train_labels, mnist.test_labels
    if mnist.image_shape != IMAGE_SHAPE or test is None or labelled is None or test_labels is None:
        raise MetricError(f"the digits classifier needs labelled 28×28 grey train and test images, not {mnist.name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DigitsNet(training=True)
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(np.array(mnist.train)), torch.from_numpy(np.array(labelled))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = epochs * (len(images) // _TRAINING_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for epoch in range(1, epochs + 1):
        net.train()
        total = torch.zeros(())
        order = torch.randperm(len(images), generator=generator)
        batches = torch.split(order, _TRAINING_BATCH)[: len(images) // _TRAINING_BATCH]
        for rows in batches:
            x = _moved(images[rows].to(torch.float32) / 255, generator)
            loss = F.cross_entropy(net(x), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.detach()
        plain = _folded(net)
        accuracy = _accuracy(plain, test, test_labels)
        path = _write(plain, test, folder) if epoch == epochs else None
        yield DigitsProgress(epoch, epochs, float(total) / len(batches), accuracy, path)


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Small random affine maps: ±10° of turn, ±10 % of size, ±0.1 of shear, ±2 pixels of shift."""
    draw = torch.rand(5, len(x), generator=generator) * 2 - 1
    angle, size, shear = draw[0] * 0.17, 1 + draw[1] * 0.1, draw[2] * 0.1
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    shift_x, shift_y = draw[3] * 2 / 14, draw[4] * 2 / 14
    theta = torch.stack([cos, -sin + shear, shift_x, sin, cos, shift_y], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


@torch.inference_mode()
def _accuracy(net: DigitsNet, images: np.ndarray, labels: np.ndarray) -> float:
    right = 0
    for start in range(0, len(images), _BATCH):
        x = torch.from_numpy(np.array(images[start : start + _BATCH])).to(torch.float32) / 255
        right += int((net(x).argmax(dim=1).numpy() == labels[start : start + _BATCH]).sum())
    return right / len(images)


@torch.inference_mode()
def _write(net: DigitsNet, test: np.ndarray, folder: Path) -> Path:
    """Set the scale such that the covariance of the test features has trace 100, and write the file."""
    rows = [
        net.features(torch.from_numpy(np.array(test[start : start + _BATCH])).to(torch.float32) / 255)
        for start in range(0, len(test), _BATCH)
    ]
    trace = float(torch.cat(rows).double().var(dim=0).sum())
    scale: Tensor = net.scale  # type: ignore[assignment]
    scale.fill_((_TRACE / trace) ** 0.5)
    return write_named(folder, "digits", net.state_dict())
