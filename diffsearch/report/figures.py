"""The report's charts. Each function returns a `Drawn`, or None where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.transforms import blended_transform_factory

from diffsearch.records import StudyHistory
from diffsearch.report import style
from diffsearch.report.axes import MAX_VALUES, axis_names, in_order, is_numeric, show_value
from diffsearch.report.importance import SHUFFLES, Importances
from diffsearch.report.ledger import progress
from diffsearch.report.phrases import bounds_of, compact, estimate, number, short_labels
from diffsearch.report.ranks import best_sheet, configurations, rankable, ranking_order, sign

_ABSENT = object()  # an axis that doesn't exist at a point; None is a value like any other


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished figure."""

    name: str  # file name without its suffix
    png: bytes
    alt: str  # what it shows, with its numbers
    caption: str = ""  # how to read it, below it


def importance_bars(history: StudyHistory, found: Importances) -> Drawn | None:
    """A bar an axis, and a mark where chance alone would take it."""
    if not found.shares:
        return None
    names = axis_names(history)
    with style.house_style():
        figure = style.sheet(0.65 + 0.32 * len(found.shares))
        axes = figure.add_subplot()
        for row, (path, share) in enumerate(found.shares):
            beyond = not found.chance or share > found.chance[path]
            axes.barh(row, 100 * share, height=0.62, color=style.PALETTE[0] if beyond else style.FAINT)
            ends = [100 * end for end in found.intervals.get(path, (share, share))]
            for tone, thick in (("white", 3.4), (style.INK, 1.2)):
                axes.plot(ends, [row] * 2, color=tone, linewidth=thick, solid_capstyle="butt", zorder=3)
            axes.text(1, row, f"{100 * share:.0f} % ({ends[0]:.0f} to {ends[1]:.0f})", va="center", ha="right",
                      fontsize=8.5, transform=axes.get_yaxis_transform())  # fmt: skip
            if found.chance:
                axes.plot([100 * found.chance[path]] * 2, [row - 0.42, row + 0.42], color=style.INK, linewidth=1.4)
        axes.set_yticks(range(len(found.shares)), [names[path] for path, _ in found.shares])
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.invert_yaxis()
        reach = [share for _, share in found.shares] + [high for _, high in found.intervals.values()]
        axes.set_xlim(0, 125 * max([*reach, *found.chance.values()]))
        axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 100])
        axes.set_xlabel(f"share of the variance of the {'log ' if found.logarithmic else ''}score, %")
        caption = "Lines, and numbers in brackets: 80 % of bootstraps of the runs."
        if found.chance:
            caption += f" Marks: the largest share in {SHUFFLES} shuffles of the scores; grey bars don't pass it."
        style.grid_lines(axes, "x")
        shares = ", ".join(
            f"{names[path]} {100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
            for path, share in found.shares
            for low, high in [found.intervals.get(path, (share, share))]
        )
        beyond_names = [names[p] for p, share in found.shares if found.chance and share > found.chance[p]]
        chance = f" Beyond chance: {', '.join(beyond_names) or 'none'}." if found.chance else ""
        return Drawn("importances", style.png(figure), f"Bars: importance of each axis: {shares}.{chance}", caption)


def best_so_far(history: StudyHistory) -> Drawn | None:
    """The best score against the images trained, and as a ghost where the naive way would be."""
    table = progress(history)
    if table.empty:
        return None
    scale = 1e3
    with style.house_style():
        figure = style.sheet(2.9)
        axes = figure.add_subplot()
        paint = style.colours(history)
        axes.step(table["naive_images"] / scale, table["best"], where="post", color=style.FAINT, linestyle=(0, (4, 2)))
        axes.step(table["images"] / scale, table["best"], where="post", color=style.INK)
        for _, row in table.iterrows():
            tone = paint.get(row["run_key"], style.FAINT)
            axes.plot(row["images"] / scale, row["score"], "o", markersize=4, color=tone, markeredgecolor="white",
                      markeredgewidth=0.5, zorder=3)  # fmt: skip
        if style.decades(table["score"]):
            style.log_axis(axes.yaxis)
        axes.set_xlim(0, 1.02 * table["naive_images"].max() / scale)
        axes.set_xlabel("images trained by the search, thousands")
        axes.set_ylabel(f"{history.objective} ({history.samples:,} samples)")
        end, ghost = table.iloc[-1], table.iloc[-1]["naive_images"]
        _note(
            axes, end["images"] / scale, end["best"], f" best so far: {number(end['best'])}", style.INK, "left", history
        )
        _note(axes, ghost / scale, end["best"], "each milestone alone, none stopped ", style.MUTED, "right", history)
        style.grid_lines(axes, "y")
        alt = (
            f"Best {history.objective} so far against images trained: {number(table.iloc[0]['best'])} after "
            f"{compact(table.iloc[0]['images'])}, {number(end['best'])} after {compact(end['images'])}; "
            f"the same scores with every milestone trained alone: {compact(ghost)} images."
        )
        return Drawn("progress", style.png(figure), alt)


