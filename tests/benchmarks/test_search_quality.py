"""The page on search quality: its counts against closed forms, its numbers against the replays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.search.quality import write
from benchmarks.search.reuse import FULL, REPORT, Count, executed, rows_of_tables
from benchmarks.search.searches import Bench, Search, every
from diffsearch.space.axes import grid, grid_size, point_of, sampling_points, settings_at
from diffsearch.space.load import load
from tests.study.tables import EPOCH_S, SAMPLING_S, SCORING_S, made_up

TABLE = FULL.parents[1] / "benchmarks" / "search" / "mnist_table.yaml"
SLICE = ["repeats=1", "training.learning_rate=3e-3", "training.batch_size=32"]


def test_the_reports_own_protocol_is_counted_as_its_tables_are_printed():
    """44 rows of seven tables, 3,191 epochs; winners that are asked for again and milestones leave 2,500 of them."""
    spec = load(REPORT, ["repeats=1"])
    assert (rows_of_tables(spec), executed(spec, "keys")) == (3191, 2500)


def test_the_full_space_is_counted_with_its_finalists():
    """Each of 8 runs trains 50 epochs instead of 1 + 2 + 5 + 10 + 25 + 50, each of 25 finalists 50 instead of 200."""
    spec = load(FULL, ["search.runs=8", "search.stopping=none", "search.algorithm=random"])
    assert executed(spec, "keys") == (8 + 25) * 50
    assert executed(spec, "none") == 8 * 93 + 25 * 4 * 50


def test_the_table_is_recorded_from_a_grid_of_432_points_in_slices_of_72():
    """A slice takes no axis value that the whole has not, so that its runs are runs of the whole."""
    whole = load(TABLE)
    assert (grid_size(whole), whole.repeats, len(whole.milestones)) == (432, 2, 5)
    point = next(grid(load(TABLE, [*SLICE, "training.loss=v-l2", "diffusion.steps=8"])))
    part = load(TABLE, SLICE)
    assert grid_size(part) == 72
    inside = {**point, "training.learning_rate": 3e-3, "training.batch_size": 32}
    inside |= {"training.loss": "v-l2", "diffusion.steps": 8}
    settings = settings_at(whole, inside, 1)
    assert settings_at(part, inside, 1) == settings and point_of(whole, settings) == inside
    assert [track.ema for track in sampling_points(whole, settings)] == [0, 2000]


def test_the_page_says_what_its_replays_say_and_replays_nothing_twice(laboratory, tmp_path):
    space = {"diffusion.steps": [2, 3, 4], "training.loss": ["x0-l2", "v-l2"], "training.epochs": [1, 3, 9]}
    table = tmp_path / "table.parquet"
    made_up(laboratory.spec(space), lambda p, e, s, seed: 90.0 + p["diffusion.steps"] - math.log(e)).write(table)
    bench = Bench(table, tmp_path / "cache", seeds=2)
    searches = [search for search in every(trials=4, gp_trials=2) if search.algorithm != "gp"]
    searches.append(Search("gp", "none", trials=2))
    replayed: list[str] = []
    page = tmp_path / "docs" / "page.md"

    write(bench, page, searches, (1, 4), [Count("a study", 48, 10)], replayed.append)
    assert (page.parent / "pictures" / "search_scaling.png").stat().st_size > 10_000
    noted = list(replayed)
    for search in searches:
        bench.traces(search, replayed.append)
    assert len(noted) >= sum(search.reuse == "keys" for search in searches) and replayed == noted, (
        "the second time everything is read from the cache"
    )
    text = page.read_text()
    assert "6 points" in text and "{" not in text and "nan" not in text
    run_s = 0.05 + 9 * EPOCH_S + 3 * (SAMPLING_S + SCORING_S)
    [row] = [line for line in text.splitlines() if line.startswith("| grid | by key |")]
    assert row.split(" | ")[2:6] == ["all", f"{92 - math.log(9):.4g} [89.8, 89.8]", "89.8", f"{6 * run_s / 60:.0f} min"]
    head = "| search | 0.2 × sequential's |"
    [grid] = [line for line in text.partition(head)[2].splitlines() if line.startswith("| grid |")]
    alone = bench.traces(Search("sequential", "none", "none")).traces
    own = float(np.median([trace[-1].worker_s for trace in alone]))
    last = [
        min(moment.best for moment in trace if moment.worker_s <= 5 * own)
        for trace in bench.traces(Search("grid", "none")).traces
    ]
    assert grid.split(" | ")[-1].startswith(f"{np.mean(last):.3g} [")
    assert "| a study | 48 | 10 | 4.80× |" in text and "finalists included:\n  4.80×. Met." in text


def test_sequential_alone_costs_what_its_tables_cost_their_authors(laboratory, tmp_path):
    """Epochs 1, 3 and 9, of which 9 is best; two losses and three T at 9; each row trained by itself, scored once."""
    space = {"diffusion.steps": [2, 3, 4], "training.loss": ["x0-l2", "v-l2"], "training.epochs": [1, 3, 9]}
    table = tmp_path / "table.parquet"
    made_up(laboratory.spec(space), lambda p, e, s, seed: 90.0 + p["diffusion.steps"] - math.log(e)).write(table)
    [trace] = Bench(table, tmp_path, seeds=1).traces(Search("sequential", "none", "none")).traces
    rows, epochs = 3 + 2 + 3, 1 + 3 + 9 + (2 + 3) * 9
    assert trace[-1].worker_s == pytest.approx(rows * (0.05 + SAMPLING_S + SCORING_S) + epochs * EPOCH_S)


@pytest.mark.parametrize("algorithm", ["sequential", "random", "grid", "tpe", "gp"])
def test_every_search_that_the_page_compares_ends(laboratory, tmp_path, algorithm):
    space = {"diffusion.steps": [2, 3], "training.loss": ["x0-l2", "v-l2"]}
    table = tmp_path / "table.parquet"
    made_up(laboratory.spec(space), lambda *_: 1.0).write(table)
    [trace] = Bench(table, tmp_path, seeds=1).traces(Search(algorithm, "none", trials=3)).traces
    assert trace[-1].best == 1.0 and trace[-1].runs == (2 if algorithm == "sequential" else 3)
