"""What this machine has: what `doctor` and `features list` say."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsearch.cli.words import size
from diffsearch.errors import MetricError


@dataclass(frozen=True, slots=True)
class ExtractorFacts:
    """One extractor."""

    name: str
    present: bool
    reads: str
    where: str  # its weights, or how to get them


def extractors() -> Iterator[ExtractorFacts]:
    """Every registered extractor; nothing is downloaded."""
    from diffsearch import registry

    for name in registry.extractor.names():
        traits = registry.extractor.member(name).traits
        shape = traits.get("image_shape")
        images = f"{shape[1]}×{shape[2]} {'grey' if shape[0] == 1 else 'colour'}" if shape else "any images"
        classes = f", {traits['classes']:,} classes" if "classes" in traits else ""
        reads = f"{traits.get('dim', '?'):,} features of {images}{classes}"
        present, where = _weights(name, traits)
        yield ExtractorFacts(name, present, reads, where)


def _weights(name: str, traits: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether an extractor can be used now, and where its weights lie or how they are had."""
    from diffsearch.scoring.classifier import SHIPPED_DIGITS
    from diffsearch.scoring.features import inception_weights

    if any(importlib.util.find_spec(package) is None for package in traits.get("packages", ())):
        return False, f"absent: pip install 'diffsearch[{traits['extra']}]'"
    if name == "inception":
        try:
            return True, str(inception_weights(download=False))
        except MetricError:
            return False, "absent; downloaded when fid, kid or is is asked for, or: diffsearch features install FILE"
    if "packages" in traits:
        return True, f"in the package {traits['packages'][-1]}"
    known = {"digits": f"shipped ({SHIPPED_DIGITS.name})", "random": "drawn from a seed: a last resort"}
    return True, known.get(name, "from a file of your own (use:)")


def report(store: Path) -> Iterator[tuple[str, str, bool]]:
    """(what, finding, whether that is fine) of each thing that a study needs."""
    yield from _versions()
    yield from _machine()
    yield from _disk(store)
    from diffsearch.data.catalogue import available

    for each in available():
        yield f"data {each.name}", each.where if each.present else f"absent: {each.where}", True
    for facts in extractors():
        yield f"features {facts.name}", facts.where, True


def _versions() -> Iterator[tuple[str, str, bool]]:
    import platform

    from diffsearch.study.facts import environment

    facts = dict(environment())
    sha = facts.pop("git_sha", "")
    facts.pop("device", "")
    facts.pop("python", "")
    yield "diffsearch", facts.pop("diffsearch") + (f", commit {sha}" if sha else ""), True
    yield "python", platform.python_version(), True
    for name, version in facts.items():
        yield name, version, version != "absent"


def _machine() -> Iterator[tuple[str, str, bool]]:
    import psutil
    import torch

    from diffsearch.study.facts import device_name
    from diffsearch.training import precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory()
    yield "device", device_name(), True
    yield (
        "workers",
        f"{cores} at once, one thread each" if device.type == "cpu" else "by GPU memory",
        True,
    )
    yield "memory", f"{size(memory.available)} free of {size(memory.total)}", memory.available > 1e9
    yield "precision", f"{precision.measure(device)} (measured once, on one thread)", True


def _disk(store: Path) -> Iterator[tuple[str, str, bool]]:
    from diffsearch.data.cache import default_cache

    for name, folder in (("store", store), ("cache", default_cache())):
        there = folder.expanduser().absolute()
        while not there.exists():
            there = there.parent
        writable = os.access(there, os.W_OK)
        free = shutil.disk_usage(there).free
        state = "" if folder.exists() else ", made when needed"
        yield (
            name,
            f"{folder}{state}: {'writable' if writable else 'NOT writable'}, {size(free)} free",
            writable and free > 1e9,
        )
