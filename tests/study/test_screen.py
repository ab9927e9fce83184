"""Successive evaluation: a search by a cheap score, its best in full on the checkpoints there, then finalists."""

from __future__ import annotations

import math
import shutil

import pytest
from mlflow.tracking import MlflowClient

from diffsearch.errors import ConfigError
from diffsearch.records import Outcome, State
from diffsearch.report.ranks import winner
from diffsearch.study import tracking
from diffsearch.study.history import StudyFolder
from diffsearch.study.identity import asks_hash

FEW, FULL = 60, 70
SCREENED = {
    "sampling.ema": [0, 100],
    "evaluation.screen": {"objective": "kd-digits", "samples": FEW, "keep": 0.25},
    "search.finalists": {"top": 1, "repeats": 1},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, new_laboratory):
    """The screened study, run once for all tests of this module; to be read only."""
    made = new_laboratory(tmp_path_factory.mktemp("finished"))
    made.run(SCREENED)
    return made


@pytest.fixture
def again(finished, tmp_path, new_laboratory):
    """Runs the finished study once more, in a copy of its store, with changes; gives back where."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    copy = new_laboratory(tmp_path / "copy")

    def run(changes=None):
        copy.run({**SCREENED, **(changes or {})})
        return copy

    return run


def sheets_of(laboratory, samples, stage="search"):
    return [
        (run, sheet)
        for run in laboratory.history().runs
        for sheet in run.all_evaluations
        if run.stage == stage and sheet.samples == samples
    ]


def screen(**changes):
    return {"evaluation.screen": {**SCREENED["evaluation.screen"], **changes}}


def test_the_best_share_is_scored_in_full_and_finalists_are_the_best_of_that(finished):
    few, full = sheets_of(finished, FEW), sheets_of(finished, FULL)
    assert len(few) == 8 and len(full) == math.ceil(0.25 * 8)
    assert {name for _, sheet in few for name in sheet.scores} == {"kd-digits"}
    assert {name for _, sheet in full for name in sheet.scores} == {"fd-digits"}

    def place(sheet):
        return sheet.run_key, sheet.epoch, sheet.sampling

    ranked = sorted(few, key=lambda pair: pair[1].scores["kd-digits"].value)
    assert {place(sheet) for _, sheet in full} == {place(sheet) for _, sheet in ranked[: len(full)]}
    best, sheet = min(full, key=lambda pair: pair[1].scores["fd-digits"].value)
    [(finalist, _), *_] = sheets_of(finished, FULL, "finalist")
    assert finalist.point == best.point and {each.epoch for each in finalist.evaluations} == {sheet.epoch}
    assert winner(finished.history()).run.key == finalist.key
    assert len(finished.trained) == 2 * 2 + sheet.epoch, "the full scores took training"


def test_it_is_answered_from_the_store_when_it_is_run_again(finished, again):
    copy = again()
    assert copy.table() == finished.table() and copy.trained == copy.scored == []


def test_as_many_configurations_pass_as_there_are_finalists(again):
    copy = again({**screen(keep=0.01), "search.finalists": {"top": 2, "repeats": 1}})
    assert len({run.key for run, _ in sheets_of(copy, FULL)}) == 2
    assert len({run.key for run, _ in sheets_of(copy, FULL, "finalist")}) == 2


def test_a_larger_share_scores_what_it_adds_and_asks_the_search_nothing(again):
    copy = again(screen(keep=0.5))
    assert len(sheets_of(copy, FULL)) == 4 and copy.trained == []
    assert {sheet.key for _, sheet in sheets_of(copy, FULL)} >= set(copy.scored) and len(copy.scored) == 2
    copy = again()  # a smaller share again takes nothing back
    assert len(sheets_of(copy, FULL)) == 4 and copy.scored == []


def test_the_share_is_not_what_the_search_learns_from(laboratory):
    hashes = {asks_hash(laboratory.spec({**SCREENED, **screen(keep=keep)}), "x") for keep in (0.25, 0.5)}
    assert len(hashes) == 1 and asks_hash(laboratory.spec({**SCREENED, **screen(samples=65)}), "x") not in hashes
    assert asks_hash(laboratory.spec({"evaluation.screen": None}), "x") == asks_hash(laboratory.spec(), "x")


@pytest.mark.parametrize("keep", ["last", "best"])
def test_checkpoints_go_when_the_full_scores_are_there(again, keep):
    copy = again({"keep": keep})
    assert copy.trained == copy.scored == []
    for run in copy.history().runs:
        if run.stage == "search":
            sheets, metric = (run.evaluations, "fd-digits") if run.evaluations else (run.screened, "kd-digits")
            best = min(sheets, key=lambda sheet: sheet.scores[metric].value).epoch
            assert copy.store.run(run.key).kept() == ((2,) if keep == "last" or best == 2 else (1, 2))


def test_checkpoints_stay_until_then(laboratory):
    """The first full score is of the first milestone: it takes no training, whatever `keep` says."""
    changes = {**SCREENED, "keep": "last", "search.finalists": None}
    of_a_run = 1 + 2 * (1 + 2 * 2) + 1  # handed out, twice (an epoch, twice (a batch, a score)), its end
    assert laboratory.run_and_die(changes, items=2 * of_a_run)
    assert sum("epoch-00001" in file for file in laboratory.checkpoints()) == 2
    laboratory.run(changes)
    assert laboratory.trained == [] and {sheet.epoch for _, sheet in sheets_of(laboratory, FULL)} == {1}
    assert not any("epoch-00001" in file for file in laboratory.checkpoints())


def test_what_is_scored_in_full_is_every_repeat_of_a_configuration(laboratory):
    changes = {"repeats": 2, "search.finalists": None, "training.epochs": [1], "sampling.ema": 0}
    laboratory.run({**SCREENED, **changes})
    (first, _), (second, _) = sheets_of(laboratory, FULL)
    assert first.point == second.point and first.key != second.key


def test_a_run_that_diverged_has_nothing_to_score_in_full(laboratory):
    changes = {"training.learning_rate": [1e-3, 1e30], "training.loss": "x0-l2", "training.epochs": [1]}
    laboratory.run({**SCREENED, **screen(keep=1.0), **changes, "search.finalists": None})
    good, bad = sorted(laboratory.history().runs, key=lambda run: run.outcome.state is State.DIVERGED)
    assert good.outcome.ok and bad.outcome.state is State.DIVERGED
    assert {run.key for run, _ in sheets_of(laboratory, FULL)} == {good.key}


def test_a_failed_full_score_is_told_and_ranks_nothing(again):
    copy = again()
    folder = StudyFolder.open(copy.store, "tiny")
    full = next(asked for asked in folder.ledger.of(folder.header.asks) if asked.stage == "full")
    folder.ledger.end(full, Outcome(State.FAILED, "a bug"))
    run = next(run for run in copy.history().runs if run.key == full.run_key)
    assert run.outcome.ok and [attempt.reason for attempt in run.attempts] == ["a bug"]


def test_mlflow_has_both_kinds_and_gives_the_same_history_back(finished, mlflow_database):
    """Each under its name, in the child of the run that they are of."""
    database = mlflow_database(finished.folder)
    folder, uri = StudyFolder.open(finished.store, "tiny"), f"sqlite:///{database}"
    assert tracking.sync(folder, uri) == 3
    told, stored = tracking.read("tiny", uri), finished.history()
    assert (told.runs, told.screen) == (stored.runs, stored.screen)
    names = [set(child.data.metrics) for child in MlflowClient(uri).search_runs(["1"])]
    search, full = "screen/kd-digits/ancestral  EMA off", "fd-digits/ancestral  EMA off"
    assert [sum(name in each for each in names) for name in (search, full)] == [
        2,
        2,
    ]  # a run has both, the finalist one


# --- killed at any moment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [9, 26])  # in the search, and between two full scores
def test_killed_in_any_stage_it_ends_as_if_it_had_not_been(laboratory, finished, items):
    assert laboratory.run_and_die(SCREENED, items)
    laboratory.run(SCREENED)
    assert laboratory.table() == finished.table() and laboratory.checkpoints() == finished.checkpoints()
    mine, whole = laboratory.lines(), finished.lines()
    assert {key: sorted(mine[key]) for key in mine} == {key: sorted(whole[key]) for key in whole}


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
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
def test_what_cannot_be_is_refused_when_the_file_is_loaded(laboratory, given, says):
    with pytest.raises(ConfigError, match=says):
        laboratory.spec({"evaluation.screen": given})


def test_the_same_unbiased_metric_of_fewer_images_is_a_screen(laboratory):
    spec = laboratory.spec({"evaluation": {"objective": "kd-digits", "samples": FULL, "screen": {"samples": FEW}}})
    assert (spec.evaluation.screen.objective, spec.evaluation.screen.samples) == ("kd-digits", FEW)
