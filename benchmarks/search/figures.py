"""The figures of docs/search_quality.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.search.answer import Answer
from benchmarks.search.searches import ALGORITHMS, RULES, Search, Traces
from diffsearch.report import style
from diffsearch.study.traces import at, band

POINTS = 120  # of a curve
COLOUR = dict(zip(ALGORITHMS, style.PALETTE, strict=False))
TITLE = {"none": "no stopping rule", "asha": "asha", "curves": "curves"}


def best_so_far(answers: Sequence[Answer], objective: str) -> bytes:
    """A row of panels a stopping rule: with keys, and each evaluation alone; sequential in each, to compare with."""
    with style.house_style():
        figure = style.sheet(7.6)
        panels = figure.subplots(len(RULES), 2, sharex=True, sharey=True)
        longest = max(answer.worker_s for answer in answers)
        for row, rule in zip(panels, RULES, strict=True):
            for axes, reuse in zip(row, ("keys", "none"), strict=True):
                shown = [
                    answer.traces
                    for answer in answers
                    if answer.traces.search.reuse == reuse
                    and answer.traces.search.at == "milestones"
                    and (answer.traces.search.stopping == rule or answer.traces.search.algorithm == "sequential")
                ]
                for traces in shown:
                    _curve(axes, traces, longest)
                axes.set_title(f"{TITLE[rule]}, {'reuse by key' if reuse == 'keys' else 'each evaluation alone'}")
                style.grid_lines(axes, "y")
        for axes in panels.flat:
            style.log_axis(axes.xaxis)
        for axes in panels[-1]:
            axes.set_xlabel("workers' time, seconds")
        for axes in panels[:, 0]:
            axes.set_ylabel(f"best {objective}")
        values = [moment.best for answer in answers for trace in answer.traces.traces for moment in trace]
        if style.decades(value for value in values if np.isfinite(value)):
            for axes in panels.flat:
                style.log_axis(axes.yaxis)
        panels[0, 1].legend(frameon=False, fontsize=8.0, loc="upper right")
        return style.png(figure)


def _curve(axes: Any, traces: Traces, longest: float) -> None:
    ends = min(max(trace[-1].worker_s for trace in traces.traces), longest)
    begins = max(trace[0].worker_s for trace in traces.traces)
    places = np.geomspace(max(begins, 1e-3), max(ends, begins * 1.001, 2e-3), POINTS)
    found = band(at(traces.traces, places))
    colour = COLOUR[traces.search.algorithm]
    axes.plot(places, found.iqm, color=colour, label=traces.search.algorithm)
    axes.fill_between(places, found.low, found.high, color=colour, alpha=0.18, linewidth=0)


def scaling(middles: Mapping[Search, Sequence[float]], workers: Sequence[int]) -> bytes:
    """Simulated time to the target against the number of workers; dashed: twice the workers, half the time."""
    with style.house_style():
        figure = style.sheet(3.4)
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log")
        counts = np.asarray(workers, dtype=np.float64)
        for (search, times), colour in zip(middles.items(), style.PALETTE, strict=False):
            middle = np.asarray(times)
            known = np.isfinite(middle)
            axes.plot(counts[known], middle[known], color=colour, marker="o", markersize=3, label=search.label)
            if known[0]:
                axes.plot(counts, middle[0] / counts, color=colour, linewidth=0.8, linestyle="--")
        style.log_axis(axes.xaxis)
        style.log_axis(axes.yaxis)
        axes.set_xlabel("workers")
        axes.set_ylabel("simulated seconds to what sequential finds")
        style.grid_lines(axes, "both")
        axes.legend(frameon=False, fontsize=8.0)
        return style.png(figure)
