"""What a study cost, from the naive sum down to what was computed, and its best score against its cost."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from diffsearch.records import Evaluation, RunHistory, State, StudyHistory
from diffsearch.report.ranks import Stage, rankable, sign

COLUMNS = ("epochs", "images_trained", "network_calls", "training_s", "sampling_s", "scoring_s")
Cost = npt.NDArray[np.float64]  # one entry a column

ALONE = "every milestone of every run, trained from scratch alone"
SHARED = "milestones lie on one run"
STOPPED = "stopped early"
FAILED = "ended by divergence or failure"
OPEN = "not reached yet"
TOTAL = "in the runs of this study"
REUSED = "found in the store"
NEW = "computed for this study"
_GAP = {
    State.STOPPED_EARLY: STOPPED,
    State.DIVERGED: FAILED,
    State.FAILED: FAILED,
    State.OUT_OF_MEMORY: FAILED,
}


def ledger(history: StudyHistory) -> pd.DataFrame:
    """The account, a line a row (index) and `COLUMNS`; each column adds up exactly.

    * ALONE: what a script costs that trains each milestone of each run from scratch (1 + 3 + 9 epochs, not 9), stops
      nothing and shares nothing. Its epochs and images follow from the milestones; its calls and seconds are
      estimates: an epoch costs what the run's own epochs cost on average, a milestone's sampling and scoring what the
      run's own did (where a run has none: the mean over the runs of its stage).
    * SHARED, STOPPED, FAILED, OPEN (negative): what wasn't spent since milestones lie along one run; since a rule
      stopped runs; since runs diverged or failed; since runs are unfinished.
    * TOTAL = the sum of all those: epochs and evaluations that the runs of this study have, measured.
    * REUSED (negative): of TOTAL, what was in the store before. NEW = TOTAL + REUSED: what this study paid for.

    Attempts that were killed lost at most the time since their last checkpoint; that isn't recorded and isn't in here.
    """
    lines = {name: np.zeros(len(COLUMNS)) for name in (ALONE, SHARED, STOPPED, FAILED, OPEN, TOTAL, REUSED, NEW)}
    goals = {"search": history.milestones, "finalist": _finalist_goals(history)}
    typical = _typical(history)
    for run in history.runs:
        goal = goals[run.stage]
        alone, whole = _planned(history, run, goal, typical)
        epochs = [epoch for epoch in run.epochs if not goal or epoch.epoch <= goal[-1]]
        reached = _epochs_cost(history, run, len(epochs)) + _sheets_cost(run.all_evaluations)
        lines[ALONE] += alone
        lines[SHARED] += whole - alone
        lines[_GAP.get(run.outcome.state, OPEN)] += reached - whole
        lines[TOTAL] += reached
        reused = _epochs_cost(history, run, min(run.reused_epochs, len(epochs)))
        found = (*run.screened[: run.reused_screened], *run.evaluations[: run.reused_evaluations])
        lines[REUSED] -= reused + _sheets_cost(found)  # the store is read first
    lines[NEW] = lines[TOTAL] + lines[REUSED]
    return pd.DataFrame.from_dict(lines, orient="index", columns=list(COLUMNS))


def entry(table: pd.DataFrame, line: str, column: str) -> float:
    """One number of a ledger."""
    return float(table[column].to_dict()[line])


def progress(history: StudyHistory) -> pd.DataFrame:
    """The search's best score so far: images, naive_images, score, best, run_key; a row a ranked evaluation.

    `images` counts the images trained by the search's runs up to there, in the order in which the study asked for them
    (workers overlap, the order of asking is the one that can be repeated), epochs found in the store included.
    `naive_images` is what every milestone up to there, trained from scratch alone and never stopped, would have cost.
    """
    ranked = {run.key: sheets for run, sheets in rankable(history)}
    images, naive = 0.0, 0.0
    best: float | None = None
    rows = []
    for run in (run for run in history.runs if run.stage == "search"):
        each = _images_per_epoch(history, run)
        for sheet in sorted(ranked.get(run.key, ()), key=lambda sheet: sheet.epoch):
            score = sheet.scores[history.objective].value
            better = best is None or sign(history) * score < sign(history) * best
            best = score if better else best
            before = sum(m for m in history.milestones if m <= sheet.epoch)
            rows.append((images + each * sheet.epoch, naive + each * before, score, best, run.key))
        images += each * len(run.epochs)
        naive += each * sum(history.milestones)
    return pd.DataFrame(rows, columns=["images", "naive_images", "score", "best", "run_key"])


def _finalist_goals(history: StudyHistory) -> tuple[int, ...]:
    """The epochs at which any finalist was scored; the milestones where none was yet."""
    scored = {sheet.epoch for run in history.runs if run.stage == "finalist" for sheet in run.evaluations}
    return tuple(sorted(scored)) or history.milestones


def _planned(
    history: StudyHistory, run: RunHistory, goal: tuple[int, ...], typical: dict[Stage, Cost]
) -> tuple[Cost, Cost]:
    """(each milestone of a run alone, all of them along one run), seconds and calls estimated as `ledger` says."""
    epoch_cost = _epochs_cost(history, run, len(run.epochs)) / len(run.epochs) if run.epochs else None
    if epoch_cost is None:
        epoch_cost = np.array([1, _images_per_epoch(history, run), 0, typical[run.stage][3], 0, 0])
    scored = {sheet.epoch for sheet in run.all_evaluations}
    sheet_cost = _sheets_cost(run.all_evaluations) / len(scored) if scored else typical[run.stage] * [0, 0, 1, 0, 1, 1]
    last = goal[-1] if goal else 0
    return sum(goal) * epoch_cost + len(goal) * sheet_cost, last * epoch_cost + len(goal) * sheet_cost


def _typical(history: StudyHistory) -> dict[Stage, Cost]:
    """For runs without epochs or scores of their own: the mean cost of an epoch and of a milestone's evaluations."""
    found: dict[Stage, Cost] = {}
    stages: tuple[Stage, ...] = ("search", "finalist")
    for stage in stages:
        members = [run for run in history.runs if run.stage == stage]
        epochs = sum(len(run.epochs) for run in members)
        scored = sum(len({sheet.epoch for sheet in run.all_evaluations}) for run in members)
        trained = sum(epoch.wall_s for run in members for epoch in run.epochs)
        sheets = sum((_sheets_cost(run.all_evaluations) for run in members), start=np.zeros(len(COLUMNS)))
        found[stage] = sheets / max(scored, 1) + np.array([0, 0, 0, trained / max(epochs, 1), 0, 0])
    return found


def _images_per_epoch(history: StudyHistory, run: RunHistory) -> float:
    """Images of one epoch: fewer than the data set where the last, incomplete batch is dropped."""
    return run.epochs[-1].images_seen / run.epochs[-1].epoch if run.epochs else float(history.train_images)


def _epochs_cost(history: StudyHistory, run: RunHistory, count: int) -> Cost:
    """Of the first `count` epochs of a run."""
    seconds = sum(epoch.wall_s for epoch in run.epochs[:count])
    return np.array([count, count * _images_per_epoch(history, run), 0, seconds, 0, 0], dtype=np.float64)


def _sheets_cost(sheets: Iterable[Evaluation]) -> Cost:
    kept = list(sheets)
    calls, drawn, scored = (
        sum(sheet.network_calls for sheet in kept),
        sum(sheet.sampling_s for sheet in kept),
        sum(sheet.scoring_s for sheet in kept),
    )
    return np.array([0, 0, calls, 0, drawn, scored], dtype=np.float64)
