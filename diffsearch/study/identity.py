"""What makes two forms of a study file the same search: hashes of its space and of what it asks of each run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffsearch.space.settings import LATER, EvaluationSettings, RunSettings, StudySpec, TrainingSettings, canonical


def space_hash(spec: StudySpec, data_content: str) -> str:
    """Of the training axes and every fixed training setting: which points there are to choose from."""
    what = {
        "axes": [replace(axis, line=0) for axis in spec.axes],
        "fixed": _given(spec.fixed),
        "seed": spec.seed,
        "data": data_content,
        "extensions": dict(spec.extensions),
    }
    return _hash(what)


def asks_hash(spec: StudySpec, data_content: str) -> str:
    """Of the space and all that is asked of each run: an Optuna study's scores mean one thing only."""
    what = {
        "space": space_hash(spec, data_content),
        "milestones": spec.milestones,
        "sampling": [_given(spec.sampling_fixed), [replace(axis, line=0) for axis in spec.sampling_axes]],
        "evaluation": _learned_from(spec.evaluation),
        "repeats": spec.repeats,
        **({} if spec.sampling_at == "milestones" else {"at": spec.sampling_at}),
        "algorithm": spec.search.algorithm if spec.search.algorithm.name == "sequential" else "",
    }
    return _hash(what)


def _learned_from(evaluation: EvaluationSettings) -> EvaluationSettings:
    """All of it but how much a screen lets pass: the search doesn't learn of that."""
    screen = evaluation.screen
    return evaluation if screen is None else replace(evaluation, screen=replace(screen, keep=1.0))


def _given(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Fixed values without the defaults of settings that older studies were made without, see `later`."""
    absent: dict[str, Any] = {"data.validation": 0.0, "sampling.guidance_weight": None, "sampling.guidance_scale": None}
    for section, kind in (("training", TrainingSettings), ("diffusion", RunSettings)):
        absent |= {f"{section}.{f.name}": f.default for f in dataclasses.fields(kind) if f.metadata.get(LATER)}
    return {path: value for path, value in fixed.items() if path not in absent or value != absent[path]}


def _hash(what: object) -> str:
    return hashlib.sha256(canonical(what).encode()).hexdigest()[:12]
