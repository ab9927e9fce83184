"""What to try next: a file that loads, has another name, holds the winner, and gives a reason for each change."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from diffsearch.records import Score, Screened, StudyHistory
from diffsearch.report.extend import joined
from diffsearch.report.importance import NOTHING, Importances, importances
from diffsearch.report.next_front import weighed
from diffsearch.report.next_rules import Evidence, edges, fixed, milestones
from diffsearch.report.next_study import MARK, NextStudy, next_study
from diffsearch.report.ranks import members, ranking_order, winner
from diffsearch.report.surrogate import candidates, value_of
from diffsearch.search import pareto
from diffsearch.space.axes import grid_size
from diffsearch.space.load import loads
from diffsearch.space.settings import Choices, Integers
from tests.report.conftest import LOSS, PROCESS, TEXT, make_history


def rescored(history: StudyHistory, score) -> StudyHistory:
    """The study with other scores: `score(run, sheet, old)`."""
    objective = history.objective
    runs = []
    for run in history.runs:
        sheets = []
        for sheet in run.evaluations:
            old = sheet.scores[objective]
            new = dataclasses.replace(old, value=score(run, sheet, old.value))
            sheets.append(dataclasses.replace(sheet, scores={**sheet.scores, objective: new}))
        runs.append(dataclasses.replace(run, evaluations=tuple(sheets)))
    return dataclasses.replace(history, runs=tuple(runs))


def only(path: str) -> Importances:
    """One axis matters beyond chance, and nothing is known of the others."""
    return Importances(((path, 0.9),), {path: 0.2}, 30, True, (), "", {path: (0.7, 1.0)})


def evidence(history: StudyHistory, found: Importances) -> Evidence:
    won = winner(history)
    assert won is not None
    return Evidence(history, loads(history.text), won, found)


@pytest.fixture(scope="module")
def studied() -> tuple[StudyHistory, Importances]:
    history = make_history(count=36, seed=2, stopping=False)
    return history, importances(history)


@pytest.fixture(scope="module")
def suggested(studied: tuple[StudyHistory, Importances]) -> NextStudy:
    return next_study(studied[0], None, studied[1])


def holds_the_winner(found: NextStudy, history: StudyHistory) -> bool:
    spec, won = loads(found.text), winner(history)
    assert won is not None
    domains = {axis.path: axis.domain for axis in spec.axes}

    def inside(path: str, value: object) -> bool:
        domain = domains.get(path)
        if domain is None:
            return spec.fixed[path] == value
        return value in domain.values if isinstance(domain, Choices) else domain.low <= value <= domain.high

    return all(inside(path, value_of(value)) for path, value in won.run.point.items())


def test_the_file_loads_and_holds_the_winner_and_says_why(make):
    check(next_study(history := make(count=16, seed=0)), history)


@pytest.mark.parametrize("options", [{"diverged": False, "finalists": False, "seed": 5}])
def test_so_it_does_of_other_histories(make, options, studied):
    history = make(count=24, **options)
    check(next_study(history, None, studied[1]), history)


def check(found: NextStudy, history: StudyHistory) -> None:
    assert found.text and loads(found.text).name == found.name == "mnist_unet-next"
    assert holds_the_winner(found, history)
    lines = found.text.splitlines()
    reasons = [line for line in lines if f"# {MARK}" in line]
    assert len(reasons) == len(found.changed) + 1, "one for each change, one at the name"
    assert all(re.search(r"\d", "".join(lines[lines.index(line) : lines.index(line) + 3])) for line in reasons)
    own = [line for line in TEXT.splitlines() if line.split(":")[0] in ("seed", "data", "evaluation")]
    assert len(own) == 3 and set(own) <= set(lines)
    assert loads(found.text).search.runs == 20


def test_the_region_is_better_than_the_space(studied, suggested):
    history, found = studied[0], suggested

    def level(text: str) -> float:
        points = candidates(spec := loads(text))
        whole = [{**spec.fixed, **point} for point in points]
        return float(np.mean([LOSS[p["training.loss"]] * PROCESS[p["diffusion.noise_process"]] for p in whole]))

    assert level(found.text) < 0.75 * level(history.text)
    assert "left out:" in found.text and "of the promising points" in found.text and "if it didn't matter" in found.text


def test_noise_narrows_nothing(make, studied):
    noise = np.random.default_rng(3)
    history = rescored(make(count=24, finalists=False, stopping=False), lambda *_: float(np.exp(noise.normal())))
    found = next_study(history, None, studied[1])
    assert "no more than chance can, so it narrows nothing" in found.words
    assert "promising points" not in found.text


def test_an_axis_that_matters_no_longer_is_fixed_at_the_winners_value(studied, suggested):
    history, importance = studied
    known = evidence(history, importance)
    found = {finding.path: finding for finding in fixed(known)}
    assert found and not {"training.loss", "model.channels"} & set(found)
    spec = loads(suggested.text)
    for path in found:
        assert spec.fixed[path] == known.point[path] and path not in {axis.path for axis in spec.axes}
        assert dict(importance.shares)[path] <= importance.intervals[path][1] <= importance.chance[path]
        assert (known.apart(path) or (0.0, 0))[0] >= 0.2


def test_an_axis_is_not_given_up_while_its_values_may_differ(studied):
    history, importance = studied
    small = Importances(importance.shares[::-1], importance.chance, 36, True, ())
    assert not list(fixed(evidence(history, small))), "without an interval nothing is known of its share"
    differing = rescored(history, lambda run, sheet, old: old * (1 + 3 * (run.point["training.batch_size"] > 64)))
    path = "training.batch_size"
    idle = Importances(((path, 0.0),), {path: 1.0}, 36, True, (), "", {path: (0.0, 0.1)})
    assert list(fixed(evidence(history, idle))) and not list(fixed(evidence(differing, idle)))


def test_the_edge_moves_out_where_the_best_value_is_the_outermost(make):
    history = rescored(
        make(count=24, finalists=False, diverged=False),
        lambda run, sheet, _: run.point["training.batch_size"] * (1 + 1 / sheet.epoch) * (1 + run.order / 1e3),
    )
    importance = only("training.batch_size")
    (edge,) = [f for f in edges(evidence(history, importance)) if f.path == "training.batch_size"]
    assert edge.value == Choices((16, 32, 64, 128, 256))
    text = next_study(history, None, importance).text
    batches = next(axis.domain.values for axis in loads(text).axes if axis.path == "training.batch_size")
    assert batches[:2] == (16, 32) and 256 not in batches, "the region, and one step beyond its edge"
    assert "16 added, as the best run has the smallest value, 32" in " ".join(text.replace("#", "").split())
    assert not [f for f in edges(evidence(rescored(history, lambda *_: 5.0), NOTHING)) if f.path == edge.path]


@pytest.mark.parametrize(
    ("last", "count", "wanted"),
    [(0.8, 1, (1, 3, 9, 27)), (0.95, 1, None), (1.1, 1, None), (0.9, 3, (1, 3, 9, 27)), (1.0, 3, None)],
)
def test_one_more_milestone_where_the_winner_still_falls(make, last, count, wanted):
    """With one seed by a tenth, with several as a paired test says; never where the last milestone isn't its best."""
    history = make(count=12, finalists=False, stopping=False, diverged=False)
    best = history.runs[4]
    seeds = [
        dataclasses.replace(best, key=f"seed{i}", order=90 + i, evaluations=best.evaluations) for i in range(1, count)
    ]
    history = dataclasses.replace(history, runs=(*history.runs, *seeds))

    def score(run, sheet, old):
        if run.point != best.point:
            return 100 + run.order
        noise = 1 + 0.01 * (run.order % 3)
        return {1: 40.0, 3: 20.0, 9: 20.0 * last * noise}[sheet.epoch]

    found = milestones(evidence(rescored(history, score), NOTHING))
    assert (found and found.value) == wanted
    if found:
        assert "18 epochs more" in found.why and ("one seed" if count == 1 else "3 seeds") in found.why


