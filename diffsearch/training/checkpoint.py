"""Checkpoints: one safetensors file, no pickle, replaced atomically, checked by its own digest when read.

Tensors, fp32 but for a model's own buffers:
    network.<name>                 parameters and persistent buffers, the raw weights
    ema.<half-life>.<name>         each averaged track: parameters, and running statistics of batch normalisation
    optimizer.<moment>.<parameter> only where the checkpoint is to be trained on
    data_mean                      (C, H, W), the normalised mean training image
    class_means, class_shares      (K, C, H, W) and (K,), the same of each class; of a conditional run alone
The header's metadata holds one JSON object: enough to sample without the data set, and a sha256 over all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser
from diffsearch.errors import StoreError
from diffsearch.files import replace_file
from diffsearch.space.settings import RunSettings, as_json, canonical, to_value
from diffsearch.training.ema import RAW, untracked
from diffsearch.training.loop import TrainingState
from diffsearch.training.network import build_network, denoiser
from diffsearch.training.prior import Prior

FORMAT = 1
ENTRY = "diffsearch"  # the one key of the file's metadata


def save(state: TrainingState, path: Path, *, with_optimizer: bool) -> None:
    """Write `state` so that readers see the old file or the new one, whole.

    Args:
        with_optimizer: what training on needs, about twice the weights; without it the file is enough to sample.

    Raises:
        StoreError: the file can't be written, or the state's epoch was broken off; an older file is left as it was.
    """
    if not state.whole:
        raise StoreError(f"{path}: not written: epoch {state.epoch + 1} was broken off, its weights are no result")
    tensors = dict(state_tensors(state, with_optimizer))
    facts: dict[str, Any] = {
        "format": FORMAT,
        "run_key": state.run_key,
        "epoch": state.epoch,
        "images_seen": state.images_seen,
        "steps": state.steps,
        "settings": state.settings.to_json(),
        "image_shape": list(state.image_shape),
        "normalization": as_json(state.normalization),
        "ema": list(state.ema.half_lives),
        "with_optimizer": with_optimizer,
        **({"classes": list(state.prior.classes)} if state.prior.classes else {}),
        "versions": {"torch": str(torch.__version__), "safetensors": safetensors.__version__},
    }
    facts["digest"] = digest(tensors, facts)
    replace_file(path, safetensors.torch.save(tensors, {ENTRY: canonical(facts)}))


def state_tensors(state: TrainingState, with_optimizer: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that the next epoch depends on, by its name in the file, on CPU."""
    for name, tensor in _network_tensors(state.network):
        yield f"network.{name}", _plain(tensor)
    for half_life, name, tensor in state.ema.tensors():
        yield f"ema.{half_life}.{name}", _plain(tensor)
    for name, tensor in state.prior.tensors():
        yield name, _plain(tensor)
    if with_optimizer:
        for name, parameter in state.network.named_parameters():
            for moment, tensor in state.optimizer.state.get(parameter, {}).items():
                yield f"optimizer.{moment}.{name}", _plain(tensor)


def digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> str:
    """sha256 over names, types, shapes and bytes of tensors, and over `facts` less their own digest."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    total.update(canonical({key: value for key, value in (facts or {}).items() if key != "digest"}).encode())
    return total.hexdigest()


def load(state: TrainingState, path: Path) -> None:
    """Put a just started `state` where the run was when `path` was saved, bit for bit.

    Raises:
        StoreError: an absent, torn or altered file, another run's, or one without the optimiser.
    """
    tensors, facts = _read(path)
    if facts["run_key"] != state.run_key:
        raise StoreError(f"{path}: a checkpoint of run {facts['run_key']}, not of {state.run_key}")
    if not facts["with_optimizer"]:
        raise StoreError(f"{path}: holds no optimiser state: enough to sample from, not to train on")
    _fill(path, dict(_network_tensors(state.network)), _under("network.", tensors))
    tracks = {f"{half_life}.{name}": tensor for half_life, name, tensor in state.ema.tensors()}
    _fill(path, tracks, _under("ema.", tensors))
    _fill_optimizer(state, _under("optimizer.", tensors))
    state.prior = Prior.from_tensors(tensors, state.prior.classes)
    state.epoch, state.images_seen, state.steps = facts["epoch"], facts["images_seen"], facts["steps"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to sample from: needs neither the data set nor the run that wrote it."""

    path: Path
    settings: RunSettings
    run_key: str
    epoch: int
    images_seen: int
    image_shape: tuple[int, int, int]
    normalization: Normalization
    prior: Prior
    ema: tuple[int, ...]  # half-lives of the averaged tracks; the raw weights (0) are always there
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Raises StoreError, with the file's name, where it is absent, torn or altered."""
        tensors, facts = _read(path)
        return cls(
            path=path,
            settings=RunSettings.from_json(facts["settings"]),
            run_key=facts["run_key"],
            epoch=facts["epoch"],
            images_seen=facts["images_seen"],
            image_shape=to_value(facts["image_shape"]),
            normalization=Normalization(**{key: to_value(value) for key, value in facts["normalization"].items()}),
            prior=Prior.from_tensors(tensors, facts.get("classes", ())),
            ema=tuple(facts["ema"]),
            tensors=tensors,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the network can be told; () where it is unconditional."""
        return self.prior.classes

    def network(self, ema: int, device: torch.device | None = None) -> nn.Module:
        """A network with the weights of one track (0: the raw ones), in evaluation mode and without gradients.

        Raises:
            StoreError: that half-life was not tracked.
        """
        if ema != RAW and ema not in self.ema:
            raise untracked(ema, self.ema)
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
            network = build_network(self.settings, self.image_shape, len(self.classes))
        weights = _under("network.", self.tensors)
        if ema != RAW:
            weights |= _under(f"ema.{ema}.", self.tensors)
        _fill(self.path, dict(_network_tensors(network)), weights)
        return network.eval().requires_grad_(False).to(device or torch.device("cpu"))

    def denoiser(self, ema: int, device: torch.device | None = None) -> Denoiser:
        """What a sampler needs, from one track."""
        device = device or torch.device("cpu")
        return denoiser(self.settings, self.network(ema, device), self.normalization, self.prior, device)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    remedy = "Delete it: the run goes on from an older checkpoint, or anew."
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: no checkpoint can be read there ({error.strerror})") from error
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
        facts = json.loads(header(content)["__metadata__"][ENTRY])
        form, expected = facts["format"], facts["digest"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a whole checkpoint ({error}). {remedy}") from error
    if form != FORMAT:
        raise StoreError(f"{path}: checkpoint format {form}; this version of diffsearch reads format {FORMAT}")
    if digest(tensors, facts) != expected:
        raise StoreError(f"{path}: its bytes were altered after it was written. {remedy}")
    return tensors, facts


def header(content: bytes) -> dict[str, Any]:
    """A safetensors file begins with the length of its JSON header, 8 bytes little-endian, and the header."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return header


def _network_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers, each once, however many names a tied weight has."""
    kept = network.state_dict(keep_vars=True)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if name in kept:
            yield name, tensor.detach()


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _fill_optimizer(state: TrainingState, stored: Mapping[str, Tensor]) -> None:
    """Set the optimiser's exp_avg, exp_avg_sq and step of each parameter; it has none before the first step."""
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        moment, parameter = key.split(".", 1)
        moments.setdefault(parameter, {})[moment] = tensor
    whole = state.optimizer.state_dict()
    names = [name for name, _ in state.network.named_parameters()]
    whole["state"] = {index: moments[name] for index, name in enumerate(names) if name in moments}
    state.optimizer.load_state_dict(whole)


@torch.no_grad()
def _fill(path: Path, into: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Copy stored tensors over those of the same names; names and shapes must agree."""
    differing = [
        name
        for name in sorted({*into, *stored})
        if name not in into or name not in stored or into[name].shape != stored[name].shape
    ]
    if differing:
        raise StoreError(
            f"{path}: its tensors are not those of this run's network: {', '.join(differing[:4])}"
            + (f" and {len(differing) - 4} more" if len(differing) > 4 else "")
        )
    for name, tensor in stored.items():
        into[name].copy_(tensor)
