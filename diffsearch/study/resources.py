"""How a cluster is shared out: one thread a run on CPUs, a measured fraction of a GPU where there are GPUs."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffsearch import registry
from diffsearch.data.datasets import load as load_data
from diffsearch.errors import ConfigError, Problem
from diffsearch.space.axes import ends, settings_at, walk
from diffsearch.space.settings import Resources, RunSettings, StudySpec, canonical
from diffsearch.study.host import memory_mb
from diffsearch.training.loop import start, train
from diffsearch.training.memory import describe

CUDA_CONTEXT_MB = 600.0  # what a process holds on a GPU before its first tensor
SAFETY = 1.2  # room above the measured peak
MEMORY_SHARE = 0.9  # of a machine's memory that its workers may hold together


@dataclass(frozen=True, slots=True)
class Share:
    """What one run gets, and how many run at once."""

    cpu: float
    gpu: float
    workers: int

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
    return Share(cpu, gpu, workers)


def memory_limit_mb(node: Mapping[str, Any], cpu: float, gpu: float, alone: bool) -> float:
    """Resident memory that a run may hold on this machine: its part of it, or all where it runs `alone`.

    Args:
        node: resources of this machine, as Ray names them.
        cpu, gpu: what each run on it has.
    """
    at_once = 1 if alone else max(1, _fits(node, cpu, gpu))
    return memory_mb() * MEMORY_SHARE / at_once


def largest_run(spec: StudySpec, image_shape: tuple[int, int, int]) -> RunSettings:
    """Of 200 of a study's points, drawn at random from the ends of its axes, the one that needs most memory."""
    rng = random.Random(0)
    drawn = (walk(spec.axes, spec.fixed, lambda axis: rng.choice(ends(axis))) for _ in range(200))
    distinct = {canonical(dict(point)): point for point in drawn}
    settings = [settings_at(spec, point, spec.seed) for point in distinct.values()]
    return max(settings, key=lambda one: describe(one, image_shape).memory_mb)


def measure_peak(settings_json: str, use: Sequence[str]) -> tuple[float, float | None]:
    """Train one batch on this process's GPU and tell its peak and the GPU's memory, in MB; runs on a GPU node.

    Where CUDA isn't to be had (a pretended GPU) the peak is what the network's shapes say, and the memory unknown.
    """
    for path in use:
        registry.use(Path(path))
    settings = RunSettings.from_json(json.loads(settings_json))
    data = load_data(settings.dataset)
    if not torch.cuda.is_available():
        return describe(settings, data.image_shape, len(data.classes)).memory_mb, None
    device = torch.device("cuda", 0)
    batch = settings.training.batch_size
    few = data.first(2 * batch)
    state = start(settings, "peak", few, device)
    next(iter(train(state, few, 1)))
    return torch.cuda.max_memory_reserved(device) / 2**20, torch.cuda.mem_get_info(device)[1] / 2**20


def gpu_fraction(peak_mb: float, gpu_mb: float | None) -> float:
    """The part of a GPU that one run needs: 1/k for the largest k that fits, so that k runs fill it."""
    if gpu_mb is None:
        return 1.0
    fits = math.floor(gpu_mb / (peak_mb * SAFETY + CUDA_CONTEXT_MB))
    return math.floor(1e4 / fits) / 1e4 if fits > 1 else 1.0  # rounded down: Ray counts in ten-thousandths


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
