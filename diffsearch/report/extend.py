"""A wider axis: one more value, or a longer range, on the side where its best value is the outermost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from diffsearch.report.axes import is_numeric, show_value
from diffsearch.report.phrases import number
from diffsearch.space.settings import Choices, Domain, Integers, LogUniform

OUTER = 0.1  # a value in this part of a range's width lies at its edge
WIDER = 0.5  # of a range's width, that is added beyond an edge


def extended(domain: Domain, best: Any) -> tuple[Domain, str] | None:
    """A wider domain and what was done, if the best value is the outermost and values have a step to repeat.

    Lists take one more step of the ratio of their last two (of their difference, where one isn't positive), lists of
    tuples of numbers, such as channels, in each entry. Ranges grow by half of their width, in their own scale.
    """
    if isinstance(domain, Choices):
        return _further(domain.values, best)
    if not is_numeric([best]):
        return None
    scale, back = (math.log, math.exp) if isinstance(domain, LogUniform) else (float, float)
    low, high = scale(domain.low), scale(domain.high)
    place, more, whole = (scale(best) - low) / (high - low), WIDER * (high - low), isinstance(domain, Integers)
    if OUTER < place < 1 - OUTER:
        return None
    down = place <= OUTER
    new = rounded(back(low - more if down else high + more), -1 if down else 1, whole)
    if down and isinstance(domain, Integers) and domain.low > 0:
        new = max(1.0, new)
    ends = (new, domain.high) if down else (domain.low, new)
    if ends == (domain.low, domain.high):
        return None
    wider = between(domain, *ends)
    side = "lowest" if down else "highest"
    return (
        wider,
        f"the best run's, {number(best)}, lies in the {side} tenth of the range, which now reaches {number(new)}",
    )


def joined(whole: Domain, inner: Domain, wider: Domain) -> Domain:
    """A part of a domain, which may be wider than the whole already, with what a wider one adds to the whole of it."""
    if isinstance(whole, Choices):
        assert isinstance(inner, Choices) and isinstance(wider, Choices)
        new = [value for value in wider.values if value not in (*whole.values, *inner.values)]
        before = [value for value in new if wider.values.index(value) == 0]
        return Choices((*before, *inner.values, *(value for value in new if value not in before)))
    assert not isinstance(inner, Choices) and not isinstance(wider, Choices)
    low = min(inner.low, wider.low) if wider.low < whole.low else inner.low
    return between(whole, low, max(inner.high, wider.high) if wider.high > whole.high else inner.high)


def _further(values: Sequence[Any], best: Any) -> tuple[Domain, str] | None:
    parts = [value if isinstance(value, tuple) else (value,) for value in values]
    if len({len(part) for part in parts}) != 1 or not parts[0] or not all(is_numeric(part) for part in parts):
        return None
    order = sorted(range(len(values)), key=lambda i: parts[i])
    columns = list(zip(*(parts[i] for i in order), strict=True))
    if len(values) < 2 or any(a >= b for column in columns for a, b in itertools.pairwise(column)):
        return None
    if best not in (values[order[0]], values[order[-1]]):
        return None
    up = best == values[order[-1]]
    entries = [step(column[-2:] if up else column[1::-1]) for column in columns]
    if any(entry is None or entry == edge for entry, edge in zip(entries, parts[order[-1 if up else 0]], strict=True)):
        return None
    new = tuple(entries) if isinstance(values[0], tuple) else entries[0]
    descending = order == list(reversed(range(len(values))))
    front = (up and descending) or (not up and order == list(range(len(values))))
    wider = (new, *values) if front else (*values, new)
    side = "largest" if up else "smallest"
    return Choices(wider), f"{show_value(new)} added, as the best run has the {side} value, {show_value(best)}"


def step(pair: Sequence[float]) -> float | int | None:
    """One more step from pair[0] to pair[1] to the next, of the same ratio where both are positive."""
    before, edge = pair
    if min(pair) > 0:
        new = edge * edge / before
        if all(isinstance(value, int) for value in pair):
            return max(1, math.floor(new + 0.5))
        return float(f"{new:.3g}")
    new = edge + (edge - before)
    return new if all(isinstance(value, int) for value in pair) else float(f"{new:.6g}")


def rounded(value: float, way: int, whole: bool) -> float:
    """Two digits, away from a range's middle."""
    if value == 0:
        return 0.0
    place = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    place = max(1.0, place) if whole else place
    turned = math.ceil(value / place - 1e-9) if way > 0 else math.floor(value / place + 1e-9)
    return float(f"{turned * place:.6g}")


def between(domain: Domain, low: float, high: float) -> Domain:
    """A range of the same kind."""
    assert not isinstance(domain, Choices)
    return Integers(int(low), int(high)) if isinstance(domain, Integers) else type(domain)(float(low), float(high))
