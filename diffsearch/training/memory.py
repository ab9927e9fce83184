"""What a network costs before it is trained, and what training took while it ran."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from diffsearch.space.settings import RunSettings
from diffsearch.training.network import build_network

MB = 2**20


@dataclass(frozen=True, slots=True)
class Description:
    """A run's network in numbers, known without allocating it."""

    parameters: int
    flops: int  # of one network call on one image: 2 x multiply-adds of convolutions, matrix products and attention
    state_mb: float  # weights, gradients, the optimiser's two moments and every averaged track
    activation_mb: float  # what a batch keeps for its backward pass, in fp32; library workspaces are not counted

    @property
    def memory_mb(self) -> float:
        """Device memory that training needs at least."""
        return self.state_mb + self.activation_mb


def describe(settings: RunSettings, image_shape: tuple[int, int, int], classes: int = 10) -> Description:
    """Count a run's network on the `meta` device: some milliseconds, once for each sort of it, and no memory.

    Args:
        classes: K of the data set, for a conditional run; it hardly weighs.

    Raises:
        whatever the model's factory or forward pass raises for a shape that it can't take.
    """
    training = settings.training
    known = (*_network(settings, image_shape, classes), training.batch_size, training.ema_half_life)
    if known not in _DESCRIBED:
        _DESCRIBED[known] = _describe(settings, image_shape, classes)
    return _DESCRIBED[known]


def _describe(settings: RunSettings, image_shape: tuple[int, int, int], classes: int) -> Description:
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports triton, for which no worker should wait

    told = settings.training.conditioning == "class"

    def inputs(count: int) -> tuple[Tensor, ...]:
        labels = (torch.empty(count, classes),) if told else ()
        return torch.empty(count, *image_shape), torch.ones(count, dtype=torch.int64), *labels

    with torch.device("meta"):
        network = build_network(settings, image_shape, classes)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(*inputs(1))
        activations = _saved_bytes(network, inputs(settings.training.batch_size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    copies = 4 + len({*settings.training.ema_half_life} - {0})
    return Description(parameters, counter.get_total_flops(), parameters * 4 * copies / MB, activations / MB)


def parameters_of(settings: RunSettings, image_shape: tuple[int, int, int], classes: int = 10) -> int:
    """Parameters of a run's network alone: a search asks for them at each of its proposals."""
    known = _network(settings, image_shape, classes)
    if known not in _COUNTED:
        with torch.device("meta"):
            built = build_network(settings, image_shape, classes)
        _COUNTED[known] = sum(parameter.numel() for parameter in built.parameters())
    return _COUNTED[known]


def _network(settings: RunSettings, image_shape: tuple[int, int, int], classes: int) -> tuple[object, ...]:
    """What a network's shape depends on."""
    training = settings.training
    return (settings.model, settings.steps, training.conditioning, training.learned_variance, image_shape, classes)


_COUNTED: dict[object, int] = {}
_DESCRIBED: dict[object, Description] = {}


def _saved_bytes(network: torch.nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Bytes of the tensors that autograd keeps of one forward pass, parameters left out, shared ones counted once."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(*inputs)
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        del output
    return total


def reset_peak(device: torch.device) -> None:
    """Begin to measure anew, where the system can: on CUDA and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        except OSError:
            return  # a container that forbids it: the peak is then the process's, not the epoch's


def peak_mb(device: torch.device) -> float:
    """Largest memory since `reset_peak`, in MiB: allocated by torch on CUDA, resident in the process on CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / MB
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    info = psutil.Process().memory_info()
    return float(getattr(info, "peak_wset", info.rss)) / MB


def resident_mb() -> float:
    """Memory that this process holds now, in MiB."""
    return float(psutil.Process().memory_info().rss) / MB
