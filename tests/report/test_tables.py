"""What is compared with what, and what a study cost."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from diffsearch.records import Outcome, Score, State
from diffsearch.report import tables
from diffsearch.report.blocks import cell, code, table
from diffsearch.report.importance import LEAST_RUNS, importances
from diffsearch.report.ledger import ALONE, FAILED, NEW, OPEN, REUSED, SHARED, STOPPED, TOTAL
from diffsearch.report.phrases import axis_sentence, duration, estimate, number, won_sentence
from diffsearch.report.style import colours, spread
from diffsearch.scoring.statistics import Summary


def with_score(sheet, value, samples=None, extractor=None):
    old = sheet.scores["fd-digits"]
    samples = samples or sheet.samples
    score = Score(value, samples, extractor or old.extractor)
    return dataclasses.replace(sheet, samples=samples, scores={"fd-digits": score})


def with_first(history, change):
    """The history with the first run's first evaluation changed."""
    run = history.runs[0]
    run = dataclasses.replace(run, evaluations=(change(run.evaluations[0]), *run.evaluations[1:]))
    return dataclasses.replace(history, runs=(run, *history.runs[1:]))


def test_a_row_an_evaluation(history):
    found = tables.evaluations(history)
    assert len(found) == sum(len(run.evaluations) for run in history.runs)
    row = found[(found["run_key"] == history.runs[1].key) & (found["epoch"] == 1)].iloc[0]
    assert row["images_trained"] == 5000 and row["train_s"] == history.runs[1].epochs[0].wall_s
    assert row["channels"] in ("16-32-64", "8-16-32") and row["sampling"] == "ancestral, EMA 2k"


def test_a_spread_stands_beside_its_score_and_nowhere_else(history):
    found = tables.evaluations(history)
    columns = list(found.columns)
    assert columns[columns.index("kd-digits") + 1] == "kd-digits_spread" and "fd-digits_spread" not in columns
    known = found[found["kd-digits"].notna()]  # the diverged run has none
    assert len(known) == len(found) - 1
    np.testing.assert_allclose(known["kd-digits_spread"], known["kd-digits"] / 10)


def test_ambiguous_axes_keep_their_path(history):
    taken = dataclasses.replace(history, axes=("model.steps", "diffusion.steps", "training.seed", "training.loss"))
    assert list(tables.axis_names(taken).values()) == ["model.steps", "diffusion.steps", "training.seed", "loss"]


def test_a_diverged_run_never_ranks_however_good_it_was(history):
    diverged = next(run for run in history.runs if run.outcome.state is State.DIVERGED)
    assert diverged.evaluations[0].scores["fd-digits"].value < tables.ranking(history)["score"].min()
    assert diverged.key not in set(tables.ranking(history)["run_key"])
    assert tables.runs(history).set_index("run_key").loc[diverged.key, "best"] is None or math.isnan(
        tables.runs(history).set_index("run_key").loc[diverged.key, "best"]
    )


@pytest.mark.parametrize("state", [State.FAILED, State.OUT_OF_MEMORY, State.KILLED, State.RUNNING, State.DIVERGED])
def test_a_winner_that_did_not_end_well_wins_nothing(make, state):
    history = make(finalists=False)
    best = tables.winner(history).run
    runs = tuple(dataclasses.replace(r, outcome=Outcome(state)) if r.key == best.key else r for r in history.runs)
    assert tables.winner(dataclasses.replace(history, runs=runs)).run.key != best.key


def test_sample_counts_are_never_mixed(history):
    cheated = with_first(history, lambda sheet: with_score(sheet, 0.001, samples=50))
    assert cheated.runs[0].key not in set(tables.ranking(cheated).head(1)["run_key"])
    assert set(tables.ranking(cheated)["samples"]) == {history.samples}
    assert set(tables.finalists(history)["samples"]) == {2000}


def test_extractors_are_never_mixed(history):
    cheated = with_first(history, lambda sheet: with_score(sheet, 0.001, extractor="another"))
    assert 0.001 not in set(tables.ranking(cheated)["score"])