def test_after_one_axis_at_a_time_come_all_at_once(make, studied):
    start = "{algorithm: {name: sequential, start: {training.loss: v-l2}}}"
    text = TEXT.replace("{algorithm: tpe, runs: 20}", start).replace("{log: [3e-4, 3e-3]}", "1e-3")
    spec = loads(next_study(dataclasses.replace(make(count=16), text=text), None, studied[1]).text)
    assert spec.search.algorithm.name == "tpe" and spec.search.runs == 16
    assert {axis.path for axis in loads(text).axes} == {axis.path for axis in spec.axes}, "none is fixed"


def test_it_begins_with_what_is_known(studied, suggested):
    """The old scores; the best point where the new milestone is not among them; and no point outside the new space."""
    history, importance = studied
    assert winner(history).sheet.epoch == 9
    (point,) = loads(suggested.text).search.enqueue
    known = evidence(history, importance).point
    assert loads(suggested.text).milestones == (1, 3, 9, 27) and point == {path: known[path] for path in point}
    level = rescored(history, lambda run, sheet, old: old * 3 if sheet.epoch == 9 else old)
    same = next_study(level, None, importance)
    search = loads(same.text).search
    assert loads(same.text).milestones == (1, 3, 9) and search.warm_start == ("mnist_unet",) and not search.enqueue
    text = TEXT.replace("runs: 20", "runs: 20, enqueue: [{training.loss: epsilon-l2}]")
    moved = loads(next_study(dataclasses.replace(level, text=text), None, importance).text).search
    (point,) = moved.enqueue
    assert moved.warm_start == ("mnist_unet",) and point.get("training.loss") != "epsilon-l2"


