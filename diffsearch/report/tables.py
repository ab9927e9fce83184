"""A study's history as pandas tables: every evaluation, every run, the ranking, the finalists."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from diffsearch.records import RunHistory, Score, StudyHistory
from diffsearch.report.axes import axis_names, axis_table, show_value
from diffsearch.report.ledger import ledger, progress
from diffsearch.report.ranks import (
    STAGES,
    Configuration,
    Winner,
    best_sheet,
    configurations,
    point_key,
    rankable,
    sign,
    winner,
)
from diffsearch.scoring.statistics import Summary, difference, judge, summarise
from diffsearch.space.metric_names import Scale, scale_of

__all__ = [
    "Configuration",
    "Winner",
    "axis_names",
    "axis_table",
    "bias_column",
    "configurations",
    "evaluations",
    "finalist_sampling",
    "finalists",
    "ledger",
    "point_key",
    "progress",
    "rankable",
    "ranking",
    "runs",
    "screen_column",
    "show_value",
    "spread_column",
    "winner",
]
_RUN_COLUMNS = ["run", "run_key", "order", "stage", "seed", "state"]


def evaluations(history: StudyHistory) -> pd.DataFrame:
    """One row an evaluation, of failed runs too (`state` says so), in the order in which the study asked for the runs.

    `train_s` is the training time up to that epoch in seconds; `network_calls` counts images times calls for each.
    A metric that has a spread or a bias (see `Score`) is followed by a column of it. In a study with a screen, what
    that scored has its own column (`screen_column`) and no other score; it comes before what was scored in full.
    """
    names, screen = axis_names(history), screen_column(history)
    sheets = [sheet for run in history.runs for sheet in run.evaluations]
    asides = {
        column(m): (m, part)
        for m in history.metrics
        for part, column in (("spread", spread_column), ("bias", bias_column))
        if any(m in sheet.scores and getattr(sheet.scores[m], part) is not None for sheet in sheets)
    }
    scores = [name for m in history.metrics for name in (m, *(c for c, (of, _) in asides.items() if of == m))]
    if screen is not None:
        scores += [screen, spread_column(screen)]
    rows = []
    for run in history.runs:
        for sheet in run.all_evaluations:
            full = sheet.scores if sheet not in run.screened else {}
            by_screen = sheet.scores[history.screen.objective] if history.screen and not full else None
            until = [epoch for epoch in run.epochs if epoch.epoch <= sheet.epoch]
            seen = until[-1].images_seen if until and until[-1].epoch == sheet.epoch else None
            rows.append(
                {
                    **_run_columns(run),
                    "epoch": sheet.epoch,
                    **{name: _cell(run.point.get(path)) for path, name in names.items()},
                    "sampling": str(sheet.sampling),
                    **{m: full[m].value if m in full else None for m in history.metrics},
                    **{c: getattr(full.get(m), part, None) for c, (m, part) in asides.items()},
                    **_screen_cells(screen, by_screen),
                    "samples": sheet.samples,
                    "noise_seed": sheet.noise_seed,
                    "images_trained": sheet.epoch * history.train_images if seen is None else seen,
                    "network_calls": sheet.network_calls,
                    "train_s": sum(epoch.wall_s for epoch in until),
                    "sampling_s": sheet.sampling_s,
                    "scoring_s": sheet.scoring_s,
                    "key": sheet.key,
                }
            )
    fixed = [*_RUN_COLUMNS, "epoch", *names.values(), "sampling", *scores, "samples", "noise_seed"]
    last = ["images_trained", "network_calls", "train_s", "sampling_s", "scoring_s", "key"]
    return pd.DataFrame(rows, columns=[*fixed, *last])


def screen_column(history: StudyHistory) -> str | None:
    """Where `evaluations` has the scores of the study's screen, e.g. `screen_kd-digits`; None where it has none."""
    return None if history.screen is None else f"screen_{history.screen.objective}"


