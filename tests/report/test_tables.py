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
from diffsearch.report.claims import won_sentence
from diffsearch.report.importance import LEAST_RUNS, importances
from diffsearch.report.ledger import ALONE, FAILED, NEW, OPEN, REUSED, SHARED, STOPPED, TOTAL
from diffsearch.report.phrases import axis_sentence, duration, estimate, number, plus_minus, two_digits
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
            inside = stats.ttest_1samp(np.log(values), 0).confidence_interval(0.95)
            means[ema] = (stats.gmean(values), np.exp(inside.low), np.exp(inside.high))
        assert c.sampling.ema == min(means, key=lambda ema: means[ema][0])
        assert (c.summary.mean, *c.summary.interval) == pytest.approx(means[c.sampling.ema], rel=1e-9)
    assert found[0].scores[found[0].typical] == np.median(found[0].scores)


def test_without_finals_one_run_wins_and_nothing_is_claimed(make):
    found = tables.winner(make(finalists=False))
    assert found.configuration is None and found.summary.interval is None and not found.apart
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
        assert not last or row["mean"] == pytest.approx(stats.gmean(last), rel=1e-12)
        assert sorted(row["scores"].values()) == sorted(last)
        if len(last) > 1:
            inside = stats.ttest_1samp(np.log(last), 0).confidence_interval(0.95)
            assert (row["low"], row["high"]) == pytest.approx(np.exp([inside.low, inside.high]), rel=1e-9)


def test_the_epochs_axis_is_over_the_same_runs(history):
    found = tables.axis_table(history, "epochs")
    assert list(found["value"]) == ["1", "3", "9"] and len(set(found["n"])) == 1
    assert found["runs"].is_monotonic_decreasing


def test_a_continuous_axis_is_cut_into_ranges(history):
    found = tables.axis_table(history, "training.learning_rate")
    assert len(found) == 3 and all(" to " in value for value in found["value"]) and found["runs"].sum() == 20


def axis_rows(**scores):
    """The rows of an axis table that its sentence reads: value → scores at the last milestone and at the first."""
    rows = [
        (value, {f"run{i}": score for i, score in enumerate(last)}, {f"run{i}": score for i, score in enumerate(first)})
        for value, (last, first) in scores.items()
    ]
    return pd.DataFrame(rows, columns=["value", "scores", "first_scores"])


def test_a_sentence_claims_no_more_than_the_tests(history):
    early = [60.0, 61.0, 62.0]
    tie = axis_sentence(history, axis_rows(a=([4.6, 5.0, 5.4], early), b=([5.2, 5.5, 5.8], early)), "x")
    assert "a has the best mean" in tie and "not told apart from b" in tie
    apart = axis_sentence(history, axis_rows(a=([4.6, 5.0, 5.4], early), b=([8.2, 8.5, 8.8], early)), "x")
    assert "told apart from b" in apart and "not told apart" not in apart
    lone = axis_sentence(history, axis_rows(a=([5.0], [60.0]), b=([9.0], [61.0])), "x")
    assert lone.endswith("Nothing is claimed.")
    stopped = axis_sentence(history, axis_rows(a=([5.0], early), b=([9.0], [90.0, 91.0, 92.0])), "x")
    assert "Too few runs reached epoch 9" in stopped and "At epoch 1, a has the best mean" in stopped


def test_more_values_need_more_to_be_told_apart(history):
    """The same two sets of scores: told apart by themselves, not among seven."""
    early = [60.0, 61.0]
    rows = {"a": ([4.6, 5.0, 5.4], early), "b": ([5.9, 6.3, 6.9], early)}
    between = {f"v{i}": ([4.0 + i / 10, 6.0, 7.0], early) for i in range(5)}
    assert "told apart from b." in axis_sentence(history, axis_rows(**rows), "x")
    assert "not told apart" in axis_sentence(history, axis_rows(**rows, **between), "x")


