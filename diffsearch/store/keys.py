"""Keys: hashes of exactly those settings that a result depends on, no more and no less (law 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from diffsearch.space.settings import RunSettings, SamplingPoint, canonical, walk_choices

TRAINING_STAGE = 1  # raised when a change of the code changes what training computes: old runs are then other runs
EVALUATION_STAGE = 1  # likewise for sampling and scoring


def run_key(settings: RunSettings, data_content: str, extensions: Mapping[str, str]) -> str:
    """Hash of exactly what a run's weights depend on: 16 hex digits.

    The data set enters by its content, not by its name or folder, and a user's file by the content hash of those of
    its members that this run uses. Epochs, sampling and scoring don't enter (law 1).
    """
    what = settings.to_json()
    what["dataset"] = data_content
    used = [f"{family}:{name}" for family, name in walk_choices(settings)]
    what["extensions"] = {name: extensions[name] for name in used if name in extensions}
    what["stage"] = TRAINING_STAGE
    return _hash(what)


def evaluation_key(
    run: str, epoch: int, point: SamplingPoint, samples: int, noise_seed: int, extensions: Mapping[str, str]
) -> str:
    """Hash of what a set of samples depends on: 16 hex digits. Metrics don't enter: a later one adds a line."""
    sampler = f"sampler:{point.sampler.name}"
    return _hash(
        {
            "run": run,
            "epoch": epoch,
            "point": point.to_json(),
            "samples": samples,
            "noise_seed": noise_seed,
            "extensions": {sampler: extensions[sampler]} if sampler in extensions else {},
            "stage": EVALUATION_STAGE,
        }
    )


def _hash(what: Any) -> str:
    return hashlib.sha256(canonical(what).encode()).hexdigest()[:16]
