"""How a study's axes, numbers and times are written on a terminal: short, and the same on every screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffsearch.space.settings import Axis, Choice, Choices, choice_from_json, show

SHORT = {
    "steps": "T",
    "noise_process": "process",
    "batch_size": "batch",
    "normalization": "norm",
    "learning_rate": "lr",
}
RANGE_WIDTH = 8  # characters of a drawn number: `0.00123`


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Dotted path → the word over its column; the whole path where two would share one."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    words = [SHORT.get(name, name) for name in last]
    return {path: word if words.count(word) == 1 else path for path, word in zip(paths, words, strict=True)}


def cell(value: Any) -> str:
    """A value of an axis, a Choice also where it lies there as its JSON."""
    if isinstance(value, Mapping) and "name" in value:
        return str(choice_from_json(value))
    return str(value) if isinstance(value, Choice) else show(value).replace(", ", ",")


def widest(axis: Axis) -> int:
    """Characters of the axis' longest value, so that its column doesn't jump as values come and go."""
    return max(map(len, map(cell, axis.domain.values))) if isinstance(axis.domain, Choices) else RANGE_WIDTH


def point_words(point: Mapping[str, Any], paths: Sequence[str]) -> str:
    """`x0-l2 T 15 linear-noise 16-32-64`: a point in file order, numbers with their name."""
    names = short_names(paths)
    words = []
    for path in paths:
        if path in point:
            value = point[path]
            named = isinstance(value, int | float) or value is None
            words.append(f"{names[path]} {cell(value)}" if named else cell(value))
    return " ".join(words) or "the one point"


def clock(seconds: float) -> str:
    """`0:07`, `3:41`, `1:02:33`."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """`40 s`, `6 min`, `2 h 10 min`, `3 days`: an estimate in words."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes, -1), 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours / 24:.0f} days"


def size(count: float) -> str:
    """Bytes as `310 MB`."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            scaled = count / least
            return f"{scaled:.0f} {unit}" if scaled >= 10 else f"{scaled:.1f} {unit}"
    return f"{count:.0f} bytes"


def several(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")
