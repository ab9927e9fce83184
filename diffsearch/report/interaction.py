"""The two axes that moved the score most, value against value, and whether they depend on each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle

from diffsearch.records import Evaluation, StudyHistory
from diffsearch.report import style
from diffsearch.report.axes import axis_names, labels
from diffsearch.report.figures import Drawn
from diffsearch.report.importance import Importances
from diffsearch.report.phrases import number, several
from diffsearch.report.ranks import best_sheet, point_key, rankable, sign, winner

MOST = 12  # values of an axis that have a row or column of their own; more are cut at their terciles
WIDE = 7  # columns beyond which a cell has no room for its best score
PERMUTATIONS = 999
WRONG = 0.05
_LIGHT, _DARK = "#dcebf5", "#004a75"  # one hue, so its order is seen with any colour blindness and in grey
_ROW = 0.46  # inches

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cell:
    """The runs with one value on either axis."""

    points: tuple[tuple[float, ...], ...]  # of each point its seeds' scores at the epoch, with the best sampling point
    mean: float  # over all runs; geometric where all scores are positive
    best: float  # at any milestone

    @property
    def runs(self) -> int:
        return sum(map(len, self.points))


@dataclass(frozen=True)
class Interaction:
    """Every pair of values that was run; none is a model's."""

    across: str  # dotted path of the axis of the columns
    down: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: Mapping[tuple[int, int], Cell]  # (row, column), only those with runs
    epoch: int  # the last milestone that most ranked runs reached: a rule that stops bad runs makes effects not add up
    logarithmic: bool


@dataclass(frozen=True, slots=True)
class Tested:
    """Whether cells differ by more than the sum of their row's and their column's effect."""

    p: float | None  # None: can't be tested
    between: int  # degrees of freedom of the interaction: filled cells beyond those that two additive axes need
    within: int  # degrees of freedom of the spread inside cells


def interaction(history: StudyHistory, found: Importances) -> Interaction | None:
    """The two axes with the largest importances; None where fewer than two have one."""
    if len(found.shares) < 2:
        return None
    shown = [(path, labels(history, path, MOST)) for path, _ in found.shares[:2]]
    ranked = [(run, sheets) for run, sheets in rankable(history) if all(run.key in label for _, label in shown)]
    values = [tuple(dict.fromkeys(label[run.key] for run in _in_order(label, ranked))) for _, label in shown]
    reached = Counter(epoch for _, sheets in ranked for epoch in {sheet.epoch for sheet in sheets})
    epoch = max(reached, key=lambda epoch: (reached[epoch], epoch))
    (down, down_label), (across, across_label) = shown
    rows, columns = values
    if len(rows) > len(columns):
        down, down_label, rows, across, across_label, columns = across, across_label, columns, down, down_label, rows
    scores: dict[tuple[int, int], dict[str, list[float]]] = {}
    sheets_of: dict[tuple[int, int], list[Evaluation]] = {}
    for run, sheets in ranked:
        place = rows.index(down_label[run.key]), columns.index(across_label[run.key])
        here = [sheet for sheet in sheets if sheet.epoch == epoch]
        if here:
            score = best_sheet(history, here).scores[history.objective].value
            scores.setdefault(place, {}).setdefault(point_key(run), []).append(score)
            sheets_of.setdefault(place, []).extend(sheets)
    every = {place: [score for seeds in kept.values() for score in seeds] for place, kept in scores.items()}
    logarithmic = all(score > 0 for kept in every.values() for score in kept)
    cells = {
        place: Cell(
            tuple(map(tuple, kept.values())),
            _mean(every[place], logarithmic),
            best_sheet(history, sheets_of[place]).scores[history.objective].value,
        )
        for place, kept in sorted(scores.items())
    }
    return Interaction(across, down, columns, rows, cells, epoch, logarithmic)


def _in_order(label: Mapping[str, str], ranked: Sequence[Any]) -> list[Any]:
    """The ranked runs in the order of their labels, which ascends."""
    run_of = {run.key: run for run, _ in ranked}
    return [run_of[key] for key in label if key in run_of]


def _mean(scores: Sequence[float], logarithmic: bool) -> float:
    return math.exp(np.log(scores).mean()) if logarithmic else float(np.mean(scores))


def permutation_test(found: Interaction) -> Tested:
    """Permutation test of the two axes' interaction, of the logarithms where scores are positive.

    The statistic is F: what cells' means differ by beyond an additive model, against the spread inside cells. Its null
    distribution permutes the additive model's residuals over all runs and adds them to its fit (Freedman & Lane 1983):
    exact for equal spreads in the limit of many runs, whatever their distribution. Where cells have several points, a
    point counts once with the mean of its seeds: other axes vary inside cells and count as spread. Where each cell has
    one, its seeds are the spread.
    """
    single = all(len(cell.points) == 1 for cell in found.cells.values())
    units = {
        at: cell.points[0] if single else [_mean(seeds, found.logarithmic) for seeds in cell.points]
        for at, cell in found.cells.items()
    }
    place = np.array([at for at, scores in units.items() for _ in scores])
    scores = np.array([score for scores in units.values() for score in scores])
    y = np.log(scores) if found.logarithmic else scores
    additive = _basis(
        np.hstack([place[:, :1] == np.arange(len(found.rows)), place[:, 1:] == np.arange(len(found.columns))])
    )
    _, cell = np.unique(place, axis=0, return_inverse=True)
    saturated = _basis(cell.reshape(-1, 1) == np.arange(len(found.cells)))
    between, within = saturated.shape[1] - additive.shape[1], len(y) - saturated.shape[1]
    if between == 0 or within == 0:
        return Tested(None, between, within)
    fit = additive @ (additive.T @ y)
    rest = y - fit
    random = np.random.default_rng(0)
    drawn = np.array([rest, *(random.permutation(rest) for _ in range(PERMUTATIONS))]).T + fit[:, None]
    plain = (drawn**2).sum(axis=0) - ((additive.T @ drawn) ** 2).sum(axis=0)
    inside = (drawn**2).sum(axis=0) - ((saturated.T @ drawn) ** 2).sum(axis=0)
    if plain[0] <= 1e-12 * float((y**2).sum()):  # but for rounding the cells are a sum of two effects
        return Tested(1.0, between, within)
    f = ((plain - inside) / between) / (np.maximum(inside, 1e-12 * plain) / within)
    return Tested(float(np.mean(f >= f[0] * (1 - 1e-9))), between, within)