def test_sampling_points_are_compared_run_by_run(history):
    early = [60.0, 61.0, 62.0]
    rows = axis_rows(a=([30.0, 40.0, 55.0], early), b=([31.5, 42.1, 57.9], early))
    assert "not told apart" in axis_sentence(history, rows, "x")
    paired = axis_sentence(history, rows, "sampling")
    assert "compared run by run), told apart from b." in paired
    shared = axis_rows(a=([30.0, 40.0, 55.0], early), b=([31.5, 42.1], early))
    assert "n 2, compared" in axis_sentence(history, shared, "sampling"), "the runs that have both"


def test_the_sampling_sweep_is_compared_seed_by_seed(history):
    found = tables.finalist_sampling(history)
    assert list(found["place"]) == [1, 1, 1, 2, 2, 2]
    for place, c in enumerate(tables.configurations(history), 1):
        rows = found[found["place"] == place]
        own = rows[rows["sampling"] == str(c.sampling)].iloc[0]
        assert own.name == rows.index[0] and own["mean"] == pytest.approx(c.summary.mean) and pd.isna(own["against"])
        for _, row in rows.iloc[1:].iterrows():
            sheets = [s for run in c.runs for s in run.evaluations if str(s.sampling) == row["sampling"]]
            gaps = np.log([s.scores["fd-digits"].value for s in sheets]) - np.log(c.scores)
            inside = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
            expected = np.exp([gaps.mean(), inside.low, inside.high])
            assert [row["against"], row["against_low"], row["against_high"]] == pytest.approx(expected, rel=1e-9)
            assert row["narrower"] > 0 and row["p"] >= stats.ttest_1samp(gaps, 0).pvalue * (1 - 1e-9)


def test_winner_ties_and_losers_are_named_by_their_corrected_p(make):
    history = make()
    scale = {run.key: 1.0 for run in history.runs}
    first, second = tables.configurations(history)
    assert {first.standing, second.standing} <= {"winner", "tie", "loser"} and first.p is None
    for factor, expected in ((1.0, ("tie", "tie")), (5.0, ("winner", "loser"))):
        # the second's scores as those of the first, times a factor
        scale = factor * stats.gmean(first.scores) / stats.gmean(second.scores)
        changed = [
            dataclasses.replace(
                run,
                evaluations=tuple(with_score(s, scale * s.scores["fd-digits"].value) for s in run.evaluations),
            )
            if run.key in {r.key for r in second.runs}
            else run
            for run in history.runs
        ]
        found = tables.configurations(dataclasses.replace(history, runs=tuple(changed)))
        assert tuple(c.standing for c in found) == expected
        assert (found[1].p < 0.05) == (factor == 5.0)
        said = won_sentence(dataclasses.replace(history, runs=tuple(changed)))
        assert ("Told apart from the second" in said) == (factor == 5.0) and ("a tie" in said) == (factor == 1.0)


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
    ("value", "spread", "text"),
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
def test_no_more_digits_than_the_spread_supports(value, spread, text):
    assert plus_minus(value, spread) == text


@pytest.mark.parametrize(
    ("mean", "interval", "text"),
    [
        (33.5912, (30.2844, 37.2623), "33.6 [30.3, 37.3]"),
        (38.3, (27.4, 53.5), "38 [27, 54]"),
        (35.2, (3.9, 311.7), "35 [4, 312]"),
        (712.4, (381.0, 1332.0), "710 [380, 1,330]"),
        (0.8373, (0.7942, 0.8804), "0.837 [0.794, 0.880]"),
        (0.9996, (0.99, 1.0096), "0.9996 [0.9900, 1.0096]"),
        (1.2345e-7, (1.1e-7, 1.4e-7), "1.23e-07 [1.10e-07, 1.40e-07]"),
        (5.0, (5.0, 5.0), "5.00 [5.00, 5.00]"),
        (-0.01, (-0.05, 0.03), "-0.010 [-0.050, 0.030]"),
        (5.8912, None, "5.89"),
    ],
)
def test_no_more_digits_than_the_interval_supports(mean, interval, text):
    assert estimate(Summary(mean, 1 if interval is None else 3, interval)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.284, "1.3"), (0.0839, "0.084"), (1234.0, "1,200"), (None, "–"), (0.0, "0")]
)
def test_an_estimated_bias_has_two_digits(value, text):
    assert two_digits(value) == text


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
