"""The report's second section: how much each axis matters, and how each of its values did."""

from __future__ import annotations

from typing import Any

from diffsearch.records import State, StudyHistory
from diffsearch.report import claims, phrases, tables
from diffsearch.report.axes import axis_names
from diffsearch.report.blocks import Keep, lines, table
from diffsearch.report.figures import importance_bars, parallel_coordinates
from diffsearch.report.importance import Importances, importances
from diffsearch.report.phrases import bracket, maybe, number
from diffsearch.report.ranks import rankable


def what_mattered(history: StudyHistory, keep: Keep) -> str:
    """Importances, and each axis value by value."""
    found = importances(history)
    names = axis_names(history)
    parts = ["## What mattered"]
    if found.reason:
        parts.append(f"No importances: {found.reason[0].lower()}{found.reason[1:]}")
    else:
        parts.append(
            f"Importances by fANOVA over the best scores of {phrases.several(found.runs, 'run')}. They say how much an "
            "axis moved the score within this space, not which value is good." + _beyond_chance(found, names)
        )
        parts.append(keep(importance_bars(history, found)))
    if found.left_out and not found.reason:
        parts.append(f"Left out, since not varied in every run: {phrases.listing([names[p] for p in found.left_out])}.")
    parts.append(keep(parallel_coordinates(history)))
    if history.milestones and rankable(history):
        stopped = any(run.outcome.state is State.STOPPED_EARLY for run in history.runs)
        parts.append(_how_to_read(history, stopped))
        for axis in (*history.axes, "epochs"):
            parts.append(_axis(history, axis, names.get(axis, axis), stopped))
    return lines(*parts)


def _beyond_chance(found: Importances, names: dict[str, str]) -> str:
    if not found.chance:
        return ""
    beyond = [names[path] for path, share in found.shares if share > found.chance[path]]
    if not beyond:
        return " None goes beyond what shuffled scores give: read nothing into their order."
    return f" Beyond what shuffled scores give: {phrases.listing(beyond)}."


def _how_to_read(history: StudyHistory, stopped: bool) -> str:
    text = f"{phrases.bounds_text(history, history.objective, history.samples)}. {claims.interval_sentence(history)} "
    text += "Other axes vary within each row, too, and a search doesn't draw its runs by lot: read them as a guide. "
    if stopped:
        text += (
            f"The mean at epoch {history.milestones[-1]} is over the runs that got there, which flatters values whose "
            f"bad runs were stopped; at epoch {history.milestones[0]} nothing had been stopped yet."
        )
    return text


def _axis(history: StudyHistory, axis: str, name: str, stopped: bool) -> str:
    found = tables.axis_table(history, axis)
    found.attrs["name"] = name
    first, last = history.milestones[0], history.milestones[-1]
    head = [name, "runs", f"best {history.objective}"]
    epochs = axis == "epochs"
    head += ["mean of runs that reached all [95 %]" if epochs else f"mean at epoch {last} [95 %]", "n"]
    early = (stopped or epochs) and first != last
    if early:
        head += ["mean of all there [95 %]", "n there"] if epochs else [f"mean at epoch {first} [95 %]", "n there"]
    rows = []
    for _, row in found.iterrows():
        cells = [str(row["value"]), str(row["runs"]), number(maybe(row["best"]))]
        cells += [_mean(row), str(row["n"])]
        if early:
            cells += [_mean(row, "first_"), str(row["first_n"])]
        rows.append(cells)
    return lines(
        f"### {name}", table(head, rows, right=range(1, len(head))), phrases.axis_sentence(history, found, axis)
    )


def _mean(row: Any, of: str = "") -> str:
    return bracket(maybe(row[f"{of}mean"]), maybe(row[f"{of}low"]), maybe(row[f"{of}high"]))
