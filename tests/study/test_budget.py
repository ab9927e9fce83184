"""Budgets and giving up: what ends a search, what is whole when it ends, and how it goes on."""

from __future__ import annotations

import pytest

from diffsearch.data.datasets import load as load_data
from diffsearch.errors import DiffsearchError, GaveUp
from diffsearch.records import BY_MACHINE, EpochRecord, Outcome, State
from diffsearch.space.axes import member_at
from diffsearch.study.budget import finals_share
from diffsearch.study.conductor import MAX_KILLS, Conductor, Signal, Task
from diffsearch.study.facts import environment
from diffsearch.study.failures import try_again
from diffsearch.study.identity import asks_hash, space_hash
from diffsearch.study.journal import SearchJournal
from diffsearch.study.ledger import Ledger
from diffsearch.study.requests import Requests
from diffsearch.trial import Trained
from tests.study.test_conductor import finish, scored

IMAGES = 200  # of the tiny study's data set
ENDLESS = {
    "search.algorithm": "random",
    "training.learning_rate": {"log": [1e-4, 1e-2]},
    "training.loss": "x0-l2",
    "training.epochs": [1, 2],
}


class Clock:
    """Working time of a study, in seconds, as the test says."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_study(laboratory, clock):
    """A study's conductor without anybody who executes, under that clock."""

    def open_(changes):
        spec = laboratory.spec(changes)
        data = load_data(member_at(spec.fixed, "data"))
        folder = laboratory.store.study(spec.name)
        folder.mkdir(parents=True, exist_ok=True)
        hashes = space_hash(spec, data.content), asks_hash(spec, data.content)
        journal = SearchJournal(folder, "-".join(hashes), spec.axes, spec.fixed, spec.search.algorithm, spec.seed)
        ledger = Ledger.open(folder)
        requests = Requests(
            spec,
            laboratory.store,
            data.content,
            ledger,
            "test",
            environment(),
            image_shape=data.image_shape,
            train_images=len(data.train),
        )
        return Conductor(requests, journal, data.image_shape, clock)

    return open_


def train(conductor, task, epoch):
    conductor.heard(task, Trained(EpochRecord(epoch, 1.0, epoch * IMAGES, 100.0, 2.0, 1.0)))


def ended_by(laboratory):
    return laboratory.history().search_ended


def answer(conductor, values):
    """Finish every run that it hands out with the next value; how many those were."""
    count = 0
    while isinstance(task := conductor.next(), Task):
        finish(conductor, task, values[count])
        count += 1
    return count


# --- images -------------------------------------------------------------------------------------------------------


def test_a_budget_of_images_is_never_overshot_and_buys_whole_runs(laboratory):
    changes = {**ENDLESS, "budget.images": 1300}
    laboratory.run(changes)
    assert len(laboratory.trained) == 6, "three runs of two epochs of 200 images"
    assert {run.outcome.state for run in laboratory.history().runs} == {State.FINISHED}
    assert ended_by(laboratory) == "budget.images (1,300)"
    laboratory.run(changes)
    assert laboratory.trained == [], "the same command again finds it used up"
    laboratory.run({**changes, "budget.images": "1.6k"})
    assert len(laboratory.trained) == 2 and ended_by(laboratory) == "budget.images (1,600)"


def test_images_that_the_store_had_cost_nothing(laboratory):
    grid = {"training.learning_rate": [1e-4, 2e-4, 4e-4], "training.epochs": [1]}
    laboratory.run({**grid, "name": "before", "training.loss": "x0-l2"})
    laboratory.run({**grid, "training.loss": ["x0-l2", "v-l2"], "budget.images": 400})
    assert len(laboratory.trained) == 2, "two runs of 200 images beside those three that were there"
    assert len(laboratory.history().runs) >= 2 and ended_by(laboratory) == "budget.images (400)"