@pytest.fixture(scope="module")
def traded(studied) -> tuple[StudyHistory, NextStudy]:
    """Each network call makes the digits better by as much."""
    text = TEXT.replace("objective: fd-digits", "objectives: [fd-digits, network_calls]")
    history = rescored(studied[0], lambda run, sheet, old: old * 15 * sheet.samples / sheet.network_calls)
    history = dataclasses.replace(history, objectives=("fd-digits", "network_calls"), text=text)
    return history, next_study(history)


def test_several_objectives_are_weighed_as_parego_weighs_them(traded):
    """Against Knowles' formula by hand, on axes from each objective's least to its greatest value."""
    history, _ = traded
    every = members(history)
    alike, first, second = weighed(history, every)
    scores = {m.sheet.key: m.values for m in every}
    places = pareto.on_axes(np.array(list(scores.values())))
    for view, weights in ((alike, (0.5, 0.5)), (first, (0.75, 0.25)), (second, (0.25, 0.75))):
        got = {s.key: s.scores["fd-digits"].value for run in view.runs for s in run.evaluations}
        assert not view.objectives and not any(run.stage == "finalist" for run in view.runs)
        for key, place in zip(scores, places, strict=True):
            far = [w * p for w, p in zip(weights, place, strict=True)]
            assert got[key] == pytest.approx(max(far) + 0.05 * sum(far))


def test_the_next_study_of_several_objectives_holds_the_whole_front(traded):
    history, found = traded
    spec, front = loads(found.text), [member for member in members(history) if member.rank == 0]
    assert spec.evaluation.objectives == ("fd-digits", "network_calls") and spec.name == "mnist_unet-next"
    assert "by the front of fd-digits and network_calls" in found.text
    assert "weighed alike" in found.words and found.changed
    domains, fixed_at = {axis.path: axis.domain for axis in spec.axes}, 0
    for member in front:
        for path, value in member.run.point.items():
            domain = domains.get(path)
            if domain is None:
                fixed_at += 1
            elif isinstance(domain, Choices):
                assert value_of(value) in domain.values, path
            else:
                assert domain.low <= value <= domain.high, path
    assert len(front) > 2 and fixed_at <= 2 * len(front), "most axes of this study matter"
    knee = next(member for member in front if member.is_knee)
    axes = loads(history.text).axes
    at = {axis.path: value_of(knee.run.point[axis.path]) for axis in axes}
    fixed = {path: value for path, value in at.items() if path not in domains}
    assert {path: spec.fixed[path] for path in fixed} == fixed, "at the knee's values"
    left = {member.run.key: member.run.point for member in front}
    same = [p for p in left.values() if all(value_of(p[path]) == value for path, value in fixed.items())]
    assert [dict(point) for point in spec.search.enqueue] == [
        {path: value_of(point[path]) for path in domains} for point in same
    ]


