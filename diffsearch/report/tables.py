"""A study's history as pandas tables: every evaluation, every run, the ranking, the finalists."""

from __future__ import annotations

from typing import Any

import pandas as pd

from diffsearch.records import RunHistory, StudyHistory
from diffsearch.report.axes import axis_names, axis_table, show_value
from diffsearch.report.ledger import ledger, progress
from diffsearch.report.ranks import (
    STAGES,
    Configuration,
    Winner,
    best_sheet,
    broken,
    configurations,
    members,
    point_key,
    rankable,
    sign,
    winner,
)
from diffsearch.scoring.statistics import summarise

__all__ = [
    "Configuration",
    "Winner",
    "axis_names",
    "axis_table",
    "configurations",
    "evaluations",
    "finalist_sampling",
    "finalists",
    "front",
    "ledger",
    "point_key",
    "progress",
    "rankable",
    "ranking",
    "runs",
    "show_value",
    "spread_column",
    "winner",
]
_RUN_COLUMNS = ["run", "run_key", "order", "stage", "seed", "state"]


def evaluations(history: StudyHistory) -> pd.DataFrame:
    """One row an evaluation, of failed runs too (`state` says so), in the order in which the study asked for the runs.

    `train_s` is the training time up to that epoch in seconds; `network_calls` counts images times calls for each.
    A metric that has a spread (see `Score`) is followed by a column of it. Where a study has constraints, `broken` says
    which an evaluation breaks, "" where all hold.
    """
    names = axis_names(history)
    sheets = [sheet for run in history.runs for sheet in run.evaluations]
    spreads = {m for m in history.metrics if any(m in s.scores and s.scores[m].spread is not None for s in sheets)}
    scores = [name for m in history.metrics for name in (m, *([spread_column(m)] if m in spreads else []))]
    rows = []
    for run in history.runs:
        for sheet in run.evaluations:
            until = [epoch for epoch in run.epochs if epoch.epoch <= sheet.epoch]
            seen = until[-1].images_seen if until and until[-1].epoch == sheet.epoch else None
            rows.append(
                {
                    **_run_columns(run),
                    "epoch": sheet.epoch,
                    **{name: _cell(run.point.get(path)) for path, name in names.items()},
                    "sampling": str(sheet.sampling),
                    **{m: sheet.scores[m].value if m in sheet.scores else None for m in history.metrics},
                    **{spread_column(m): sheet.scores[m].spread if m in sheet.scores else None for m in spreads},
                    "samples": sheet.samples,
                    "noise_seed": sheet.noise_seed,
                    "images_trained": sheet.epoch * history.train_images if seen is None else seen,
                    "network_calls": sheet.network_calls,
                    "train_s": sum(epoch.wall_s for epoch in until),
                    "sampling_s": sheet.sampling_s,
                    "scoring_s": sheet.scoring_s,
                    **({"broken": broken(history, run, sheet)} if history.constraints else {}),
                    "key": sheet.key,
                }
            )
    fixed = [*_RUN_COLUMNS, "epoch", *names.values(), "sampling", *scores, "samples", "noise_seed"]
    last = ["images_trained", "network_calls", "train_s", "sampling_s", "scoring_s"]
    last += [*(["broken"] if history.constraints else []), "key"]
    return pd.DataFrame(rows, columns=[*fixed, *last])


def front(history: StudyHistory) -> pd.DataFrame:
    """The evaluations on the front of several objectives, by the first of them: a row each, the knee marked.

    Each objective has the column of its name, `network_calls` a sample's; empty where the study has one objective.
    """
    names = axis_names(history)
    rows = [
        {
            "run": member.run.key[:6],
            "run_key": member.run.key,
            "knee": member.is_knee,
            "epoch": member.sheet.epoch,
            **{name: _cell(member.run.point.get(path)) for path, name in names.items()},
            "sampling": str(member.sheet.sampling),
            **dict(zip(history.objectives, member.values, strict=True)),
            "samples": member.sheet.samples,
            "key": member.sheet.key,
        }
        for member in members(history)
        if member.rank == 0
    ]
    columns = ["run", "run_key", "knee", "epoch", *names.values(), "sampling", *history.objectives, "samples", "key"]
    return pd.DataFrame(rows, columns=columns)