def test_a_run_begins_only_where_it_fits_beside_those_under_way(open_study):
    conductor = open_study({**ENDLESS, "budget.images": 3 * 2 * IMAGES, "search.stopping": "asha"})
    first, second, third = (conductor.next() for _ in range(3))
    assert isinstance(third, Task) and conductor.next() is Signal.WAIT
    train(conductor, first, 1)
    assert conductor.heard(first, scored(first, 1, 1.0))
    train(conductor, second, 1)
    assert not conductor.heard(second, scored(second, 1, 5.0)), "asha stops it"
    assert conductor.next() is Signal.WAIT, "one epoch is free again, and a run takes two"
    conductor.stop(second, 1)
    train(conductor, third, 1)
    assert not conductor.heard(third, scored(third, 1, 6.0))
    conductor.stop(third, 1)
    assert isinstance(conductor.next(), Task) and conductor.next() is Signal.WAIT


def test_the_finals_keep_their_images_up_to_half(laboratory):
    finals = {"search.finalists": {"top": 1, "repeats": 2}, "training.epochs": [1]}
    laboratory.run({**ENDLESS, **finals, "budget.images": 5 * IMAGES})
    stages = [run.stage for run in laboratory.history().runs]
    assert (stages.count("search"), stages.count("finalist")) == (3, 2) and len(laboratory.trained) == 5
    laboratory.run({**ENDLESS, **finals, "name": "small", "seed": 5, "budget.images": 2 * IMAGES})
    assert len(laboratory.trained) == 3, "half of it is the search's, and the finals are whole all the same"


def test_a_budget_that_buys_no_run_is_refused(laboratory):
    with pytest.raises(DiffsearchError, match=r"budget.images: 399 images buy no run: one trains 400 to its last"):
        laboratory.run({**ENDLESS, "budget.images": 399})


# --- time ---------------------------------------------------------------------------------------------------------


def test_when_time_is_up_runs_stop_at_their_next_milestone_and_go_on_when_it_is_raised(open_study, clock):
    conductor = open_study({**ENDLESS, "budget.wall": "100s", "search.stopping": "asha"})
    first, second = conductor.next(), conductor.next()
    assert conductor.heard(first, scored(first, 1, 1.0))
    clock.now = 100.0
    assert conductor.next() is Signal.WAIT, "nothing new begins"
    assert not conductor.heard(second, scored(second, 1, 0.5)), "it would have gone on"
    cut = conductor.stop(second, 1)
    assert (cut.state, cut.reason) == (State.STOPPED_EARLY, "budget.wall (1m40s) after epoch 1")
    conductor.heard(first, scored(first, 2, 0.9))
    conductor.ended(first, Outcome(State.FINISHED))
    assert conductor.next() is Signal.DONE
    assert [point for point, _ in conductor.proposals.answers.best(2)] == [second.asked.point, first.asked.point]
    again = open_study({**ENDLESS, "budget.wall": "100s", "search.stopping": "asha"})
    assert again.next() is Signal.DONE
    raised = open_study({**ENDLESS, "budget.wall": "1h", "search.stopping": "asha"})
    task = raised.next()
    assert task.asked.run_key == second.asked.run_key, "what was cut off goes on first"
    assert task.asked.milestones == (1, 2)
    finish(raised, task, 0.4)
    assert raised.next().asked.run_key not in {first.asked.run_key, second.asked.run_key}


def test_a_stored_milestone_is_not_cut_off(laboratory):
    """Time is up, and fewer metrics ask for nothing that isn't there: the same runs, answered from the store."""
    changes = {**ENDLESS, "search.runs": 2, "evaluation.metrics": ["fd-digits", "kd-digits"]}
    laboratory.run(changes)
    Ledger.open(laboratory.store.study("tiny")).tick("an earlier session", 3600)
    laboratory.run({**changes, "evaluation.metrics": ["fd-digits"], "search.runs": 5, "budget.wall": "1h"})
    assert laboratory.trained == laboratory.scored == []
    assert [str(run.outcome.state) for run in laboratory.history().runs] == ["finished"] * 2
    assert ended_by(laboratory) == "budget.wall (1h)"


