"""What a result was computed with: versions, device, git commit. Written into each run.json and each report."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

MUST_AGREE = ("diffsearch", "git_sha", "torch", "torchvision", "torch-fidelity", "numpy")  # of driver and workers
PACKAGES = ("diffsearch", "torch", "torchvision", "ray", "optuna", "mlflow", "torch-fidelity", "numpy")


@functools.cache
def environment() -> Mapping[str, str]:
    """Versions, device and commit of this process."""
    facts = {name: _version(name) for name in PACKAGES}
    return {**facts, "python": platform.python_version(), "device": device_name(), "git_sha": _git_sha()}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Where `there` would compute something else under the same keys, e.g. ["torch 2.13.0 (here 2.14.1)"].

    A build for CPUs and one for CUDA are one version; a commit that isn't known is no difference.
    """
    known = [name for name in MUST_AGREE if name != "git_sha" or (here[name] and there[name])]
    pairs = [(name, here[name].partition("+")[0], there[name].partition("+")[0]) for name in known]
    return [f"{name} {other} (here {mine})" for name, mine, other in pairs if mine != other]


def device_name() -> str:
    """The GPU's name, or the processor's with its number of cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    import os

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _git_sha() -> str:
    """Commit of the checkout that diffsearch runs from, with a + where files were changed; "" outside one."""
    here = Path(__file__).resolve().parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()
