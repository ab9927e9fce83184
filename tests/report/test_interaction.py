"""Two axes against each other: cells of what was run, and whether their effects add up."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from diffsearch.report.importance import Importances
from diffsearch.report.interaction import Cell, Interaction, heat_map, interaction, permutation_test, sentence
from diffsearch.report.ranks import rankable
from tests.report.conftest import make_history

PAIR = Importances((("training.loss", 0.6), ("diffusion.steps", 0.3), ("model.channels", 0.1)), {}, 20, True, ())


def grid(scores: dict[tuple[int, int], list[float]], logarithmic: bool = False) -> Interaction:
    """Cells of points with one seed each."""
    rows, columns = (1 + max(place[i] for place in scores) for i in (0, 1))
    cells = {place: Cell(tuple((s,) for s in kept), float(np.mean(kept)), min(kept)) for place, kept in scores.items()}
    names = tuple(map(str, range(max(rows, columns))))
    return Interaction("diffusion.steps", "training.loss", names[:columns], names[:rows], cells, 9, logarithmic)


def drawn(random: np.random.Generator, effect: float, n: int = 3) -> Interaction:
    """Three by three cells with additive effects, and an interaction of that size in one corner."""
    means = {(i, j): 2.0 * i - j + effect * (i == j == 0) for i in range(3) for j in range(3)}
    return grid({place: (mean + random.normal(size=n)).tolist() for place, mean in means.items()})


def anova_p(found: Interaction) -> float:
    """The F test of the interaction in a balanced two-way analysis of variance, by its textbook sums."""
    y = np.array([[[s for (s,) in found.cells[i, j].points] for j in range(3)] for i in range(3)])
    cell, row, column = y.mean(axis=2), y.mean(axis=(1, 2)), y.mean(axis=(0, 2))
    between = y.shape[2] * ((cell - row[:, None] - column[None, :] + y.mean()) ** 2).sum() / 4
    within = ((y - cell[..., None]) ** 2).sum() / (9 * (y.shape[2] - 1))
    return float(stats.f.sf(between / within, 4, 9 * (y.shape[2] - 1)))


@pytest.mark.parametrize(("seed", "effect"), [(0, 0.0), (1, 0.0), (2, 2.0), (3, 2.5), (4, 6.0)])
def test_the_p_is_that_of_an_analysis_of_variance_where_scores_are_normal(seed, effect):
    found = drawn(np.random.default_rng(seed), effect)
    tested = permutation_test(found)
    assert (tested.between, tested.within) == (4, 18)
    assert tested.p == pytest.approx(anova_p(found), abs=0.05)


def test_additive_effects_are_seldom_called_an_interaction():
    """In 60 studies at 5 %, more than 9 false ones would come up once in a thousand."""
    random = np.random.default_rng(8)
    wrong = sum((permutation_test(drawn(random, 0.0, n=2)).p or 1) < 0.05 for _ in range(60))
    assert wrong <= 9


def test_one_axis_at_a_time_can_not_show_an_interaction(history):
    cross = grid({(0, 0): [1.0, 1.1], (0, 1): [2.0, 2.1], (0, 2): [3.0], (1, 0): [4.0], (2, 0): [9.0, 9.5]})
    assert permutation_test(cross).p is None and permutation_test(cross).between == 0
    assert "can't be seen" in sentence(history, cross) and "one axis is varied at a time" in sentence(history, cross)
    single = grid({(i, j): [1.0 + i * j] for i in range(2) for j in range(3)})
    assert permutation_test(single).p is None and "never two in one" in sentence(history, single)


def test_a_study_without_any_spread_is_no_division_by_zero():
    tested = permutation_test(grid({(i, j): [1.0 + i + j] * 2 for i in range(2) for j in range(2)}))
    assert tested.p == 1


def test_seeds_are_the_spread_only_where_each_cell_has_one_point():
    """Ten seeds of one point say nothing of the other axes."""
    two = {place: Cell(((1.0 + sum(place), 1.0), (2.0,) * 10), 1.0, 1.0) for place in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    base = grid({place: [1.0] for place in two})
    assert permutation_test(dataclasses.replace(base, cells=two)).within == 4
    one = {place: Cell(((1.0, 1.1, 1.2),), 1.1, 1.0) for place in two}
    assert permutation_test(dataclasses.replace(base, cells=one)).within == 8


def test_cells_hold_what_was_run_and_nothing_else(make):
    history = make(count=30, finalists=False)
    found = interaction(history, PAIR)
    assert found is not None and (found.down, found.across) == ("diffusion.steps", "training.loss")
    ranked = rankable(history)
    assert found.epoch == 1 and sum(cell.runs for cell in found.cells.values()) == len(ranked) == 29
    assert found.rows == ("5", "10", "15") and len(found.columns) == 6
    for (row, column), cell in found.cells.items():
        at = {"diffusion.steps": int(found.rows[row]), "training.loss": found.columns[column]}
        scores = [
            {sheet.epoch: sheet.scores["fd-digits"].value for sheet in sheets}
            for run, sheets in ranked
            if {path: run.point[path] for path in at} == at
        ]
        assert sorted(s for seeds in cell.points for s in seeds) == sorted(each[1] for each in scores)
        assert cell.mean == pytest.approx(stats.gmean([each[1] for each in scores]))
        assert cell.best == min(min(each.values()) for each in scores)
    empty = {(run.point["diffusion.steps"], run.point["training.loss"]) for run, _ in ranked}
    assert len(found.cells) == len(empty) < 18


def test_a_range_is_cut_and_scores_that_were_stopped_meet_at_one_epoch(make):
    history = make(count=30, finalists=False, stopping=False, diverged=False)
    pair = Importances((("training.learning_rate", 0.6), ("model.channels", 0.3)), {}, 30, True, ())
    found = interaction(history, pair)
    assert found is not None and found.epoch == 9 and len(found.columns) == 3 and " to " in found.columns[0]
    assert interaction(history, Importances((), {}, 3, False, (), "Too few runs")) is None


def test_the_map_is_drawn_for_the_page_and_says_its_numbers():
    history = make_history(count=30)
    found = interaction(history, PAIR)
    assert found is not None
    figure = heat_map(history, found)
    assert figure.png == heat_map(history, found).png
    assert Image.open(io.BytesIO(figure.png)).size[0] == 1400
    best = min(found.cells.values(), key=lambda cell: cell.mean)
    assert f"(n {best.runs})" in figure.alt and "not run" in figure.caption and "epoch 1" in figure.caption
    assert "29 runs at epoch 1" in sentence(history, found)
