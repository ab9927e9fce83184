"""Small classifiers whose last layer but one gives features: `digits`, which is shipped, and those that users train.

The features are the 64 outputs of the layer before the classes, multiplied by one constant such that their covariance
over held-out images has trace 100. So a Fréchet distance reads on a scale: 100 is what the spread of the data alone
amounts to, as lost by a model that always draws the mean image's features.

The logits are for inception scores. They are calibrated: divided by the one temperature that makes their softmax the
odds of being right on held-out images (Guo et al. 2017). Training with smoothed labels leaves it too unsure.

`digits` has 0.16 M parameters and was trained on MNIST's 60,000 digits; see `classifier_training`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from diffsearch import registry
from diffsearch.errors import MetricError
from diffsearch.scoring.named import SHIPPED, stem_of, verified
from diffsearch.scoring.passes import one_pass

DIM = 64
SHIPPED_DIGITS = SHIPPED / "digits-467d209eaa4610f5.safetensors"
IMAGE_SHAPE = "image_shape"  # tensor of the weights file: int64 (3,)
_DIGITS_SHAPE = (1, 28, 28)  # the shipped file is older than that tensor, and its logits aren't calibrated yet
_DIGITS_TEMPERATURE = 0.472  # on the 10,000 test digits, whose inception score it brings from 7.22 to 9.84
_BATCH = 100
_LAST_SIDE = 8  # pixels a side at most where the convolutions end
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ClassifierNet(nn.Module):
    """Convolutions and two linear layers; batch normalisation only while it is trained, then folded away.

    Args:
        image_shape: (C, H, W). Colour doubles the channels, a side above 35 pixels adds layers that halve it.
        classes: at least 2.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, training: bool) -> None:
        super().__init__()
        channels, height, width = image_shape
        sides = (height + 1) // 2 // 2, (width + 1) // 2 // 2
        self.windows = [1, 2, 1]  # of the pooling after each convolution
        while max(sides) > _LAST_SIDE:
            self.windows.append(2)
            sides = sides[0] // 2, sides[1] // 2
        widths = [count * (1 if channels == 1 else 2) for count in (16, 32, *[48] * (len(self.windows) - 2))]
        layers = [nn.Conv2d(channels, widths[0], 5, stride=2, padding=2)]
        layers += [nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)]
        self.conv = nn.ModuleList(_normed(layer, nn.BatchNorm2d(layer.out_channels), training) for layer in layers)
        self.embed = _normed(nn.Linear(widths[-1] * sides[0] * sides[1], DIM), nn.BatchNorm1d(DIM), training)
        self.classes = nn.Linear(DIM, classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] → features (B, 64), scaled, and logits (B, classes).

        The features are taken before the activation, which would cut them at 0.
        """
        for layer, window in zip(self.conv, self.windows, strict=True):
            x = layer(x)
            x = F.relu(F.max_pool2d(x, window) if window > 1 else x)
        embedded: Tensor = self.embed(x.flatten(1))
        scale: Tensor = self.scale  # type: ignore[assignment]
        return embedded * scale, self.classes(F.relu(embedded))


def outputs_of(net: ClassifierNet, images: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, C, H, W) → features, float32 (N, 64), and logits, float32 (N, classes)."""
    features, logits = one_pass(lambda x: net(x.to(torch.float32) / 255), images, _BATCH)
    return features, logits


def _normed(linear: nn.Conv2d | nn.Linear, norm: nn.Module, training: bool) -> nn.Module:
    return nn.Sequential(linear, norm) if training else linear


class ClassifierExtractor:
    """Features and logits of uint8 images, on the CPU in fp32: the same images always give the same bits.

    Args:
        temperature: what the logits are still to be divided by; 1 for all but the shipped file.

    Raises:
        MetricError: the weights file is absent, or its content isn't what its name promises.
    """

    dim = DIM

    def __init__(self, path: Path, *, temperature: float = 1.0) -> None:
        content, self.content = verified(path)
        self._temperature = temperature
        self.name = stem_of(path)
        try:
            tensors = safetensors.torch.load(content)
            channels, height, width = tensors.pop(IMAGE_SHAPE, torch.tensor(_DIGITS_SHAPE)).tolist()
            self.image_shape: tuple[int, int, int] | None = (channels, height, width)
            self.classes = len(tensors["classes.bias"])
            net = ClassifierNet(self.image_shape, self.classes, training=False)
            net.load_state_dict(tensors)
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise MetricError(f"{path} does not hold the weights of a classifier: {error}") from error
        self._net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # 2.4 times as fast

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 (N, C, H, W) → float32 (N, 64)."""
        return self.classify(images)[0]

    def classify(self, images: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, C, H, W) → features, float32 (N, 64), and logits, float32 (N, classes)."""
        features, logits = outputs_of(self._net, images)
        return features, logits / self._temperature


@registry.extractor.register("digits", dim=DIM, image_shape=_DIGITS_SHAPE, classes=10)
def digits() -> ClassifierExtractor:
    """Our classifier of 28×28 grey digits; its weights are shipped."""
    return ClassifierExtractor(SHIPPED_DIGITS, temperature=_DIGITS_TEMPERATURE)


def register_file(path: Path) -> None:
    """Register a classifier that `diffsearch features train` wrote, under the name that its file bears.

    Raises:
        MetricError: no such file, another content than its name says, or a name that metrics can't have.
    """
    made = ClassifierExtractor(path)
    check_name(made.name)

    def classifier() -> ClassifierExtractor:
        return made

    add = registry.extractor.register(made.name, dim=DIM, image_shape=made.image_shape, classes=made.classes)
    add(classifier)


def check_name(name: str) -> None:
    """Raise MetricError unless an extractor may bear this name: metrics are called after it."""
    if not _NAME.fullmatch(name) or name.endswith("-train"):
        allowed = "letters, digits, '.', '_' and '-', a letter or digit first, and no '-train' at its end"
        raise MetricError(f"a classifier can't be called '{name}': {allowed}")
