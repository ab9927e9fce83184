"""Law 4, where a screen comes first: scores of different metrics or sample counts never meet in one ranking.

The screen here is of the very metric that is scored in full, so that nothing but care keeps the two apart; then one
side is made absurdly good, and whatever speaks of the other must not notice.
"""

from __future__ import annotations

import json
from dataclasses import replace

import optuna
import pytest

from diffsearch.cli import endings, standing, table_screen
from diffsearch.records import Score
from diffsearch.report import finals, mattered, sections, tables
from diffsearch.report.importance import importances
from diffsearch.report.ledger import progress
from diffsearch.report.ranks import rankable, screened, searched, winner
from diffsearch.study import tracking
from diffsearch.study.history import StudyFolder
from diffsearch.study.progress import Progress
from diffsearch.study.requests import Scoring

FEW, FULL, FINAL = 60, 70, 80
STUDY = {
    "sampling.ema": [0, 100],
    "evaluation": {"objective": "kd-digits", "metrics": ["kd-digits"], "samples": FULL,
                   "screen": {"samples": FEW, "keep": 0.5}},
    "search.finalists": {"top": 2, "repeats": 1, "samples": FINAL},
}  # fmt: skip
TEMPTING = -1e9


@pytest.fixture(scope="module")
def laboratory_run(tmp_path_factory, new_laboratory):
    made = new_laboratory(tmp_path_factory.mktemp("stages"))
    made.run(STUDY)
    return made


@pytest.fixture(scope="module")
def history(laboratory_run):
    return laboratory_run.history()


def absurd(sheets):
    return tuple(replace(sheet, scores={"kd-digits": Score(TEMPTING, sheet.samples, "x")}) for sheet in sheets)


def with_absurd(history, kind):
    """The history with every score of the screen, or every full score of the search, made absurdly good."""
    runs = (
        replace(run, **{kind: absurd(getattr(run, kind))}) if run.stage == "search" else run for run in history.runs
    )
    return replace(history, runs=tuple(runs))


def no_figure(drawn):
    return ""


def said_to_matter(history):
    return mattered.what_mattered(history, importances(history), no_figure)


OF_FULL_SCORES = {
    "the winner": lambda history: winner(history).sheet,
    "the ranking": lambda history: tables.ranking(history).to_csv(),
    "runs": lambda history: tables.runs(history).to_csv(),
    "finalists": lambda history: tables.finalists(history).to_csv(),
    "what ranks": lambda history: [(run.key, sheets) for run, sheets in rankable(history)],
    "axes": lambda history: tables.axis_table(history, "training.loss").to_csv(),
    "best so far": lambda history: progress(history).to_csv(),
    "the metric's column": lambda history: tables.evaluations(history)["kd-digits"].to_csv(),
    "the first row of a table": lambda history: table_screen.sorted_rows(history, None).iloc[0]["key"],
    "the opening": sections.opening,
    "the finalists' section": lambda history: finals.finalists(history, no_figure),
    "the last line of a run": endings.winner_line,
    "the best": lambda history: json.dumps(endings.best_facts(history, winner(history))),
}


@pytest.mark.parametrize("what", OF_FULL_SCORES)
def test_what_speaks_of_full_scores_does_not_notice_the_screen(history, what):
    say = OF_FULL_SCORES[what]
    assert say(with_absurd(history, "screened")) == say(history)


OF_THE_SCREEN = {
    "what ranks": lambda history: [(run.key, sheets) for run, sheets in rankable(searched(history))],
    "what mattered": lambda history: said_to_matter(searched(history)),
    "how it went": lambda history: progress(searched(history)).to_csv(),
    "the metric's column": lambda history: tables.evaluations(history)["screen_kd-digits"].to_csv(),
}


@pytest.mark.parametrize("what", OF_THE_SCREEN)
def test_what_speaks_of_the_screen_does_not_notice_full_scores(history, what):
    say = OF_THE_SCREEN[what]
    assert say(with_absurd(history, "evaluations")) == say(history)


def test_each_ranking_is_of_one_count(history):
    counts = [
        {sheet.samples for _, sheets in rankable(each) for sheet in sheets} for each in (history, screened(history))
    ]
    finals = {sheet.samples for _, sheets in rankable(history, "finalist") for sheet in sheets}
    assert (*counts, finals) == ({FULL}, {FEW}, {FINAL})
    rows = tables.evaluations(history)
    assert not (rows["kd-digits"].notna() & rows["screen_kd-digits"].notna()).any()
    assert set(rows[rows["screen_kd-digits"].notna()]["samples"]) == {FEW}


def test_the_search_is_told_what_the_screen_scored(laboratory_run, history):
    path = laboratory_run.store.study("tiny") / "journal.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    [study] = storage.get_all_studies()
    told = sorted(trial.value for trial in storage.get_all_trials(study._study_id))
    best = sorted(
        min(sheet.scores["kd-digits"].value for sheet in run.screened) for run in history.runs if run.screened
    )
    assert told == pytest.approx(best) and len(told) == 2


def test_mlflow_has_a_name_for_each(history):
    run = next(run for run in history.runs if run.evaluations and run.screened)
    few = tracking.evaluation_metrics(run.screened[0], several=True, screened=True)
    full = tracking.evaluation_metrics(run.evaluations[0], several=True)
    assert all(name.startswith("screen/kd-digits") for name in few) and not set(few) & set(full)


def test_the_live_table_shows_one_stage_at_a_time(laboratory_run):
    folder = StudyFolder.open(laboratory_run.store, "tiny")
    live = Progress("kd-digits", 1.0, None, (), screen=Scoring("kd-digits", ("kd-digits",), FEW))
    shown = []
    for stage in ("search", "full", "finalist"):
        for asked in folder.ledger.of(folder.header.asks):
            if asked.stage == stage:
                for sheet in folder.evaluations(asked):
                    live.scored(asked, sheet)
        shown.append({(ranked.asked.stage, ranked.evaluation.samples) for ranked in live.top(9)})
    assert shown == [{("search", FEW)}, {("full", FULL)}, {("finalist", FINAL)}]


def test_until_something_is_scored_in_full_the_status_says_whose_score_it_shows(laboratory_run, history):
    folder = StudyFolder.open(laboratory_run.store, "tiny")
    runs = tuple(replace(run, evaluations=()) for run in history.runs if run.stage == "search")
    early = searched(replace(history, runs=runs))
    text = standing.Standing(folder, replace(history, runs=runs), None, winner(early), early).best_text()
    assert text.startswith("kd-digits (screen) ")
    assert (
        standing.Standing.of(folder).best_text().startswith("kd-digits ")
        and "screen" not in standing.Standing.of(folder).text()
    )
