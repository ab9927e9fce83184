"""Successive evaluation: a search by a cheap score, its best in full on the checkpoints there, then finalists."""

from __future__ import annotations

import math

import pytest

from diffsearch.errors import ConfigError
from diffsearch.records import Outcome, State
from diffsearch.report.ranks import winner
from diffsearch.study.history import StudyFolder
from diffsearch.study.identity import asks_hash

FEW, FULL = 60, 70
SCREENED = {
    "sampling.ema": [0, 100],
    "evaluation.screen": {"objective": "kd-digits", "samples": FEW, "keep": 0.25},
    "search.finalists": {"top": 1, "repeats": 1},
}


@pytest.fixture
def screened(laboratory):
    """Runs a screened study with changes, and gives back its history."""

    def run(changes=None):
        laboratory.run({**SCREENED, **(changes or {})})
        return laboratory.history()

    return run


def sheets_of(history, samples, stage="search"):
    return [
        (run, sheet)
        for run in history.runs
        for sheet in run.all_evaluations
        if run.stage == stage and sheet.samples == samples
    ]


def test_the_best_share_is_scored_in_full_and_finalists_are_the_best_of_that(laboratory, screened):
    history = screened()
    few, full = sheets_of(history, FEW), sheets_of(history, FULL)
    assert len(few) == 8 and len(full) == math.ceil(0.25 * 8)
    assert {name for _, sheet in few for name in sheet.scores} == {"kd-digits"}
    assert {name for _, sheet in full for name in sheet.scores} == {"fd-digits"}

    def place(sheet):
        return sheet.run_key, sheet.epoch, sheet.sampling

    ranked = sorted(few, key=lambda pair: pair[1].scores["kd-digits"].value)
    assert {place(sheet) for _, sheet in full} == {place(sheet) for _, sheet in ranked[: len(full)]}
    best, sheet = min(full, key=lambda pair: pair[1].scores["fd-digits"].value)
    [(finalist, _), *_] = sheets_of(history, FULL, "finalist")
    assert finalist.point == best.point and {each.epoch for each in finalist.evaluations} == {sheet.epoch}
    assert winner(history).run.key == finalist.key
    assert len(laboratory.trained) == 2 * 2 + sheet.epoch, "the full scores took training"


def test_it_is_answered_from_the_store_when_it_is_run_again(laboratory, screened):
    screened()
    before = laboratory.table()
    screened()
    assert laboratory.table() == before and laboratory.trained == laboratory.scored == []


def test_as_many_configurations_pass_as_there_are_finalists(screened):
    history = screened({"evaluation.screen": {**SCREENED["evaluation.screen"], "keep": 0.01},
                        "search.finalists": {"top": 2, "repeats": 1}})  # fmt: skip
    assert len({run.key for run, _ in sheets_of(history, FULL)}) == 2
    assert len({run.key for run, _ in sheets_of(history, FULL, "finalist")}) == 2


def test_a_larger_share_scores_what_it_adds_and_asks_the_search_nothing(laboratory, screened):
    screened()
    history = screened({"evaluation.screen": {**SCREENED["evaluation.screen"], "keep": 0.5}})
    assert len(sheets_of(history, FULL)) == 4
    assert len({sheet.key for _, sheet in sheets_of(history, FULL)} & set(laboratory.scored)) == 2
    assert not {sheet.key for _, sheet in sheets_of(history, FEW)} & set(laboratory.scored)
    history = screened()  # a smaller share again takes nothing back
    assert len(sheets_of(history, FULL)) == 4


def test_the_share_is_not_what_the_search_learns_from(laboratory):
    other = {**SCREENED["evaluation.screen"], "keep": 0.5}
    hashes = {asks_hash(laboratory.spec({**SCREENED, "evaluation.screen": screen}), "x")
              for screen in (SCREENED["evaluation.screen"], other)}  # fmt: skip
    assert len(hashes) == 1
    assert asks_hash(laboratory.spec({"evaluation.screen": None}), "x") == asks_hash(laboratory.spec(), "x")