def test_the_direction_turns_the_ranking(history):
    up = dataclasses.replace(history, direction="max")
    assert tables.ranking(up)["score"].is_monotonic_decreasing
    assert tables.ranking(history)["score"].is_monotonic_increasing
    assert tables.finalists(up)["mean"].is_monotonic_decreasing


def test_finalists_are_means_over_seeds_at_their_best_sampling_point(history):
    found = tables.configurations(history)
    assert [c.summary.n for c in found] == [3, 3] and [c.candidates for c in found] == [3, 3]
    for c in found:
        own = [run for run in history.runs if run.stage == "finalist" and run.point == c.runs[0].point]
        means = {}
        for ema in (0, 2000, 8000):
            values = [s.scores["fd-digits"].value for run in own for s in run.evaluations if s.sampling.ema == ema]
            means[ema] = (np.mean(values), stats.sem(values))
        assert c.sampling.ema == min(means, key=lambda ema: means[ema][0])
        assert (c.summary.mean, c.summary.se) == pytest.approx(means[c.sampling.ema], rel=1e-12)
    assert found[0].scores[found[0].typical] == np.median(found[0].scores)


def test_without_finals_one_run_wins_and_nothing_is_claimed(make):
    found = tables.winner(make(finalists=False))
    assert found.configuration is None and found.summary.se is None and not found.apart
    assert "nothing is claimed" in won_sentence(make(finalists=False))


def test_repeats_within_the_search_count_as_repeats(make):
    history = make(count=6, finalists=False, stopping=False, diverged=False)
    again = [dataclasses.replace(run, key=run.key[::-1], point=history.runs[0].point) for run in history.runs[1:3]]
    found = tables.configurations(dataclasses.replace(history, runs=(*history.runs, *again)))
    assert sorted(c.summary.n for c in found) == [1, 1, 1, 1, 1, 3]


def test_an_axis_table_counts_only_what_reached_the_last_milestone(history):
    found = tables.axis_table(history, "training.loss").set_index("value")
    search = [run for run in history.runs if run.stage == "search"]
    for value, row in found.iterrows():
        own = [run for run in search if run.point["training.loss"] == value]
        last = [s.scores["fd-digits"].value for run in own if run.outcome.ok for s in run.evaluations if s.epoch == 9]
        assert row["runs"] == len(own) and row["n"] == len(last)
        assert not last or row["mean"] == pytest.approx(np.mean(last), rel=1e-12)
        assert len(last) < 2 or row["se"] == pytest.approx(stats.sem(last), rel=1e-12)


def test_the_epochs_axis_is_over_the_same_runs(history):
    found = tables.axis_table(history, "epochs")
    assert list(found["value"]) == ["1", "3", "9"] and len(set(found["n"])) == 1
    assert found["runs"].is_monotonic_decreasing


def test_a_continuous_axis_is_cut_into_ranges(history):
    found = tables.axis_table(history, "training.learning_rate")
    assert len(found) == 3 and all(" to " in value for value in found["value"]) and found["runs"].sum() == 20


def test_a_sentence_claims_no_more_than_the_intervals(history):
    head = ["value", "runs", "best", "mean", "se", "n", "first_mean", "first_se", "first_n"]
    rows = [("a", 3, 4.9, 5.0, 0.4, 3, 60.0, 1.0, 3), ("b", 3, 5.2, 5.5, 0.3, 3, 61.0, 1.0, 3)]
    tie = axis_sentence(history, pd.DataFrame(rows, columns=head), "x")
    assert "not told apart" in tie and "within one standard error of b" in tie
    apart = axis_sentence(history, pd.DataFrame([rows[0], ("b", 3, 8.0, 8.5, 0.3, 3, 61.0, 1.0, 3)], columns=head), "x")
    assert "told apart from b" in apart and "not told apart" not in apart
    lone = [("a", 1, 4.9, 5.0, None, 1, 60.0, None, 1), ("b", 1, 9.0, 9.0, None, 1, 61.0, None, 1)]
    assert axis_sentence(history, pd.DataFrame(lone, columns=head), "x").endswith("Nothing is claimed.")


