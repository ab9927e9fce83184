"""What may be an objective or be constrained: every metric, and the costs that a run knows without noise.

A cost is measured at an evaluation, a run at one epoch and sampling point. The time of sampling is none of them: it
differs from one machine and hour to the next, and the network's calls, which it follows, don't.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from diffsearch.registry import suggest
from diffsearch.space.metric_names import find, known_metrics
from diffsearch.space.settings import Constraint

_SYNTAX = re.compile(r"\s*(?P<quantity>[^\s<>=]+)\s*(?P<relation><=|>=|<|>)\s*(?P<bound>[^\s<>=]+)\s*")
_BOUND = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([kM]?)")


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost of an evaluation; less is better.

    Args:
        unit: as a table's head and an axis say it.
        sampled: it is the sampling point's, so that one which is too dear needn't be sampled at all.
    """

    name: str
    unit: str
    sampled: bool = False


COSTS: Mapping[str, Cost] = {
    cost.name: cost
    for cost in (
        Cost("network_calls", "network calls a sample", sampled=True),
        Cost("parameters", "parameters"),
        Cost("peak_memory_mb", "MiB at the peak of training"),
        Cost("training_images", "images trained"),
    )
}


def direction(name: str) -> Literal["min", "max"]:
    """Whether less or more of a quantity is better."""
    found = find(name)
    return "min" if found is None else found.direction


def unit(name: str) -> str:
    """What the numbers are: a cost's unit, a metric's own name."""
    return COSTS[name].unit if name in COSTS else name


def help_for(name: str, metrics: Iterable[str] | None = None) -> str:
    """What might have been meant: costs, and metrics (of these, or the usual ones of all)."""
    known = [str(metric) for metric in known_metrics() if metric.reference != "train"] if metrics is None else metrics
    return suggest(name, {*COSTS, *known})


def parse_constraint(text: str) -> Constraint | None:
    """`parameters < 2M` as a constraint, of whatever quantity; None where it is none."""
    match = _SYNTAX.fullmatch(text)
    bound = _BOUND.fullmatch(match["bound"]) if match else None
    if match is None or bound is None:
        return None
    relation: Literal["<", "<=", ">", ">="] = match["relation"]  # type: ignore[assignment]
    return Constraint(match["quantity"], relation, float(bound[1]) * {"": 1.0, "k": 1e3, "M": 1e6}[bound[2]])
