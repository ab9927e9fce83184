"""Which arithmetic a machine trains fastest in: measured once, remembered in the user's cache."""

from __future__ import annotations

import json
import logging
import platform
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from diffsearch.data.cache import default_cache
from diffsearch.errors import StoreError
from diffsearch.files import replace_file

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
WORTH_IT = 1.2  # bf16 rounds to 8 bits: it has to buy at least this much speed
BUDGET_S = 0.6  # of timing for each precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Forward passes in bf16 where asked for; weights, gradients and the optimiser stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


class Autocast(nn.Module):
    """A network called in the precision that it was trained in; takes and gives fp32."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, x_t: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        with autocast(x_t.device, self.precision):
            output: Tensor = self.network(x_t, t, *labels)
        return output.float()


def measure(device: torch.device, cache: Path | None = None) -> Precision:
    """The precision that a small network's training step is fastest in on this device, on one thread.

    Timed once for each processor and torch version (about a second) and remembered. bf16 is taken only where it is
    1.2 times as fast: without AMX or AVX512-BF16 a CPU emulates it, many times slower.

    Args:
        cache: folder of the remembered answer; default $DIFFSEARCH_CACHE, else the user's cache folder.
    """
    file = (cache or default_cache()) / "precision.json"
    key = f"{_processor(device)} | torch {torch.__version__}"
    known = _read(file)
    if key not in known:
        seconds = time_step(device)
        faster = seconds["fp32"] / seconds["bf16"]
        known[key] = "bf16" if faster >= WORTH_IT else "fp32"
        log.info("precision device=%r bf16_speedup=%.2f chosen=%s", key, faster, known[key])
        try:
            replace_file(file, json.dumps(known, indent=1, sort_keys=True).encode())
        except (StoreError, OSError) as error:
            log.warning("precision is measured anew by each process: %s", error)
    return known[key]


def time_step(device: torch.device) -> dict[Precision, float]:
    """Seconds of the fastest forward and backward pass of a small convolutional network, in each precision."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return {"fp32": 1.0, "bf16": float("inf")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            network = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1))
            network.to(device)
            x = torch.zeros(16, 8, 28, 28, device=device)
            return {"fp32": _fastest(network, x, "fp32"), "bf16": _fastest(network, x, "bf16")}
    finally:
        torch.set_num_threads(threads)


def _fastest(network: nn.Module, x: Tensor, precision: Precision) -> float:
    """Least of up to 12 timings of a step, fewer where they take longer than the budget."""
    begun = time.perf_counter()
    seconds: list[float] = []
    while len(seconds) < 12 and time.perf_counter() - begun < BUDGET_S:
        start = time.perf_counter()
        with autocast(x.device, precision):
            output = network(x)
        output.float().square().mean().backward()
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    if info.exists():
        # Virtual machines name a processor loosely: what decides here are its bf16 instructions.
        lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in lines.items()}
        flags = sorted({"amx_bf16", "avx512_bf16"} & set(fields.get("flags", "").split()))
        return " ".join([fields.get("model name", platform.processor()), fields.get("model", ""), *flags]).strip()
    return platform.processor() or platform.machine()


def _read(file: Path) -> dict[str, Precision]:
    """What is remembered; an absent or broken file is nothing remembered."""
    try:
        plain = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in plain.items() if value in ("fp32", "bf16")} if isinstance(plain, dict) else {}
