"""The report's second section: how much each axis matters, and how each of its values did."""

from __future__ import annotations

from typing import Any

from diffsearch.records import State, StudyHistory
from diffsearch.report import claims, interaction, phrases, tables
from diffsearch.report.axes import axis_names
from diffsearch.report.blocks import Keep, lines, table
from diffsearch.report.figures import importance_bars, parallel_coordinates
from diffsearch.report.importance import Importances
from diffsearch.report.phrases import bracket, maybe, number
from diffsearch.report.ranks import rankable


def what_mattered(history: StudyHistory, found: Importances, keep: Keep) -> str:
    """Importances, the two strongest axes against each other, and each axis value by value."""
    names = axis_names(history)
    parts = ["## What mattered"]
    if found.reason:
        parts.append(f"No importances: {found.reason[0].lower()}{found.reason[1:]}")
    else:
        parts.append(
            f"Importances by fANOVA over the best scores of {phrases.several(found.runs, 'run')}. They say how much an "
            "axis moved the score within this space, not which value is good."
            + _beyond_chance(found, names)
            + _order(found, names)
        )
        parts.append(keep(importance_bars(history, found)))
    if found.left_out and not found.reason:
        parts.append(f"Left out, since not varied in every run: {phrases.listing([names[p] for p in found.left_out])}.")
    parts.append(_together(history, found, keep))
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


def _order(found: Importances, names: dict[str, str]) -> str:
    """Whether the first axis leads, by the bootstraps."""
    if not found.turned:
        return ""
    tied = [names[path] for path in found.unranked]
    if tied:
        return f" {phrases.listing(tied)} can't be ranked: other runs of the same space could turn their order."
    first = found.shares[0][0]
    most = max(share for pair, share in found.turned.items() if pair[0] == first)
    return (
        f" {names[first]} leads: no other axis passes it in more than {100 * most:.0f} % of the bootstraps of the runs."
    )


def _together(history: StudyHistory, found: Importances, keep: Keep) -> str:
    pair = interaction.interaction(history, found)
    return lines(keep(interaction.heat_map(history, pair)), interaction.sentence(history, pair)) if pair else ""


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
