"""Several objectives in a report: their front with its knee, as a figure and as a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffsearch.records import StudyHistory
from diffsearch.report import style
from diffsearch.report.axes import axis_names, show_value
from diffsearch.report.blocks import Keep, lines, table
from diffsearch.report.figures import Drawn
from diffsearch.report.fronts import front, front_sentence, shown, values_text
from diffsearch.report.phrases import estimate, listing
from diffsearch.report.ranks import Member, broken, members, place_of, point_key, repeats
from diffsearch.scoring.statistics import summarise
from diffsearch.search import pareto
from diffsearch.search.earned import Judge
from diffsearch.space.metric_names import scale_of
from diffsearch.space.quantities import COSTS, direction, unit

LABELLED = 10  # members of a front with their names beside them; of a longer one its ends and its knee
_WORD = {"min": "lower is better", "max": "higher is better"}


def trade_off(history: StudyHistory, keep: Keep) -> str:
    """The section: what the front is, its figure and its table; empty where the study has one objective."""
    if not history.objectives:
        return ""
    found = front(history)
    if not found:
        return lines("## The trade-off", "No evaluation may be compared: no score ranks, or each breaks a constraint.")
    return lines(
        "## The trade-off",
        front_sentence(history),
        keep(front_plot(history)),
        _table(history, found),
        _notes(history),
        _elsewhere(history, found),
    )


def front_plot(history: StudyHistory) -> Drawn | None:
    """The first objective against each other one: the front and its knee in colour, what is dominated in grey."""
    every = members(history)
    if not every:
        return None
    others = range(1, len(history.objectives))
    with style.house_style():
        figure = style.sheet(3.4)
        panels = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
        for axes, index in zip(panels, others, strict=True):
            _panel(history, axes, every, index)
        panels[0].set_ylabel(f"{unit(history.objectives[0])}, {_WORD[direction(history.objectives[0])]}")
        text = "; ".join(f"{member.run.key[:6]} {values_text(history, member)}" for member in every if member.rank == 0)
        knee = next(member for member in every if member.is_knee)
        return Drawn(
            "front",
            style.png(figure),
            f"The front of {listing(history.objectives)}: {text}. Its knee is {knee.run.key[:6]}.",
            "Blue: nothing is better in one and as good in the others. Ring: the knee, nearest to the corner of each "
            "objective's best. Grey: dominated; a cross breaks a constraint.",
        )


def _panel(history: StudyHistory, axes: Any, every: list[Member], index: int) -> None:
    """One objective from left to right, the first one upwards."""
    broke = _broken_values(history, index)
    xs = [member.values[index] for member in every] + [x for x, _ in broke]
    ys = [member.values[0] for member in every] + [y for _, y in broke]
    on_it = [member for member in every if member.rank == 0]
    dominated = [member for member in every if member.rank > 0]
    if len(history.objectives) == 2:
        corners = sorted((member.values[index], member.values[0]) for member in on_it)
        where = "post" if direction(history.objectives[index]) == "min" else "pre"
        axes.step(*zip(*corners, strict=True), where=where, color=style.PALETTE[0], linewidth=1.2, alpha=0.6, zorder=2)
    axes.plot([x for x, _ in broke], [y for _, y in broke], "x", color=style.FAINT, markersize=5, zorder=1)
    for group, tone, size in ((dominated, style.FAINT, 4.5), (on_it, style.PALETTE[0], 6.0)):
        axes.plot([m.values[index] for m in group], [m.values[0] for m in group], "o", color=tone, markersize=size,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=3)  # fmt: skip
    for member in on_it:
        x, y = member.values[index], member.values[0]
        if member.is_knee:
            axes.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor=style.INK, zorder=4)
        if member.is_knee or len(on_it) <= LABELLED or member in (on_it[0], on_it[-1]):
            name = f"{member.run.key[:6]}{', the knee' if member.is_knee else ''}"
            axes.annotate(name, (x, y), xytext=(7, 5), textcoords="offset points", fontsize=8, color=style.INK,
                          zorder=5)  # fmt: skip
    for axis, values in ((axes.xaxis, xs), (axes.yaxis, ys)):
        if pareto.has_decades(np.asarray(values)):
            style.log_axis(axis)
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(f"{unit(history.objectives[index])}, {_WORD[direction(history.objectives[index])]}")
    style.grid_lines(axes, "both")


def _broken_values(history: StudyHistory, index: int) -> list[tuple[float, float]]:
    """Where those evaluations lie that break a constraint: (this objective, the first one)."""
    judge = Judge(history.objectives)
    found = []
    for run in history.runs if history.constraints else ():
        for sheet in run.evaluations if run.outcome.ok and run.stage == "search" else ():
            earned = judge.earned(sheet, run.epochs, run.parameters)
            if earned is not None and sheet.samples == history.samples and broken(history, run, sheet):
                found.append((judge.signs[index] * earned.values[index], judge.signs[0] * earned.values[0]))
    return found


def _table(history: StudyHistory, found: list[Member]) -> str:
    """A row a member: its run, settings and sampling point, each objective, and what fresh seeds had."""
    differing = {
        path: name
        for path, name in axis_names(history).items()
        if len({show_value(member.run.point.get(path)) for member in found}) > 1
    }
    scores = [index for index, name in enumerate(history.objectives) if name not in COSTS]
    again = repeats(history)
    fresh = {member.sheet.key: again.get(place_of(member.run, member.sheet), []) for member in found}
    seeds = [f"{history.objectives[index]}, fresh seeds" for index in scores] if any(fresh.values()) else []
    head = ["", "run", *differing.values(), "epoch", "sampling", *history.objectives, *seeds]
    rows = []
    for member in found:
        values = [show_value(member.run.point[path]) if path in member.run.point else "–" for path in differing]
        own = fresh[member.sheet.key]
        means = [
            _fresh(history.objectives[index], [values[index] for values in own]) for index in (scores if seeds else ())
        ]
        rows.append(
            [
                "knee" if member.is_knee else "",
                member.run.key[:6],
                *values,
                str(member.sheet.epoch),
                str(member.sheet.sampling),
                *map(shown, history.objectives, member.values),
                *means,
            ]
        )
    right = [len(differing) + 2, *range(len(differing) + 4, len(head))]
    return table(head, rows, right=right)


def _elsewhere(history: StudyHistory, found: list[Member]) -> str:
    """What fresh seeds had where no member of the front lies: a row a point, epoch and sampling point."""
    on_it = {place_of(member.run, member.sheet) for member in found}
    names = {point_key(member.run): member.run.key[:6] for member in found}
    others = {where: scores for where, scores in repeats(history).items() if where not in on_it}
    if not others:
        return ""
    cells = [
        [
            names.get(point, "–"),
            str(epoch),
            str(sampling),
            *(_over_seeds(name, [each[index] for each in scores]) for index, name in enumerate(history.objectives)),
        ]
        for (point, epoch, sampling), scores in others.items()
    ]
    head = ["point of", "epoch", "sampling", *history.objectives]
    told = "Their fresh seeds, where they were scored otherwise than on the front:"
    return lines(told, table(head, cells, right=[1, *range(3, len(head))]))


def _over_seeds(name: str, values: list[float]) -> str:
    return _fresh(name, values) if name not in COSTS else shown(name, sum(values) / len(values))


def _fresh(name: str, scores: list[float]) -> str:
    """A score over fresh seeds, and how many they are."""
    return f"{estimate(summarise(scores, scale_of(name)))} (n {len(scores)})" if scores else "–"


def _notes(history: StudyHistory) -> str:
    texts = [
        f"Evaluations on {history.samples:,} samples each are compared, of every run, milestone and sampling point.",
        "Each stands for one seed, and those on a front are there partly by luck: what repeats over fresh seeds say is "
        "the number to trust.",
    ]
    if any(run.stage == "finalist" for run in history.runs):
        texts.append("Repeated were the points that the front would miss most, by their hypervolume.")
    return " ".join(texts)
