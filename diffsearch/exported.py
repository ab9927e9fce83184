"""A trained network outside of its store: weights, a description and a loader of five lines.

weights.safetensors   `network.<name>` of one EMA track, and the mean training image, of each class too if conditional
config.json           what the weights mean: settings, image shape, normalization, how to sample, the score
study.yaml            the settings as a study file without axes
load.py               draws from it; needs torch and diffsearch
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from diffsearch import registry
from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser
from diffsearch.diffusion.sampling import sample
from diffsearch.errors import StoreError
from diffsearch.files import replace_file
from diffsearch.space.settings import RunSettings, SamplingPoint, as_json, to_plain
from diffsearch.training.checkpoint import Checkpoint
from diffsearch.training.network import build_network, denoiser
from diffsearch.training.prior import Prior

FORMAT = 1
WEIGHTS, CONFIG, STUDY, LOADER = "weights.safetensors", "config.json", "study.yaml", "load.py"
LARGEST_BATCH = 250  # images per network call
LOADER_TEXT = '''\
"""Draws from the network that lies beside this file. Needs torch and diffsearch."""

from pathlib import Path

from diffsearch import exported

model = exported.load(Path(__file__).parent)  # model.network(x_t, t) is the plain torch module
images = model.sample(64, seed=0)  # uint8 tensor (64, C, H, W)
'''


@dataclass(frozen=True)
class Exported:
    """A network that was exported, ready to sample."""

    denoiser: Denoiser
    normalization: Normalization
    image_shape: tuple[int, int, int]
    point: SamplingPoint
    config: Mapping[str, Any]
    device: torch.device

    @property
    def network(self) -> nn.Module:
        """`network(x_t (B, C, H, W) normalised, t (B,) in 1..T[, label rows (B, K)])`, in evaluation mode."""
        assert isinstance(self.denoiser.network, nn.Module)
        return self.denoiser.network

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the network can be told; () where it is unconditional."""
        return tuple(self.config["classes"])

    def sample(self, count: int = 64, *, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw images: (count, C, H, W) uint8; the same ones as `Best.sample` in the store.

        Args:
            labels: (count, K) rows of class shares; None: classes as in the training set.
        """
        return draw(self.denoiser, self.normalization, self.image_shape, self.point, count, seed, self.device, labels)


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(
    drawn_by: Denoiser,
    normalization: Normalization,
    image_shape: tuple[int, int, int],
    point: SamplingPoint,
    count: int,
    seed: int,
    device: torch.device,
    labels: Tensor | None = None,
) -> Tensor:
    """Draw images: (count, C, H, W) uint8, on the CPU.

    Args:
        labels: (count, K) rows that a conditional network is told; None: classes by their share of the training set.

    Raises:
        DiffsearchError: the sampler doesn't fit the network.
    """
    shape = (count, *image_shape)
    size = min(count, LARGEST_BATCH)
    batches = sample(drawn_by, point.sampler, point.steps, shape, seed, size, device, point.guidance, labels)
    return torch.cat([normalization.decode(batch).cpu() for batch in batches])


def write(
    checkpoint: Checkpoint,
    point: SamplingPoint,
    folder: Path,
    *,
    yaml: str,
    about: Mapping[str, Any],
    use: Sequence[Path],
) -> Path:
    """Export one track of a checkpoint.

    Args:
        point: how it is to be sampled; its `ema` is the track.
        yaml: the run's settings as a study file.
        about: what else config.json should say, e.g. the score.
        use: the user's own files that its settings need; they are copied.

    Raises:
        StoreError: the track wasn't kept, or the folder can't be written.
    """
    network = checkpoint.network(point.ema)
    tensors = {f"network.{name}": tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    tensors |= {name: tensor.contiguous() for name, tensor in checkpoint.prior.tensors()}
    config = {
        "format": FORMAT,
        "run_key": checkpoint.run_key,
        "epoch": checkpoint.epoch,
        "settings": checkpoint.settings.to_json(),
        "image_shape": list(checkpoint.image_shape),
        "normalization": as_json(checkpoint.normalization),
        "classes": list(checkpoint.classes),
        "sampling": point.to_json(),
        "use": [path.name for path in use],
        "about": to_plain(about),
    }
    replace_file(folder / WEIGHTS, safetensors.torch.save(tensors))
    replace_file(folder / STUDY, yaml.encode())
    for path in use:
        shutil.copyfile(path, folder / path.name)
    replace_file(folder / LOADER, LOADER_TEXT.encode())
    replace_file(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False).encode())
    return folder


def load(folder: Path | str, device: torch.device | str | None = None) -> Exported:
    """What `diffsearch export` wrote.

    Raises:
        StoreError: the folder doesn't hold an export that this version reads.
    """
    folder, device = Path(folder), torch.device(device) if device else best_device()
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        tensors = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise StoreError(f"{folder} doesn't hold a whole export ({error}).") from error
    if config["format"] != FORMAT:
        raise StoreError(f"{folder}: export format {config['format']}; this version of diffsearch reads {FORMAT}.")
    for name in config["use"]:
        registry.use(folder / name)
    settings, image_shape = RunSettings.from_json(config["settings"]), tuple(config["image_shape"])
    normalization = Normalization(**config["normalization"])
    prior = Prior.from_tensors(tensors, config.setdefault("classes", []))
    weights = {name.removeprefix("network."): each for name, each in tensors.items() if name.startswith("network.")}
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
        network = build_network(settings, image_shape, len(prior.classes))
    network.load_state_dict(weights)
    network = network.eval().requires_grad_(False).to(device)
    made = denoiser(settings, network, normalization, prior, device)
    return Exported(made, normalization, image_shape, SamplingPoint.from_json(config["sampling"]), config, device)