def finalists_strip(history: StudyHistory) -> Drawn | None:
    """Above, where all of it lies between floor and noise; below, every seed as a dot, with mean and 95 % interval."""
    found = configurations(history)
    if not found:
        return None
    paint = style.colours(history)
    bounds = bounds_of(history, history.objective, found[0].sheets[0].samples)
    labels = short_labels(history, [c.runs[0] for c in found], keys=False)
    with style.house_style():
        figure = style.sheet(0.8 + 0.36 * len(found) + (0.75 if bounds else 0.0))
        if bounds:
            rows = figure.add_gridspec(2, 1, height_ratios=(0.5, 0.36 * len(found) + 0.1))
            _context(figure.add_subplot(rows[0]), history, found, paint)
            axes = figure.add_subplot(rows[1])
        else:
            axes = figure.add_subplot()
        for row, c in enumerate(found):
            tone = paint.get(c.runs[0].key, style.MUTED)
            if c.summary.interval is not None:
                axes.plot(c.summary.interval, [row, row], color=tone, linewidth=7, alpha=0.25, solid_capstyle="butt")
            axes.plot([c.summary.mean] * 2, [row - 0.28, row + 0.28], color=tone, linewidth=2)
            axes.plot(c.scores, [row] * len(c.scores), "o", color=tone, markersize=5.5, markeredgecolor="white")
            standing = "" if c.standing == "alone" else f"   {c.standing}"
            axes.text(1.01, row, estimate(c.summary) + standing, transform=axes.get_yaxis_transform(),
                      va="center", fontsize=8.5)  # fmt: skip
        axes.set_yticks(range(len(found)), labels)
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel(
            f"{history.objective} ({found[0].sheets[0].samples:,} samples); a dot a seed; mean and 95 % interval"
        )
        style.grid_lines(axes, "x")
        text = "; ".join(
            f"{label}: {estimate(c.summary)}, n {c.summary.n}" for label, c in zip(labels, found, strict=True)
        )
        ends = f" Floor {number(bounds.floor)}, noise {number(bounds.ceiling)}." if bounds else ""
        return Drawn("finalists", style.png(figure), f"Every seed of each configuration. {text}.{ends}")


def parallel_coordinates(history: StudyHistory) -> Drawn | None:
    """A line a run through its value on each axis to its best score; the finalists in colour."""
    best = {run.key: best_sheet(history, sheets).scores[history.objective].value for run, sheets in rankable(history)}
    members = list(reversed(ranking_order(history)))
    names = {p: n for p, n in axis_names(history).items() if any(p in run.point for run in members)}
    if len(members) < 2 or len(names) < 2:
        return None
    paint = style.colours(history)
    with style.house_style():
        figure = style.sheet(3.5)
        axes = figure.add_subplot()
        heights = [_heights(axes, x, [run.point.get(path, _ABSENT) for run in members]) for x, path in enumerate(names)]
        heights.append(
            _heights(axes, len(names), [best[run.key] for run in members], few=False, flip=sign(history) > 0)
        )
        for place, run in enumerate(members):
            nudge = 0.024 * ((place % 5) - 2) / 2  # runs through one value lie side by side
            points = [(x, column[place]) for x, column in enumerate(heights)]
            kept = [(x, y + (nudge if x < len(names) else 0)) for x, y in points if y is not None]
            tone = paint.get(run.key, style.FAINT)
            axes.plot(*zip(*kept, strict=True), color=tone, linewidth=2.0 if run.key in paint else 0.8,
                      zorder=3 if run.key in paint else 2)  # fmt: skip
        axes.set_xticks(range(len(names) + 1), [*names.values(), f"best {history.objective}"], fontsize=8)
        axes.tick_params(axis="x", length=0, labelcolor=style.INK)
        axes.set_xlim(-0.3, len(names) + 0.5)
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        for x in range(len(names) + 1):
            axes.axvline(x, color=style.FAINT, linewidth=0.8, zorder=1)
        first = members[-1]
        values = ", ".join(f"{name} {show_value(first.point[p])}" for p, name in names.items() if p in first.point)
        alt = f"Parallel coordinates of {len(members)} runs over {len(names)} axes."
        alt += f" The best, {number(best[first.key])}: {values}."
        return Drawn("parallel", style.png(figure), alt)