def _basis(columns: npt.NDArray[Any]) -> Floats:
    """(N, rank) orthonormal columns that span the given ones."""
    left, size, _ = np.linalg.svd(columns.astype(np.float64), full_matrices=False)
    kept: Floats = left[:, size > 1e-9 * size[0]]
    return kept


def sentence(history: StudyHistory, found: Interaction) -> str:
    """What may be said of the two axes together, and what may not."""
    names = axis_names(history)
    down, across = names[found.down], names[found.across]
    count = sum(cell.runs for cell in found.cells.values())
    whole = len(found.rows) * len(found.columns)
    filled = f"{several(count, 'run')} at epoch {found.epoch} in {len(found.cells)} of {whole} cells"
    tested = permutation_test(found)
    if tested.between == 0:
        return (
            f"Whether {down} and {across} depend on each other can't be seen: {filled}, whose means are a sum of two "
            "effects in any case, as where one axis is varied at a time."
        )
    if tested.p is None:
        return (
            f"Whether {down} and {across} depend on each other can't be told from noise: {filled}, never two in one. "
            "Repeats would tell."
        )
    told = f"permutation test p {tested.p:.2g}, {filled}, {tested.within} degrees of freedom inside cells"
    if tested.p < WRONG:
        return f"{down} and {across} depend on each other beyond noise: their effects don't just add up ({told})."
    few = " With so few runs only a strong one would be seen." if tested.within < 3 * tested.between else ""
    return f"That {down} and {across} depend on each other isn't told from noise ({told}).{few}"


def heat_map(history: StudyHistory, found: Interaction) -> Drawn:
    """The mean score of each cell, written into it with the runs that it is of; the darker, the better."""
    names, way = axis_names(history), sign(history)
    means = {
        place: way * (math.log(cell.mean) if found.logarithmic else cell.mean) for place, cell in found.cells.items()
    }
    tint = LinearSegmentedColormap.from_list("score", [_DARK, _LIGHT])
    shade = Normalize(min(means.values()), max(means.values()))
    narrow = len(found.columns) > WIDE
    with style.house_style():
        figure = style.sheet(1.05 + _ROW * len(found.rows))
        axes = figure.add_subplot()
        axes.set_xlim(-0.5, len(found.columns) - 0.5)
        axes.set_ylim(len(found.rows) - 0.5, -0.5)
        for (row, column), cell in found.cells.items():
            level = float(shade(means[row, column])) if shade.vmin != shade.vmax else 0.5
            axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=tint(level), linewidth=0))
            ink = "white" if level < 0.55 else style.INK
            more = f"n {cell.runs}"
            if not narrow and number(cell.best) != number(cell.mean):
                more += f", best {number(cell.best)}"
            axes.text(column, row - 0.12, number(cell.mean), color=ink, ha="center", va="center", fontsize=9 - narrow)
            axes.text(column, row + 0.24, more, color=ink, ha="center", va="center", fontsize=7 - 0.5 * narrow)
        _mark_winner(axes, history, found)
        axes.set_xticks(range(len(found.columns)), found.columns, fontsize=8.5 - narrow)
        axes.set_yticks(range(len(found.rows)), found.rows)
        axes.tick_params(length=0, labelcolor=style.INK)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel(names[found.across])
        axes.set_ylabel(names[found.down])
        axes.set_title("The darker, the better; outlined: the winner", fontsize=8.5)
        return Drawn("interaction", style.png(figure), _alt(history, found), _caption(history, found))


def _mark_winner(axes: Any, history: StudyHistory, found: Interaction) -> None:
    won = winner(history)
    label = [labels(history, path, MOST) for path in (found.down, found.across)]
    twin = next((run for run, _ in rankable(history) if won and run.point == won.run.point), None)
    if twin is None or any(twin.key not in each for each in label):
        return
    row, column = found.rows.index(label[0][twin.key]), found.columns.index(label[1][twin.key])
    axes.add_patch(
        Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, fill=False, edgecolor=style.PALETTE[1], linewidth=2)
    )


def _alt(history: StudyHistory, found: Interaction) -> str:
    names = axis_names(history)
    means = sorted(found.cells.items(), key=lambda pair: sign(history) * pair[1].mean)
    (best, first), (worst, last) = means[0], means[-1]
    return (
        f"Heat map of {names[found.down]} against {names[found.across]}, {len(means)} cells with runs. Best: "
        f"{found.rows[best[0]]} with {found.columns[best[1]]}, {number(first.mean)} (n {first.runs}); worst: "
        f"{found.rows[worst[0]]} with {found.columns[worst[1]]}, {number(last.mean)} (n {last.runs})."
    )


def _caption(history: StudyHistory, found: Interaction) -> str:
    kind = "geometric mean" if found.logarithmic else "mean"
    some = "" if len(found.columns) > WIDE else "; best is that of any milestone"
    return (
        f"Each cell: {kind} of {history.objective} at epoch {found.epoch} over its n runs{some}. "
        "Cells without a number were not run. Other axes vary inside a cell, too."
    )
