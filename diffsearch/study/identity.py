"""What makes two forms of a study file the same search: hashes of its space and of what it asks of each run."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from diffsearch.space.settings import StudySpec, canonical


def space_hash(spec: StudySpec, data_content: str) -> str:
    """Of the training axes and every fixed training setting: which points there are to choose from."""
    what = {
        "axes": [replace(axis, line=0) for axis in spec.axes],
        "fixed": dict(spec.fixed),
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
        "sampling": [dict(spec.sampling_fixed), [replace(axis, line=0) for axis in spec.sampling_axes]],
        "evaluation": spec.evaluation,
        "repeats": spec.repeats,
        "algorithm": spec.search.algorithm if spec.search.algorithm.name == "sequential" else "",
    }
    return _hash(what)


def _hash(what: object) -> str:
    return hashlib.sha256(canonical(what).encode()).hexdigest()[:12]
