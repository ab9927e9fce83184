"""`diffsearch table` on a terminal, or through a pipe."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import Any

import click
import pandas as pd

from diffsearch.cli.places import Refused
from diffsearch.cli.words import SHORT
from diffsearch.records import StudyHistory
from diffsearch.registry import suggest
from diffsearch.report import tables
from diffsearch.report.phrases import maybe, plus_minus

HIDDEN = (
    "run_key",
    "order",
    "noise_seed",
    "images_trained",
    "network_calls",
    "train_s",
    "sampling_s",
    "scoring_s",
    "key",
)
ONLY_IF_VARIED = ("seed", "sampling", "samples", "stage", "state")


def sorted_rows(history: StudyHistory, sort: str | None, pareto: bool = False) -> pd.DataFrame:
    """Every evaluation, the best first, or in ascending order of a column; with `pareto` those on the front alone.

    Raises:
        Refused: no such column, or no front.
    """
    if pareto and not history.objectives:
        raise Refused(f"--pareto: study '{history.name}' has one objective. Give it evaluation.objectives.")
    rows = tables.front(history) if pareto else tables.evaluations(history)
    if sort is None and pareto:
        return rows
    if sort is None:
        down = history.direction == "max"
        by, up = ["samples", history.objective], [False, not down]
        if history.screen is not None:
            by, up = [*by, _screen(history)], [*up, history.screen.direction == "min"]
        return rows.sort_values(by, ascending=up, kind="stable")
    if sort not in rows.columns:
        raise Refused(f"--sort {sort}: no such column. {suggest(sort, map(str, rows.columns))}")
    return rows.sort_values(sort, kind="stable")


def _screen(history: StudyHistory) -> str:
    return tables.screen_column(history) or ""


def show(history: StudyHistory, rows: pd.DataFrame) -> None:
    """Print it: what varies, with no more digits than the numbers deserve; on a terminal as many columns as fit."""
    if rows.empty:
        raise Refused(f"study '{history.name}' has no evaluation yet.")
    columns = _columns(history, rows)
    hidden = _make_room(history, columns) if sys.stdout.isatty() else []
    for line in zip(*(column.padded() for column in columns), strict=True):
        click.echo("  ".join(line).rstrip())
    if hidden:
        click.echo(f"not shown, for want of room: {', '.join(hidden)} (--csv - has everything)")


def front_lines(history: StudyHistory) -> list[str]:
    """The front as lines of text: its head, and a row a member."""
    columns = _columns(history, tables.front(history))
    return ["  ".join(line).rstrip() for line in zip(*(column.padded() for column in columns), strict=True)]


def _columns(history: StudyHistory, rows: pd.DataFrame) -> list[_Column]:
    return [_column(history, rows, name) for name in map(str, rows.columns) if _shown(history, rows, name)]


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]  # the head first
    numeric: bool

    @property
    def width(self) -> int:
        return max(map(len, self.cells))

    def padded(self) -> list[str]:
        return [text.rjust(self.width) if self.numeric else text.ljust(self.width) for text in self.cells]


def _column(history: StudyHistory, rows: pd.DataFrame, name: str) -> _Column:
    spreads = rows.get(tables.spread_column(name), [None] * len(rows))
    cells = (_cell(history, name, value, spread) for value, spread in zip(rows[name], spreads, strict=True))
    head = "bias" if name == tables.bias_column(history.objective) else SHORT.get(name, name)
    head += " ± within" if pd.Series(list(spreads)).notna().any() else ""
    return _Column(name, [head, *cells], bool(pd.api.types.is_numeric_dtype(rows[name])))


def _make_room(history: StudyHistory, columns: list[_Column]) -> list[str]:
    """Take columns away until a line fits: what tells least first, then axes from the right. Their names."""
    width = shutil.get_terminal_size().columns
    others = [metric for metric in history.metrics if metric != history.objective]
    kept = {"run", "epoch", history.objective}
    axes = [column.name for column in columns if column.name not in kept]
    hidden = []
    bias = tables.bias_column(history.objective)
    for name in dict.fromkeys([bias, "seed", "samples", *others, "stage", "sampling", "state", *reversed(axes)]):
        if sum(column.width + 2 for column in columns) - 2 <= width:
            break
        found = [column for column in columns if column.name == name]
        for column in found:
            columns.remove(column)
            hidden.append(SHORT.get(name, name))
    return hidden


def _shown(history: StudyHistory, rows: pd.DataFrame, name: str) -> bool:
    kept = history.objectives if "knee" in rows else ()  # of a front every objective
    asides = [tables.spread_column(name) for name in _scores(history)]  # a spread stands in its score's own cell
    asides += [tables.bias_column(name) for name in _scores(history) if name != history.objective]
    hidden = (name in HIDDEN and name not in kept) or name in asides
    return not hidden and (name not in ONLY_IF_VARIED or rows[name].nunique() > 1)


def _scores(history: StudyHistory) -> tuple[str, ...]:
    return (*history.metrics, _screen(history))


def _cell(history: StudyHistory, name: str, value: Any, spread: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)):
        return "–"
    if name == "knee":
        return "knee" if value else ""
    if name in _scores(history):
        return plus_minus(maybe(value), maybe(spread))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