def spread_column(metric: str) -> str:
    """Where `evaluations` has the spread of a metric."""
    return f"{metric}_spread"


def runs(history: StudyHistory) -> pd.DataFrame:
    """One row a run: how it ended, how far it came, and its best ranked score (None where nothing ranks)."""
    names = axis_names(history)
    best = {run.key: best_sheet(history, sheets) for run, sheets in rankable(history)}
    rows = [
        {
            **_run_columns(run),
            "reason": run.outcome.reason,
            "epochs": len(run.epochs),
            **{name: _cell(run.point.get(path)) for path, name in names.items()},
            "best": best[run.key].scores[history.objective].value if run.key in best else None,
            "train_s": sum(epoch.wall_s for epoch in run.epochs),
            "attempts": len(run.attempts) + 1,
        }
        for run in history.runs
    ]
    columns = [*_RUN_COLUMNS, "reason", "epochs", *names.values(), "best", "train_s", "attempts"]
    return pd.DataFrame(rows, columns=columns)


def ranking(history: StudyHistory) -> pd.DataFrame:
    """The best evaluation of each run of the search, best first: rank, run, run_key, order, epoch, sampling, score."""
    rows = []
    for run, sheets in rankable(history):
        best = best_sheet(history, sheets)
        score = best.scores[history.objective]
        rows.append(
            (run.key[:6], run.key, run.order, best.epoch, str(best.sampling), score.value, best.samples, best.key)
        )
    rows.sort(key=lambda row: (sign(history) * row[5], row[2]))
    columns = ["rank", "run", "run_key", "order", "epoch", "sampling", "score", "samples", "key"]
    return pd.DataFrame([(rank, *row) for rank, row in enumerate(rows, 1)], columns=columns)


def finalists(history: StudyHistory) -> pd.DataFrame:
    """One row a configuration, best mean first; `n` of the `asked` seeds count, `group` 1 ties with the best."""
    names = axis_names(history)
    rows = [
        {
            "place": place,
            "group": c.group,
            "mean": c.summary.mean,
            "se": c.summary.se,
            "n": c.summary.n,
            "asked": c.asked,
            "epoch": c.epoch,
            "sampling": str(c.sampling),
            "samples": c.sheets[0].samples,
            **{name: _cell(c.runs[0].point.get(path)) for path, name in names.items()},
            "scores": c.scores,
            "runs": tuple(run.key[:6] for run in c.runs),
        }
        for place, c in enumerate(configurations(history), 1)
    ]
    head = ["place", "group", "mean", "se", "n", "asked", "epoch", "sampling", "samples"]
    return pd.DataFrame(rows, columns=[*head, *names.values(), "scores", "runs"])


def finalist_sampling(history: StudyHistory) -> pd.DataFrame:
    """Every sampling point of each configuration at its best epoch: place, sampling, mean, se, n."""
    sheets = {run.key: kept for stage in STAGES for run, kept in rankable(history, stage)}
    rows = []
    for place, c in enumerate(configurations(history), 1):
        scores: dict[str, list[float]] = {}
        for run in c.runs:
            for sheet in sheets[run.key]:
                if sheet.epoch == c.epoch:
                    scores.setdefault(str(sheet.sampling), []).append(sheet.scores[history.objective].value)
        for text, values in scores.items():
            summary = summarise(values)
            rows.append((place, text, summary.mean, summary.se, summary.n))
    return pd.DataFrame(rows, columns=["place", "sampling", "mean", "se", "n"])


def _run_columns(run: RunHistory) -> dict[str, Any]:
    values = (run.key[:6], run.key, run.order, run.stage, run.settings.seed, str(run.outcome.state))
    return dict(zip(_RUN_COLUMNS, values, strict=True))


def _cell(value: Any) -> Any:
    """Numbers and words as they are; tuples and choices as their text, so that a CSV holds them."""
    return value if isinstance(value, int | float | str) or value is None else show_value(value)
