"""The axes of a study: their column names, how their values are shown, and how each value did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from diffsearch.records import StudyHistory
from diffsearch.report.ranks import Ranked, best_sheet, rankable
from diffsearch.scoring.statistics import summarise
from diffsearch.space.metric_names import scale_of
from diffsearch.space.settings import Choice, choice_from_json, show

RESERVED = frozenset(
    {"run", "run_key", "key", "order", "stage", "seed", "state", "reason", "epoch", "epochs", "sampling", "samples"}
    | {"noise_seed", "images_trained", "network_calls", "train_s", "sampling_s", "scoring_s", "attempts", "best"}
)  # other columns of the tables
BINS = 3  # a numeric axis with more than MAX_VALUES values is cut at its terciles
MAX_VALUES = 6
_AT = ("mean", "low", "high", "n", "scores")
_COLUMNS = ["value", "runs", "best", *_AT, *(f"first_{name}" for name in _AT)]


def show_value(value: Any) -> str:
    """An axis value in a cell, a Choice also where it lies there as its JSON."""
    if isinstance(value, Mapping) and "name" in value:
        return str(choice_from_json(value))
    return str(value) if isinstance(value, Choice) else show(value)


def axis_names(history: StudyHistory) -> dict[str, str]:
    """Dotted path → column name: its last part, the whole path where that is ambiguous or taken."""
    short = {path: path.rsplit(".", 1)[-1] for path in history.axes}
    often = Counter(short.values())
    taken = RESERVED | set(history.metrics)
    return {path: name if often[name] == 1 and name not in taken else path for path, name in short.items()}


def axis_table(history: StudyHistory, axis: str) -> pd.DataFrame:
    """How each value of an axis did in the search.

    Args:
        axis: dotted path of a training axis, or "epochs" (milestones, over runs that reached all of them).

    Returns:
        value, runs (asked for with that value, failed ones too), best (evaluation); mean, low, high (its 95 %
        interval), n and scores (run key → score) over the runs that reached the last milestone; and the same, with
        first_ before the names, at the first milestone, which no rule had cut yet. A run counts with its best sampling
        point at that epoch.
        mean is geometric where the objective's scale is `log`, and None where n = 0; low and high are None where n = 1.
        Of "epochs", `runs` are those that reached the milestone and first_* their mean.
    """
    first, last = (history.milestones[0], history.milestones[-1]) if history.milestones else (0, 0)
    members: dict[str, list[Ranked]] = {}
    asked: Counter[str] = Counter()
    ranked = rankable(history)
    if axis == "epochs":
        whole = [(run, sheets) for run, sheets in ranked if {s.epoch for s in sheets} >= set(history.milestones)]
        rows = [_epoch_row(history, epoch, ranked, whole) for epoch in history.milestones]
        return pd.DataFrame(rows, columns=_COLUMNS)
    label = labels(history, axis)
    asked.update(label.values())
    for run, sheets in ranked:
        if run.key in label:
            members.setdefault(label[run.key], []).append((run, sheets))
    rows = [_row(history, value, asked[value], members.get(value, []), first, last) for value in asked]
    return pd.DataFrame(rows, columns=_COLUMNS)


def labels(history: StudyHistory, axis: str, most: int = MAX_VALUES) -> dict[str, str]:
    """Run key → the value's text, for each run of the search that has the axis; ascending where values are numbers.

    More than `most` different numbers are cut at their terciles and shown as ranges.
    """
    values = {run.key: run.point[axis] for run in history.runs if run.stage == "search" and axis in run.point}
    if is_numeric(values.values()) and len(set(values.values())) > most:
        numbers = np.array(sorted(values.values()), dtype=np.float64)
        bins = np.array_split(numbers, BINS)
        edges = [(float(part[0]), float(part[-1])) for part in bins]
        upper = np.array([high for _, high in edges])
        bin_of = {key: int(np.searchsorted(upper, float(value))) for key, value in values.items()}
        ranges = {key: f"{show(edges[i][0])} to {show(edges[i][1])}" for key, i in bin_of.items()}
        return {key: ranges[key] for key in sorted(ranges, key=lambda key: bin_of[key])}
    place = {show_value(value): i for i, value in enumerate(in_order(values.values()))}
    text = {key: show_value(value) for key, value in values.items()}
    return dict(sorted(text.items(), key=lambda pair: place[pair[1]]))


def in_order(values: Iterable[Any]) -> list[Any]:
    """Numbers ascending, tuples of numbers by their first entries, all else by its text."""
    kept = list(values)
    if is_numeric(kept) or all(isinstance(value, tuple) and is_numeric(value) for value in kept):
        return sorted(kept)
    return sorted(kept, key=show_value)


def is_numeric(values: Iterable[Any]) -> bool:
    """Whether all are numbers (a bool is a word here)."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _at(history: StudyHistory, members: Iterable[Ranked], epoch: int) -> tuple[Any, ...]:
    """(mean, low, high, n, scores) of the best sampling point of each run that was scored at that epoch."""
    scores: dict[str, float] = {}
    for run, sheets in members:
        here = [sheet for sheet in sheets if sheet.epoch == epoch]
        if here:
            scores[run.key] = best_sheet(history, here).scores[history.objective].value
    if not scores:
        return None, None, None, 0, scores
    summary = summarise(scores.values(), scale_of(history.objective))
    return summary.mean, *(summary.interval or (None, None)), summary.n, scores


def _row(
    history: StudyHistory, value: str, asked: int, members: list[Ranked], first: int, last: int
) -> tuple[Any, ...]:
    sheets = [sheet for _, kept in members for sheet in kept]
    best = best_sheet(history, sheets).scores[history.objective].value if sheets else None
    return (value, asked, best, *_at(history, members, last), *_at(history, members, first))


def _epoch_row(history: StudyHistory, epoch: int, ranked: list[Ranked], whole: list[Ranked]) -> tuple[Any, ...]:
    """Of one milestone: all runs that reached it, its best, and the mean over those that reached every milestone."""
    here = [sheet for _, kept in ranked for sheet in kept if sheet.epoch == epoch]
    reached = len({sheet.run_key for sheet in here})
    best = best_sheet(history, here).scores[history.objective].value if here else None
    return (str(epoch), reached, best, *_at(history, whole, epoch), *_at(history, ranked, epoch))