@pytest.mark.parametrize("keep", ["last", "best"])
def test_checkpoints_go_when_the_full_scores_are_there_and_not_before(laboratory, keep):
    changes = {**SCREENED, "keep": keep, "search.finalists": None}
    items = (
        2 * (1 + 2 * (1 + 2 * 2)) + 2
    )  # of the search: each run is handed out and ends, 2 x (epoch, 2 x (batch, score))
    assert laboratory.run_and_die(changes, items)
    assert sum("epoch-00001" in file for file in laboratory.checkpoints()) == 2
    laboratory.run(changes)
    assert laboratory.trained == []
    history = laboratory.history()
    for run in history.runs:
        kept = laboratory.store.run(run.key).kept()
        sheets, metric = (run.evaluations, "fd-digits") if run.evaluations else (run.screened, "kd-digits")
        best = min(sheets, key=lambda sheet: sheet.scores[metric].value).epoch
        assert kept == ((2,) if keep == "last" or best == 2 else (1, 2))


def test_what_is_scored_in_full_is_every_repeat_of_a_configuration(screened):
    history = screened({"repeats": 2, "search.finalists": None, "training.epochs": [1], "sampling.ema": 0})
    full = [run for run, _ in sheets_of(history, FULL)]
    assert len(full) == 2 and full[0].point == full[1].point and full[0].key != full[1].key


def test_a_run_that_diverged_has_nothing_to_score_in_full(screened):
    history = screened({"training.learning_rate": [1e-3, 1e30], "training.loss": "x0-l2", "search.finalists": None,
                        "evaluation.screen": {**SCREENED["evaluation.screen"], "keep": 1.0}})  # fmt: skip
    good, bad = sorted(history.runs, key=lambda run: run.outcome.state is State.DIVERGED)
    assert good.outcome.ok and bad.outcome.state is State.DIVERGED
    assert {run.key for run, _ in sheets_of(history, FULL)} == {good.key}


def test_a_failed_full_score_is_told_and_ranks_nothing(laboratory, screened):
    screened()
    folder = StudyFolder.open(laboratory.store, "tiny")
    full = next(asked for asked in folder.ledger.of(folder.header.asks) if asked.stage == "full")
    folder.ledger.end(full, Outcome(State.FAILED, "a bug"))
    run = next(run for run in laboratory.history().runs if run.key == full.run_key)
    assert run.outcome.ok and [attempt.reason for attempt in run.attempts] == ["a bug"]


# --- killed at any moment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [9, 24, 26, 28])  # in the search, and before and after each full score
def test_killed_in_any_stage_it_ends_as_if_it_had_not_been(laboratory, tmp_path, items):
    from tests.laboratory import Laboratory

    changes = {**SCREENED, "keep": "best"}
    whole = Laboratory(tmp_path / "whole")
    whole.run(changes)
    assert laboratory.run_and_die(changes, items)
    laboratory.run(changes)
    assert laboratory.table() == whole.table() and laboratory.checkpoints() == whole.checkpoints()
    assert {key: sorted(lines) for key, lines in laboratory.lines().items()} == {
        key: sorted(lines) for key, lines in whole.lines().items()
    }


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("screen", "says"),
    [
        ({"objective": "kd-digits"}, "a screen needs samples"),
        ({"objective": "kd-digits", "samples": FULL}, "70 images are no fewer than the 70 of the full score"),
        ({"objective": "kd-digits", "samples": 49}, "49 images are too few for kd-digits, which needs at least 50"),
        ({"objective": "fd-digits", "samples": 66}, "fd-digits is biased at few images"),
        ({"samples": 66}, "fd-digits is biased at few images"),
        ({"objective": "kd-nothing", "samples": FEW}, "unknown metric 'kd-nothing'"),
        ({"objective": "kd-digits", "samples": FEW, "keep": 0}, "keep"),
        ({"objective": "kd-digits", "samples": FEW, "share": 0.5}, "no such key"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_the_file_is_loaded(laboratory, screen, says):
    with pytest.raises(ConfigError, match=says):
        laboratory.spec({"evaluation.screen": screen})


def test_the_same_unbiased_metric_of_fewer_images_is_a_screen(laboratory):
    spec = laboratory.spec({"evaluation": {"objective": "kd-digits", "samples": FULL, "screen": {"samples": FEW}}})
    assert (spec.evaluation.screen.objective, spec.evaluation.screen.samples) == ("kd-digits", FEW)