def test_the_ledger_adds_up(history):
    found = tables.ledger(history)
    total = found.loc[[ALONE, SHARED, STOPPED, FAILED, OPEN]].sum()
    assert np.allclose(total, found.loc[TOTAL]) and np.allclose(found.loc[TOTAL] + found.loc[REUSED], found.loc[NEW])
    assert found.loc[ALONE, "epochs"] == 20 * (1 + 3 + 9) + 6 * 9
    assert found.loc[ALONE, "epochs"] + found.loc[SHARED, "epochs"] == 26 * 9
    assert found.loc[TOTAL, "epochs"] == sum(len(run.epochs) for run in history.runs)
    assert found.loc[REUSED, "epochs"] == -sum(run.reused_epochs for run in history.runs)
    assert found.loc[FAILED, "epochs"] == -8 and abs(found.loc[OPEN]).max() < 1e-6
    assert found.loc[TOTAL, "network_calls"] == sum(s.network_calls for run in history.runs for s in run.evaluations)


def test_best_so_far_never_gets_worse_and_costs_less_than_naive(history):
    found = tables.progress(history)
    assert found["best"].is_monotonic_decreasing and found["images"].is_monotonic_increasing
    assert (found["naive_images"] >= found["images"]).all()


def test_the_same_point_has_the_same_colour(history):
    paint = colours(history)
    for c in tables.configurations(history):
        same = [run.key for run in history.runs if run.point == c.runs[0].point]
        assert len(same) == 4 and len({paint[key] for key in same}) == 1
    assert len(set(paint.values())) == 2


def test_importances_find_what_matters_and_refuse_too_few(make):
    found = importances(make(count=40, finalists=False, stopping=False))
    assert found.shares[0][0] == "training.loss" and not found.logarithmic  # within a decade
    assert sum(share for _, share in found.shares) == pytest.approx(1)
    assert dict(found.shares)["training.loss"] > found.chance["training.loss"]
    few = importances(make(count=LEAST_RUNS - 1, finalists=False))
    assert not few.shares and "Too few runs" in few.reason


@pytest.mark.parametrize(
    ("mean", "se", "text"),
    [
        (5.8912, 0.3123, "5.9 ± 0.3"),
        (5.8912, 0.1499, "5.89 ± 0.15"),
        (712.4, 31.0, "710 ± 30"),
        (0.0123456, 0.00042, "0.0123 ± 0.0004"),
        (1.2345e-7, 3.1e-9, "(1.23 ± 0.03)e-7"),
        (1.0000117, 1.2e-7, "1.00001 ± 1e-07"),
        (5.0, 0.0, "5.00 ± 0"),
        (5.8912, None, "5.89"),
        (9.99, 0.96, "10.0 ± 1.0"),
    ],
)
def test_no_more_digits_than_the_uncertainty_supports(mean, se, text):
    assert estimate(Summary(mean, se, 3 if se is not None else 1)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (6.8, "6.80"), (99.96, "100"), (912.3, "912"), (84213, "84,200"), (None, "–")],
)
def test_three_digits_without_an_uncertainty(value, text):
    assert number(value) == text


def test_durations():
    assert [duration(s) for s in (0.0, 3.2, 41.4, 362, 3723)] == ["0 s", "3.2 s", "41 s", "6:02", "1:02:03"]


def test_cells_cannot_break_out_of_a_table():
    assert cell("a|b\n<i>c</i> *d*") == r"a\|b &lt;i&gt;c&lt;/i&gt; \*d\*"
    assert table(["x", "n"], [["a|b", "1"], ["c", "10"]], right=[1]).splitlines() == [
        "| x    |   n |",
        "| ---- | --: |",
        "| a\\|b |   1 |",
        "| c    |  10 |",
    ]
    assert code("a\n```\nb", "yaml").startswith("````yaml\n")


def test_labels_keep_their_distance_and_their_order():
    places = spread([0.5, 0.5, 0.9, 0.51], 0.1)
    ordered = sorted(places)
    assert all(b - a >= 0.1 - 1e-6 for a, b in itertools.pairwise(ordered)) and places[2] == max(places)
