"""The pictures of docs/statistics.md, in the reports' look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.honesty import coverage, winners
from benchmarks.honesty.bias import COUNTS as IMAGES
from benchmarks.honesty.bias import Biases
from diffsearch.files import replace_file
from diffsearch.report import style
from diffsearch.report.figures import end_labels

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "statistics"


def draw(covered: coverage.Coverage, claimed: winners.Claims, biased: Biases, folder: Path = FOLDER) -> None:
    """Write coverage.png, winners.png, power.png and bias.png."""
    made = {"coverage": _coverage(covered), "winners": _winners(claimed), "power": _power(claimed)}
    for name, picture in {**made, "bias": _bias(biased)}.items():
        replace_file(folder / f"{name}.png", picture)


def _coverage(found: coverage.Coverage) -> bytes:
    """A line a method, through its worst case at each number of seeds."""
    with style.house_style():
        figure = style.sheet(3.0)
        axes = figure.add_subplot()
        axes.axhspan(92, 98, color=style.GRID, zorder=0)
        for tone, method in zip(style.PALETTE, coverage.METHODS, strict=False):
            at = [coverage.COUNTS.index(n) for n in found.steady[method]]
            axes.plot(at, [100 * min(held) for held in found.steady[method].values()], "o-", color=tone, markersize=4,
                      label=method)  # fmt: skip
        axes.set_xticks(range(len(coverage.COUNTS)), [str(n) for n in coverage.COUNTS])
        axes.set_ylim(40, 100)
        axes.set_xlabel("seeds")
        axes.set_ylabel("intervals that hold, %")
        axes.set_title("The worst of 12 distributions. Grey: 92 to 98 %", fontsize=8.5)
        figure.legend(loc="outside right center", frameon=False, fontsize=8)
        return style.png(figure)


def _winners(found: winners.Claims) -> bytes:
    """Identical finalists of three seeds: how often some are named better."""
    with style.house_style():
        figure = style.sheet(2.9)
        axes = figure.add_subplot()
        axes.axhline(5, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)))
        ends = []
        places = range(len(winners.FINALISTS))
        for tone, method in zip(style.PALETTE, winners.METHODS, strict=False):
            worst = [100 * max(found.equal[method][k, 3]) for k in winners.FINALISTS]
            axes.plot(places, worst, "o-", color=tone, markersize=4)
            ends.append(((len(places) - 1, worst[-1]), method, tone))
        style.log_axis(axes.yaxis)
        axes.set_ylim(1, 100)
        axes.set_xticks(places, [str(k) for k in winners.FINALISTS])
        axes.set_xlim(-0.1, len(places) - 1 + 0.05)
        axes.set_xlabel("identical finalists, three seeds each")
        axes.set_ylabel("studies with a false claim, %")
        axes.set_title("Dashed: the 5 % that are promised", fontsize=8.5)
        style.grid_lines(axes, "y")
        end_labels(axes, ends, 2.0)
        return style.png(figure)


def _power(found: winners.Claims) -> bytes:
    """How often the best is named winner, against how much better it is."""
    with style.house_style():
        figure = style.sheet(2.9)
        panels: Any = figure.subplots(1, len(winners.FINALISTS), sharey=True)
        share = [100 * better for better in winners.BETTER]
        for axes, k in zip(panels, winners.FINALISTS, strict=True):
            for tone, n in zip(style.PALETTE, winners.COUNTS, strict=False):
                named = [100 * found.power[winners.OURS][k, n, better] for better in winners.BETTER]
                alone = [100 * found.power[winners.HOLM][k, n, better] for better in winners.BETTER]
                axes.plot(share, named, color=tone, label=f"{n} seeds")
                axes.plot(share, alone, color=tone, linestyle=(0, (1, 1.5)), linewidth=1.2)
            axes.set_title(f"{k} finalists", fontsize=8.5)
            axes.set_xlabel("better than the rest by, %")
            axes.set_ylim(0, 100)
            style.grid_lines(axes, "y")
        panels[0].set_ylabel("named the winner, %")
        panels[-1].legend(frameon=False, fontsize=8, loc="upper left")
        return style.png(figure)


def _bias(found: Biases) -> bytes:
    """Distances at N and at infinity, with the middle 90 % of draws."""
    with style.house_style():
        figure = style.sheet(2.7)
        axes = figure.add_subplot()
        axes.axhline(found.truth, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)))
        ends = []
        series = [("at N images", found.finite, -1), ("at infinity", found.infinite, 1)]
        for tone, (label, values, side) in zip(style.PALETTE, series, strict=False):
            places = [i + 0.06 * side for i in range(len(IMAGES))]
            for place, n in zip(places, IMAGES, strict=True):
                axes.plot([place] * 2, np.percentile(values[n], [5, 95]), color=tone, linewidth=5, alpha=0.3,
                          solid_capstyle="butt")  # fmt: skip
            axes.plot(places, [values[n].mean() for n in IMAGES], "o-", color=tone, markersize=4)
            ends.append(((len(IMAGES) - 1, float(values[IMAGES[-1]].mean())), label, tone))
        axes.set_xticks(range(len(IMAGES)), [f"{n:,}" for n in IMAGES])
        axes.set_xlabel("images drawn")
        axes.set_ylabel("Fréchet distance")
        axes.set_title("Dashed: the two Gaussians' distance in closed form. Bars: 90 % of draws", fontsize=8.5)
        style.grid_lines(axes, "y")
        end_labels(axes, ends, 1.9)
        return style.png(figure)