def test_an_axis_is_fixed_only_if_it_matters_under_no_weighing(traded):
    """Calls depend on the steps alone: whoever weighs them knows that the steps matter. Batches never do here."""
    spec = loads(traded[1].text)
    left = {axis.path for axis in spec.axes}
    assert "diffusion.steps" in left and "training.batch_size" not in left
    [why] = re.findall(r"# next: batch_size fixed .*?(?=\n  batch_size)", traded[1].text, re.DOTALL)
    assert "nor with the objectives weighed otherwise" in " ".join(why.replace("#", "").split())


def test_of_a_screened_study_the_winner_of_full_scores_is_kept():
    """The screen's eighth is best in full: the next space holds it, whatever the screen makes of its values."""
    history = make_history(count=36, seed=2, stopping=False, finalists=False)
    eighth = ranking_order(history)[7]
    runs = []
    for run in history.runs:
        last = run.evaluations[-1]
        best = dataclasses.replace(
            last, key="full", samples=2000, scores={"fd-digits": Score(1.0, 2000, last.scores["fd-digits"].extractor)}
        )
        full = (best,) if run.key == eighth.key else ()
        runs.append(dataclasses.replace(run, screened=run.evaluations, evaluations=full))
    screened = dataclasses.replace(
        history, runs=tuple(runs), samples=2000, screen=Screened("kd-digits", "min", 1000),
        text=TEXT.replace("samples: 1000}", "samples: 2000, screen: {objective: kd-digits, samples: 1000}}"),
    )  # fmt: skip
    assert screened.text != TEXT and winner(screened).run.key == eighth.key
    found = next_study(screened)
    assert found.changed and holds_the_winner(found, screened) and "best fd-digits 1." in found.text


def test_steps_beyond_either_end_are_joined():
    """Of a list in its order, of a range on its scale; a step that is there already is no second one."""
    whole, up, down = Choices((2, 4, 8)), Choices((2, 4, 8, 16)), Choices((1, 2, 4, 8))
    assert joined(whole, up, down) == joined(whole, down, up) == Choices((1, 2, 4, 8, 16))
    assert joined(whole, up, up) == up and joined(whole, Choices((4, 8)), down) == Choices((1, 4, 8))
    assert joined(Integers(2, 8), Integers(2, 16), Integers(1, 8)) == Integers(1, 16)
    assert joined(Integers(2, 8), Integers(4, 6), Integers(1, 8)) == Integers(1, 6)


def test_where_nothing_follows_it_says_so(make):
    assert "No run has a score" in next_study(dataclasses.replace(make(), runs=())).words
    several = TEXT.replace("objective: fd-digits", "objectives: [fd-digits, network_calls]")
    none = dataclasses.replace(make(), runs=(), objectives=("fd-digits", "network_calls"), text=several)
    assert "No run has a score" in next_study(none).words
    flat = next_study(rescored(make(count=4, finalists=False, diverged=False), lambda *_: 5.0))
    assert "too few" in flat.words and not flat.text and "more runs of this one may" in flat.words
    text = "data: {dataset: mnist-5k}\nuse: [./gone.py]\n"
    broken = next_study(dataclasses.replace(make(count=4), text=text))
    assert not broken.text and "can't be read here" in broken.words and "gone.py" in broken.words


def test_a_change_that_makes_the_file_wrong_is_left_out(studied):
    """Three finalists need three points: axes are fixed only as long as so many are left."""
    history, importance = studied
    text = TEXT.replace("learning_rate: {log: [3e-4, 3e-3]}", "learning_rate: 1e-3")
    text = text.replace("tpe, runs: 20", "tpe, runs: 200, finalists: {top: 100, repeats: 2}")
    found = next_study(dataclasses.replace(history, text=text), None, importance)
    free = next_study(dataclasses.replace(history, text=text.replace("top: 100", "top: 1")), None, importance)
    assert grid_size(loads(free.text)) < 100 <= grid_size(loads(found.text))
    assert found.changed and set(found.changed) < set(free.changed)


@pytest.mark.parametrize(("name", "wanted"), [("a", "a-next"), ("a-next", "a-next2"), ("a-next9", "a-next10")])
def test_names_count_on(make, name, wanted):
    assert next_study(dataclasses.replace(make(count=4), name=name)).name == wanted
    assert len(next_study(dataclasses.replace(make(count=4), name="x" * 100)).name) == 100