def test_device_hours_count_each_worker_and_its_part_of_a_gpu(open_study, clock):
    conductor = open_study({**ENDLESS, "budget.device_hours": 0.01})
    conductor.spending.devices = 0.25
    first, second = conductor.next(), conductor.next()
    clock.now = 40.0
    assert conductor.spending.device_s_here == pytest.approx(0.25 * 2 * 40)
    conductor.ended(second, Outcome(State.DIVERGED, "NaN", {"epoch": 1}))
    clock.now = 100.0
    assert conductor.spending.device_s_here == pytest.approx(0.25 * (100 + 40)) and isinstance(conductor.next(), Task)
    clock.now = 104.0
    assert not conductor.heard(first, scored(first, 1, 1.0)), "35 s, and twice 1 s: all of 0.01 hours"


def test_device_hours_are_kept_in_the_ledger(laboratory):
    laboratory.run({**ENDLESS, "search.runs": 2})
    ledger = Ledger.open(laboratory.store.study("tiny"))
    assert 0 < ledger.device_s <= ledger.wall_s
    before = ledger.device_s
    ledger.begin_session("old", {"command": "", "workers": 3})
    ledger.tick("old", 10.0)  # as a version wrote it that didn't count them: at most all the time of all workers
    assert ledger.device_s == before + 30


def test_the_finals_part_of_a_time_budget_follows_the_pace_of_the_search(open_study, clock):
    finals = {"search.finalists": {"top": 2, "repeats": 2}, "search.runs": 100}
    conductor = open_study({**ENDLESS, **finals, "budget.wall": "100s"})
    spending = conductor.spending
    assert spending._kept_s(100.0, wall=True) == pytest.approx(100 * finals_share(conductor.spec))
    task = conductor.next()
    train(conductor, task, 1)  # 200 images in 2 s
    assert spending.pace.s_per_image == pytest.approx(0.01)
    spending.workers = 2
    assert spending._kept_s(100.0, wall=True) == pytest.approx(2 * 0.01 * 2 * IMAGES), "4 finalists on 2 workers"
    assert spending._kept_s(10.0, wall=True) == 5.0, "half at most"


# --- no improvement -----------------------------------------------------------------------------------------------


def test_a_search_ends_when_nothing_got_better_in_so_many_runs(open_study):
    changes = {**ENDLESS, "budget.until": {"no_improvement": 3}}
    values = [10.0, 9.0, 9.5, 9.0, 8.0, 8.5, 8.0, 9.0, 1.0]
    conductor = open_study(changes)
    assert answer(conductor, values) == 8, "the last better one was the fifth; a tie is none"
    assert conductor.ledger.search_ended[conductor.requests.asks]["by"] == "budget.until.no_improvement (3)"
    assert open_study(changes).next() is Signal.DONE
    longer = open_study({**ENDLESS, "budget.until": {"no_improvement": 4}})
    finish(longer, longer.next(), 7.0)
    assert isinstance(longer.next(), Task), "it was better: three more"


def test_a_run_under_way_may_yet_be_the_best(open_study):
    conductor = open_study({**ENDLESS, "budget.until": {"no_improvement": 2}})
    slow = conductor.next()
    for value in (5.0, 6.0, 7.0):
        finish(conductor, conductor.next(), value)
    assert conductor.next() is Signal.WAIT
    finish(conductor, slow, 1.0)
    assert isinstance(conductor.next(), Task)


def test_a_run_that_is_tried_again_counts_when_it_scores(open_study):
    """Not when it first failed: that would be long ago."""
    changes = {**ENDLESS, "budget.until": {"no_improvement": 3}}
    first = open_study(changes)
    failed = first.next()
    first.ended(failed, Outcome(State.FAILED, "the disk is full", {BY_MACHINE: True}))
    for value in (10.0, 9.0):
        finish(first, first.next(), value)
    second = open_study(changes)
    again = second.next()
    assert again.asked.run_key == failed.asked.run_key
    for task, value in ((again, 5.0), (second.next(), 6.0), (second.next(), 7.0)):
        finish(second, task, value)
    third = open_study(changes)
    assert isinstance(third.next(), Task), "two runs since the best"
    finish(third, third.next(), 8.0)


