"""One look for all figures: sizes, colours, axes, and how a figure becomes a file that is the same each time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from diffsearch.records import StudyHistory
from diffsearch.report.ranks import configurations, members, point_key, ranking_order

Pixels = npt.NDArray[np.uint8]

WIDTH = 7.0  # inches; at 100 dots an inch that is the 700 px at which a page shows it
DPI = 200  # twice those dots, for sharp screens
INK, MUTED, FAINT, GRID = "#222222", "#5f6670", "#b9bec6", "#e8eaed"
# Okabe & Ito 2008, without black and yellow (which vanishes on white): told apart with any common colour blindness
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HIGHLIGHTS = 5  # runs in colour where a study has no finalists

_RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "path.simplify": False,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib with this look, and with nothing of the user's own settings, inside the `with` block alone."""
    with mpl.rc_context(), mpl.rc_context(rc={**mpl.rcParamsDefault, "backend": "agg"}), mpl.rc_context(rc=_RC):
        yield


def sheet(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, sizes in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def png(figure: Figure, pictures: Iterable[tuple[int, int, Pixels]] = ()) -> bytes:
    """The figure as PNG, without dates or versions: equal figures are equal bytes.

    Args:
        figure: drawn once; `savefig` would draw it twice.
        pictures: laid on it dot for dot, each as (left, top, (H, W, 3)).
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    whole = np.array(canvas.buffer_rgba())[..., :3]
    for left, top, picture in pictures:
        whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, format="png", dpi=(DPI, DPI))
    return buffer.getvalue()


def colours(history: StudyHistory) -> dict[str, str]:
    """Run key → colour: one for each configuration among the finalists or on a front (else for each of the best runs).

    All seeds of a point share it, the search's run among them, and so does every figure. Other runs have none.
    """
    points = [point_key(configuration.runs[0]) for configuration in configurations(history)]
    points += [point_key(member.run) for member in members(history) if member.rank == 0]
    points = points or [point_key(run) for run in ranking_order(history)[:HIGHLIGHTS]]
    chosen = dict(zip(dict.fromkeys(points), PALETTE, strict=False))
    return {run.key: chosen[point_key(run)] for run in history.runs if point_key(run) in chosen}


def grid_lines(axes: Any, which: str) -> None:
    axes.grid(axis=which, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def decades(values: Iterable[float]) -> bool:
    """Whether a log scale fits: all positive, and more than a factor of ten apart."""
    kept = list(values)
    return bool(kept) and min(kept) > 0 and max(kept) / min(kept) > 10


def log_axis(axis: Any) -> None:
    """Logarithmic, with plain numbers at 1, 2 and 5 of each decade (at 1 alone where there are many)."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    wide = math.log10(high / low) > 3 if low > 0 else True
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


def plain(value: float) -> str:
    """An axis label: 0.02, 5, 200, 20 k, 3 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def spread(wanted: list[float], gap: float) -> list[float]:
    """Positions near the wanted ones, in their order and at least `gap` apart: labels that don't cover each other."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(200):
        moved = False
        for i in range(len(placed) - 1):
            short = gap - (placed[i + 1] - placed[i])
            if short > 1e-9:
                placed[i] -= short / 2
                placed[i + 1] += short / 2
                moved = True
        if not moved:
            break
    result = [0.0] * len(wanted)
    for place, i in zip(placed, order, strict=True):
        result[i] = place
    return result