def _note(axes: Any, x: float, y: float, text: str, tone: str, side: str, history: StudyHistory) -> None:
    """A direct label just beyond a line, on its empty side."""
    above = sign(history) > 0  # no later score lies there
    axes.annotate(text, (x, y), xytext=(0, 4 if above else -4), textcoords="offset points", color=tone, fontsize=8.5,
                  ha=side, va="bottom" if above else "top")  # fmt: skip


def end_labels(axes: Any, ends: Sequence[tuple[tuple[int, float], str, str]], tall: float) -> None:
    """Names right of axes about `tall` inches high, at the height of each line's end and never on each other."""
    axes.get_ylim()  # brings the limits up to date with what was drawn
    points = axes.transData.transform([(1, y) for (_, y), _, _ in ends])
    places = style.spread(axes.transAxes.inverted().transform(points)[:, 1].tolist(), gap=0.155 / tall)
    for place, (_, label, tone) in zip(places, ends, strict=True):
        axes.text(1.015, place, label, transform=axes.transAxes, color=tone, fontsize=8.5, va="center")


def _context(axes: Any, history: StudyHistory, found: Sequence[Any], paint: Mapping[str, str]) -> None:
    """One thin scale from the floor to pure noise, with the means on it."""
    bounds = bounds_of(history, history.objective, found[0].sheets[0].samples)
    if bounds is None:
        return
    values = [c.summary.mean for c in found]
    across = blended_transform_factory(axes.transData, axes.transAxes)
    low, high = sorted([(bounds.floor, "real images"), (bounds.ceiling, "pure noise")])
    for (value, word), side in ((low, "left"), (high, "right")):
        axes.axvline(value, color=style.INK, linewidth=1.2)
        axes.text(value, 1.08, f"{word} {number(value)}", transform=across, ha=side, va="bottom", fontsize=8.5,
                  color=style.MUTED)  # fmt: skip
    for place, c in enumerate(found):
        tone = paint.get(c.runs[0].key, style.MUTED)
        axes.plot(
            c.summary.mean, 1 - (place + 0.5) / len(found), "o", color=tone, markersize=5, markeredgecolor="white"
        )
    if style.decades([bounds.floor, bounds.ceiling, *values]):
        style.log_axis(axes.xaxis)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _heights(axes: Any, x: int, values: Sequence[Any], few: bool = True, flip: bool = False) -> list[float | None]:
    """Heights in 0 to 1 of a column's values, its labels written beside it; `flip` puts low values on top."""
    present = [value for value in values if value is not _ABSENT]
    many = is_numeric(present) and (not few or len(set(present)) > MAX_VALUES)
    if many:
        numbers = [float(value) for value in present]
        log = min(numbers) > 0 and max(numbers) / min(numbers) > 8
        scale: Callable[[float], float] = math.log if log else float
        low, high = scale(min(numbers)), scale(max(numbers))

        def place(value: Any) -> float:
            return (scale(float(value)) - low) / (high - low) if high > low else 0.5

        marks = {number(min(numbers)): 0.0, number(max(numbers)): 1.0} if high > low else {number(numbers[0]): 0.5}
    else:
        texts = list(dict.fromkeys(show_value(value) for value in in_order(present)))
        marks = {text: i / (len(texts) - 1) if len(texts) > 1 else 0.5 for i, text in enumerate(texts)}

        def place(value: Any) -> float:
            return marks[show_value(value)]

    def turn(y: float) -> float:
        return 1 - y if flip else y

    for text, y in marks.items():
        axes.text(x + 0.05, turn(y), text, fontsize=7.5, va="center", color=style.INK, zorder=5,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6})  # fmt: skip
    return [None if value is _ABSENT else turn(place(value)) for value in values]
