"""How a cluster is shared out: one thread a run on CPUs, a measured fraction of a GPU where there are GPUs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from diffsearch.errors import ConfigError, Problem
from diffsearch.space.settings import Resources

CUDA_CONTEXT_MB = 600.0  # what a process holds on a GPU before its first tensor
SAFETY = 1.2  # room above the measured peak
MEMORY_SHARE = 0.9  # of a machine's memory that its workers may hold together


@dataclass(frozen=True, slots=True)
class Share:
    """What one run gets, and how many run at once."""

    cpu: float
    gpu: float
    workers: int
    memory_mb: float | None  # resident memory that one worker may hold; None: not guarded

    def bundle(self) -> dict[str, float]:
        return {"cpu": self.cpu, "gpu": self.gpu} if self.gpu else {"cpu": self.cpu}


def share_out(asked: Resources, nodes: Sequence[Mapping[str, float]], peak_mb: float, gpu_mb: float | None) -> Share:
    """Divide a cluster.

    Args:
        asked: by hand, or auto (None).
        nodes: resources of each node, as Ray names them.
        peak_mb: device memory of the largest run, measured.
        gpu_mb: memory of one GPU; None where it can't be known.

    Raises:
        ConfigError: no node has what one run asks for.
    """
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    gpu = asked.gpu if asked.gpu is not None else (gpu_fraction(peak_mb, gpu_mb) if gpus else 0.0)
    cpu = asked.cpu if asked.cpu is not None else 1.0
    workers = sum(_fits(node, cpu, gpu) for node in nodes)
    if workers == 0:
        most_cpu = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
        most_gpu = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
        message = f"a run asks for {cpu:g} CPU and {gpu:g} GPU, which no node has"
        help_ = (
            f"the largest node offers {most_cpu:g} CPU and {most_gpu:g} GPU.   `resources: auto` takes what there is."
        )
        raise ConfigError([Problem(0, 0, "resources", message, help_)])
    here = psutil.virtual_memory().total / 2**20
    local = max(_fits(node, cpu, gpu) for node in nodes)
    return Share(cpu, gpu, workers, here * MEMORY_SHARE / local)


def gpu_fraction(peak_mb: float, gpu_mb: float | None) -> float:
    """The part of a GPU that one run needs: 1/k for the largest k that fits, so that k runs fill it."""
    if gpu_mb is None:
        return 1.0
    fits = math.floor(gpu_mb / (peak_mb * SAFETY + CUDA_CONTEXT_MB))
    return round(1.0 / max(1, fits), 4) if fits > 1 else 1.0


def worker_device(gpu: float) -> torch.device:
    """Where a worker computes: the GPU that Ray gave it (the only one that it sees), else the CPU."""
    return torch.device("cuda", 0) if gpu and torch.cuda.is_available() else torch.device("cpu")


def _fits(node: Mapping[str, Any], cpu: float, gpu: float) -> int:
    by_cpu = math.floor(node.get("CPU", 0.0) / cpu + 1e-9) if cpu else math.inf
    if not gpu:
        return int(by_cpu)
    whole = math.floor(node.get("GPU", 0.0) + 1e-9)
    by_gpu = whole * math.floor(1 / gpu + 1e-9) if gpu <= 1 else math.floor(whole / gpu + 1e-9)
    return int(min(by_cpu, by_gpu))
