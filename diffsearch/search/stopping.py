"""When to stop a run early: pure functions of scores, whose rungs are the study's milestones.

Every rule is built with its options and then asked, at each milestone but the last, with **lower is better**:
`rule(value, others) -> bool`, where `others` are the scores that earlier runs earned at this same milestone.
True stops the run. A run that diverged or failed earned no score there and is never among `others`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from diffsearch.errors import DiffsearchError
from diffsearch.registry import stopping_rule

Rule: TypeAlias = Callable[[float, Sequence[float]], bool]


@stopping_rule.register("none", needs_milestones=False, several=True)
def none() -> Rule:
    """Every run goes on to its last milestone."""
    return lambda value, others: False


@stopping_rule.register("asha", needs_milestones=True, several=True)
def asha(*, reduction: float = 3.0) -> Rule:
    """Asynchronous successive halving (Li et al. 2020): about the best 1/reduction of each rung go on.

    The first run at a rung goes on; a later one stops if it is worse than the 1/reduction quantile of those before it
    (linear interpolation, as in Ray's ASHAScheduler, to which it is tested equal on milestones 1, 3, 9).

    Args:
        reduction: > 1. With milestones that grow by the same factor each rung costs the same.
    """
    if not reduction > 1:
        raise DiffsearchError(f"asha: reduction must be greater than 1, got {reduction}")

    def rule(value: float, others: Sequence[float]) -> bool:
        return bool(others) and value > float(np.percentile(np.asarray(others), 100 / reduction))

    return rule


@stopping_rule.register("median", needs_milestones=True, several=True)
def median(*, minimum: int = 3) -> Rule:
    """The median rule (Golovin et al. 2017): a run stops if it is worse than the median of the others at its rung.

    Args:
        minimum: others needed at the rung before any run is stopped, ≥ 1.
    """
    if minimum < 1:
        raise DiffsearchError(f"median: minimum must be at least 1, got {minimum}")

    def rule(value: float, others: Sequence[float]) -> bool:
        return len(others) >= minimum and value > float(np.median(np.asarray(others)))

    return rule