def _screen_cells(column: str | None, score: Score | None) -> dict[str, float | None]:
    if column is None:
        return {}
    return {column: score.value if score else None, spread_column(column): score.spread if score else None}


def spread_column(metric: str) -> str:
    """Where `evaluations` has the spread of a metric."""
    return f"{metric}_spread"


def bias_column(metric: str) -> str:
    """Where `evaluations` has the bias of a metric."""
    return f"{metric}_bias"


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
    """One row a configuration, best mean first; `n` of the `asked` seeds count.

    `mean` is geometric where the objective's scale is `log`; `low` and `high` are its 95 % interval, `p` is that of
    being as good as the first, corrected for all comparisons, and `standing` says what follows: winner, tie or loser.
    """
    names = axis_names(history)
    rows = [
        {
            "place": place,
            "standing": c.standing,
            "mean": c.summary.mean,
            **_interval(c.summary),
            "p": c.p,
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
    head = ["place", "standing", "mean", "low", "high", "p", "n", "asked", "epoch", "sampling", "samples"]
    return pd.DataFrame(rows, columns=[*head, *names.values(), "scores", "runs"])


def finalist_sampling(history: StudyHistory) -> pd.DataFrame:
    """Every sampling point of each configuration at its best epoch, the one that stands for it first.

    Returns:
        place, sampling, mean, low, high, n; and against the one that stands for it, seed by seed, since each of these
        networks was sampled in all of these ways from the same noise: `against` (a factor where the objective's scale
        is `log`, else a difference), its paired interval `against_low` and `against_high`, `p` corrected for all
        comparisons within the configuration, and `narrower`, how many times narrower (on that scale) than unpaired.
    """
    scale = scale_of(history.objective)
    sheets = {run.key: kept for stage in STAGES for run, kept in rankable(history, stage)}
    rows = []
    for place, c in enumerate(configurations(history), 1):
        scores: dict[str, dict[str, float]] = {str(c.sampling): {}}
        for run in c.runs:
            for sheet in sheets[run.key]:
                if sheet.epoch == c.epoch:
                    found = scores.setdefault(str(sheet.sampling), {})
                    found.setdefault(run.key, sheet.scores[history.objective].value)
        of_all = [list(values.values()) for values in scores.values() if set(values) == {run.key for run in c.runs}]
        verdict = judge(of_all, history.direction, scale, paired=True)
        corrected = iter(verdict.p)
        for text, values in scores.items():
            summary = summarise(values.values(), scale)
            whole = set(values) == {run.key for run in c.runs}
            p = next(corrected) if whole else None
            against = _against(c, list(values.values()), scale) if whole and text != str(c.sampling) else {}
            row = {"place": place, "sampling": text, "mean": summary.mean, **_interval(summary), "n": summary.n}
            rows.append({**row, **against, "p": p if against else None})
    columns = ["place", "sampling", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=[*columns, "against", "against_low", "against_high", "p", "narrower"])


def _against(c: Configuration, scores: list[float], scale: Scale) -> dict[str, float]:
    paired, apart = (difference(c.scores, scores, scale, paired=way) for way in (True, False))
    if paired is None or apart is None:
        return {}
    log = scale == "log" and min(*c.scores, *scores) > 0
    wide = [math.log(high / low) if log else high - low for low, high in (paired.interval, apart.interval)]
    low, high = paired.interval
    return {"against": paired.value, "against_low": low, "against_high": high, "narrower": wide[1] / wide[0]}


def _interval(summary: Summary) -> dict[str, float | None]:
    low, high = summary.interval or (None, None)
    return {"low": low, "high": high}


def _run_columns(run: RunHistory) -> dict[str, Any]:
    values = (run.key[:6], run.key, run.order, run.stage, run.settings.seed, str(run.outcome.state))
    return dict(zip(_RUN_COLUMNS, values, strict=True))


def _cell(value: Any) -> Any:
    """Numbers and words as they are; tuples and choices as their text, so that a CSV holds them."""
    return value if isinstance(value, int | float | str) or value is None else show_value(value)