def test_a_failure_is_no_improvement(open_study):
    conductor = open_study({**ENDLESS, "budget.until": {"no_improvement": 2}})
    finish(conductor, conductor.next(), 5.0)
    for _ in range(2):
        conductor.ended(conductor.next(), Outcome(State.DIVERGED, "NaN", {"epoch": 1}))
    assert conductor.next() is Signal.DONE


# --- giving up ----------------------------------------------------------------------------------------------------

RAISES = """
from diffsearch import registry

@registry.loss.register("raises-{name}", predicts="x0")
def raises(output, batch):
    raise RuntimeError("no kernel image is available")
"""


def test_a_study_gives_up_after_failures_in_a_row_and_tries_them_again(laboratory, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(RAISES.format(name=tmp_path.name))
    broken = {**ENDLESS, "training.loss": f"raises-{tmp_path.name}", "use": [str(file)]}
    changes = {**broken, "search.runs": 8, "search.give_up_after": 3}
    with pytest.raises(GaveUp) as caught:
        laboratory.run(changes)
    text = str(caught.value)
    assert text.startswith("tiny: 3 runs in a row ended badly, so the study stops here. What failed:")
    assert text.count("failed: RuntimeError: no kernel image is available") == 3
    assert f'File "{file}", line 6' in text and "the same command goes on and tries these again" in text
    assert len(text.splitlines()) < 24 and max(map(len, text.splitlines())) < 160
    first = {run.key for run in laboratory.history().runs}
    with pytest.raises(GaveUp):
        laboratory.run(changes)
    assert {run.key for run in laboratory.history().runs} == first, "the same three, not three more"
    laboratory.run({**changes, "search.runs": 4, "search.give_up_after": "off"})
    history = laboratory.history()
    assert [str(run.outcome.state) for run in history.runs] == ["failed"] * 4


def test_what_failed_without_a_row_is_tried_again_when_that_is_asked_for(open_study):
    changes = {**ENDLESS, "budget.images": 50 * IMAGES}
    conductor = open_study(changes)
    ends = [Outcome(State.FAILED, "no such node"), Outcome(State.DIVERGED, "NaN", {"epoch": 1})]
    failed, diverged = (conductor.next() for _ in ends)
    for task, end in zip((failed, diverged), ends, strict=True):
        conductor.ended(task, end)
    finish(conductor, conductor.next(), 5.0)
    try_again(conductor.ledger, conductor.requests.asks)
    again = open_study(changes)
    assert again.next().asked.run_key == failed.asked.run_key
    assert again.next().asked.run_key not in {failed.asked.run_key, diverged.asked.run_key}


def test_only_failures_of_this_session_without_a_good_run_between_them_are_a_row(open_study):
    conductor = open_study({**ENDLESS, "search.runs": 20, "search.give_up_after": 2})
    failed = Outcome(State.FAILED, "a bug")
    for end in (failed, Outcome(State.DIVERGED, "NaN", {"epoch": 1}), failed):
        conductor.ended(conductor.next(), end)
    finish(conductor, conductor.next(), 1.0)
    conductor.ended(conductor.next(), failed)
    assert conductor.gave_up is None and not conductor.halted
    killed, second = conductor.next(), conductor.next()
    for _ in range(MAX_KILLS - 1):
        conductor.ended(killed, Outcome(State.KILLED, "its worker died"))
        assert conductor.gave_up is None, "it is tried again, so that was no end"
        killed = conductor.next()
    conductor.ended(killed, Outcome(State.KILLED, "its worker died"))
    assert conductor.gave_up is not None and conductor.next() is Signal.WAIT, "another is under way"
    assert conductor.ledger.end_of(second.asked) is None
