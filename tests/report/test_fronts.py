"""The trade-off of several objectives, on the invented study."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import optuna
import pytest
from PIL import Image

from diffsearch.report import claims, fronts, markdown, ranks, sections, tables, trade_off
from diffsearch.report.blocks import lines
from diffsearch.report.markdown import Pictures
from diffsearch.report.sampling import gain
from diffsearch.space.settings import Constraint
from tests.report.conftest import make_history

OBJECTIVES = ("fd-digits", "network_calls")


@pytest.fixture(scope="module")
def traded():
    return dataclasses.replace(make_history(), objectives=OBJECTIVES)


def pairs(history):
    """(objectives, run key, sheet) of every evaluation that may be compared."""
    found = [(run, sheet) for run, sheets in ranks.rankable(history) for sheet in sheets]
    return [((s.scores["fd-digits"].value, s.network_calls / s.samples), run.key, s) for run, s in found]


def test_the_front_is_that_of_a_study_of_optunas_over_evaluations(traded):
    study = optuna.create_study(directions=["minimize", "minimize"])
    known = pairs(traded)
    for values, _, _ in known:
        study.add_trial(optuna.create_trial(values=list(values)))
    expected = {known[trial.number][2].key for trial in study.best_trials}
    rows = tables.front(traded)
    assert set(rows["key"]) == expected and len(expected) > 1
    assert rows["fd-digits"].is_monotonic_increasing and rows["network_calls"].is_monotonic_decreasing
    assert rows["knee"].sum() == 1 and set(rows["network_calls"]) <= {5, 10, 15}


def test_a_metric_of_which_more_is_better_is_traded_off_upwards(traded):
    more = dataclasses.replace(
        traded,
        objectives=("precision-digits", "network_calls"),
        runs=tuple(
            dataclasses.replace(
                run,
                evaluations=tuple(
                    dataclasses.replace(sheet, scores={**sheet.scores, "precision-digits": sheet.scores["fd-digits"]})
                    for sheet in run.evaluations
                ),
            )
            for run in traded.runs
        ),
    )
    rows = tables.front(more)
    assert rows["precision-digits"].iloc[0] == max(values[0] for values, _, _ in pairs(traded))
    assert rows["precision-digits"].is_monotonic_decreasing and rows["network_calls"].is_monotonic_decreasing
    assert (rows["precision-digits"] > 0).all()


def test_the_winner_is_the_knee_and_nothing_is_claimed_of_it(traded):
    won = ranks.winner(traded)
    [knee] = [member for member in ranks.members(traded) if member.is_knee]
    assert (won.run.key, won.sheet.key, won.configuration) == (knee.run.key, knee.sheet.key, None)
    assert ranks.configurations(traded) == []
    assert ranks.members(dataclasses.replace(traded, objectives=())) == []


def test_the_section_shows_the_figure_the_table_and_what_fresh_seeds_had(traded):
    kept = []
    text = trade_off.trade_off(traded, lambda drawn: kept.append(drawn) or "(figure)")
    front = fronts.front(traded)
    assert text.count("\n| knee") == 1 and all(member.run.key[:6] in text for member in front)
    assert "fresh seeds" in text and "(n 3)" in text
    assert fronts.front_sentence(traded) in text and f"{len(front)} of " in text
    [drawn] = kept
    image = np.asarray(Image.open(io.BytesIO(drawn.png)))
    assert image.shape[1] == 1400 and len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert all(member.run.key[:6] in drawn.alt for member in front)
    assert trade_off.front_plot(traded).png == drawn.png  # the same bytes each time
    assert trade_off.trade_off(make_history(), lambda drawn: "") == ""


def test_three_objectives_have_two_panels(traded):
    three = dataclasses.replace(traded, objectives=(*OBJECTIVES, "training_images"))
    assert "training_images" in trade_off.front_plot(three).alt
    assert len(fronts.front(three)) > len(fronts.front(traded))  # no evaluation at the first milestone is beaten by all


def test_what_breaks_a_constraint_is_on_no_front_and_is_shown_as_such(traded):
    limit = Constraint("network_calls", "<", 8)
    kept = dataclasses.replace(traded, constraints=(limit,))
    assert tables.front(kept)["network_calls"].max() < 8 <= tables.front(traded)["network_calls"].max()
    rows = tables.evaluations(kept)
    assert ((rows["network_calls"] / rows["samples"] >= 8) == (rows["broken"] != "")).all()
    assert "network_calls 15 breaks network_calls &lt; 8" in sections.all_evaluations(kept, "table.csv")
    plot = trade_off.front_plot(kept)
    assert plot.png != trade_off.front_plot(traded).png  # crosses
    count = int(((rows["broken"] != "") & (rows["state"] != "diverged")).sum())
    assert f"{count} of " in fronts.constraint_sentences(kept) and "network_calls < 8" in sections.opening(kept)


def test_fresh_seeds_that_were_sampled_otherwise_have_rows_of_their_own(traded):
    """The invented finals are drawn at three averages, of which the front has one at most."""
    section = trade_off.trade_off(traded, lambda drawn: "")
    told = section.partition("otherwise than on the front:")[2]
    on_it = {(ranks.point_key(m.run), m.sheet.epoch, m.sheet.sampling) for m in ranks.members(traded) if m.rank == 0}
    expected = {
        (ranks.point_key(run), sheet.epoch, sheet.sampling)
        for run, sheets in ranks.rankable(traded, "finalist")
        for sheet in sheets
    } - on_it
    rows = [line for line in told.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(expected) > 0 and all("(n 3)" in row for row in rows)


def test_with_several_objectives_no_gain_is_divided(traded):
    assert "one of several objectives" in gain(traded)


def test_a_constraint_takes_the_win_with_one_objective_too():
    history = make_history(finalists=False)
    won = ranks.winner(history)
    limit = Constraint("fd-digits", ">", won.summary.mean)
    other = ranks.winner(dataclasses.replace(history, constraints=(limit,)))
    assert other.summary.mean > won.summary.mean
    assert "fd-digits" in claims.won_sentence(dataclasses.replace(history, constraints=(limit,)))


def test_a_report_has_the_trade_off_instead_of_an_order_of_finalists(tmp_path):
    traded = dataclasses.replace(make_history(count=6, finalists=False), objectives=OBJECTIVES)
    path = markdown.write([traded], tmp_path, pictures=Pictures())
    text = path.read_text()
    assert "## The trade-off" in text and "## The finalists" not in text
    assert (tmp_path / "figures" / "front.png").exists()
    assert "best trade-off of fd-digits and network_calls" in lines(sections.opening(traded))
