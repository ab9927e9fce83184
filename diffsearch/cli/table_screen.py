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


def sorted_rows(history: StudyHistory, sort: str | None) -> pd.DataFrame:
    """Every evaluation, the best first, or in ascending order of a column.

    Raises:
        Refused: no such column.
    """
    rows = tables.evaluations(history)
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
    columns = [_column(history, rows, name) for name in map(str, rows.columns) if _shown(history, rows, name)]
    hidden = _make_room(history, columns) if sys.stdout.isatty() else []
    for line in zip(*(column.padded() for column in columns), strict=True):
        click.echo("  ".join(line).rstrip())
    if hidden:
        click.echo(f"not shown, for want of room: {', '.join(hidden)} (--csv - has everything)")


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
    head = SHORT.get(name, name) + (" ± within" if pd.Series(list(spreads)).notna().any() else "")
    return _Column(name, [head, *cells], bool(pd.api.types.is_numeric_dtype(rows[name])))


def _make_room(history: StudyHistory, columns: list[_Column]) -> list[str]:
    """Take columns away until a line fits: what tells least first, then axes from the right. Their names."""
    width = shutil.get_terminal_size().columns
    others = [metric for metric in history.metrics if metric != history.objective]
    kept = {"run", "epoch", history.objective}
    axes = [column.name for column in columns if column.name not in kept]
    hidden = []
    for name in dict.fromkeys(["seed", "samples", *others, "stage", "sampling", "state", *reversed(axes)]):
        if sum(column.width + 2 for column in columns) - 2 <= width:
            break
        found = [column for column in columns if column.name == name]
        for column in found:
            columns.remove(column)
            hidden.append(SHORT.get(name, name))
    return hidden


def _shown(history: StudyHistory, rows: pd.DataFrame, name: str) -> bool:
    asides = [column(name) for column in (tables.spread_column, tables.bias_column) for name in _scores(history)]
    hidden = name in HIDDEN or name in asides  # a spread stands beside its score
    return not hidden and (name not in ONLY_IF_VARIED or rows[name].nunique() > 1)


def _scores(history: StudyHistory) -> tuple[str, ...]:
    return (*history.metrics, _screen(history))


def _cell(history: StudyHistory, name: str, value: Any, spread: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)):
        return "–"
    if name in _scores(history):
        return plus_minus(maybe(value), maybe(spread))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
