"""Made-up tables for tests: no run was trained for them, so that a test knows every score in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from diffsearch.space.axes import grid, sampling_points, settings_at
from diffsearch.space.settings import SamplingPoint, StudySpec
from diffsearch.study.recording import Facts, Recording, cell

EPOCH_S, SAMPLING_S, SCORING_S, IMAGES = 2.0, 0.5, 0.25, 100
Curve = Callable[[Mapping[str, Any], int, SamplingPoint, int], float]  # point, epoch, sampling, seed → score


def made_up(
    spec: StudySpec, score: Curve, seeds: int = 1, diverges: Callable[[Mapping[str, Any]], int] = lambda point: 0
) -> Recording:
    """A table of every point of a study's grid: each epoch took 2 s, each evaluation 0.75 s.

    Args:
        diverges: the epoch at which a point's runs diverge; 0: never.
    """
    rows, samplings = [], {}
    names = itertools.count()
    for point in grid(spec):
        for seed in range(seeds):
            end = diverges(point)
            head = {"run": f"run{next(names)}", **{path: cell(value) for path, value in point.items()}, "seed": seed}
            head |= {"samples": 10, "noise_seed": seed, "outcome": "diverged" if end else "finished"}
            for epoch in spec.milestones:
                for each in sampling_points(spec, settings_at(spec, point, seed)):
                    samplings[str(each)] = each.to_json()
                    if not end or epoch < end:
                        value = score(point, epoch, each, seed)
                        rows.append({**head, **_took(epoch), "sampling": str(each), spec.evaluation.objective: value})
            if end:
                rows.append({**head, **_took(end - 1), "epoch": end, "sampling": None})
    facts = Facts(spec.text, "content", (1, 28, 28), IMAGES, {spec.evaluation.objective: "hash"}, samplings, {}, "CC0")
    return Recording(pd.DataFrame(rows), facts)


def _took(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "images_seen": epoch * IMAGES,
        "loss": 1 / (epoch + 1),
        "train_s": epoch * EPOCH_S,
        "sampling_s": SAMPLING_S,
        "scoring_s": SCORING_S,
        "network_calls": 40,
    }
