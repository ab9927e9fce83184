"""Where a sampling sweep is scored: at which milestones, in the search or for finalists alone, and what that costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffsearch.errors import ConfigError
from diffsearch.records import State
from diffsearch.study.identity import asks_hash
from diffsearch.study.ledger import Asked
from diffsearch.study.sweep import plan_sweep, settled
from diffsearch.trial import TrialRequest

SWEEP = {"sampling.ema": [0, 100], "training.loss": "x0-l2"}
FINALS = {"search.finalists": {"top": 1, "repeats": 1}}
EVERY = {(1, 0), (1, 100), (2, 0), (2, 100)}


def drawn(run):
    return {(sheet.epoch, sheet.sampling.ema) for sheet in run.evaluations}


@pytest.mark.parametrize(
    ("at", "of_search", "of_finalist"),
    [
        ("milestones", EVERY, 2),
        ("last", {(1, 0), (2, 0), (2, 100)}, 2),
        ("finalists", {(1, 0), (2, 0)}, 2),
    ],
)
def test_a_sweep_is_scored_where_the_file_says(laboratory, at, of_search, of_finalist):
    changes = {**SWEEP, **FINALS, "sampling.at": at}
    if at == "last":  # killed at its last milestone: handed out, epoch, batch, score, epoch; then a batch
        assert laboratory.run_and_die(changes, items=5)
    laboratory.run(changes)
    search, finalist = laboratory.history().runs
    assert drawn(search) == of_search and search.outcome.state is State.FINISHED
    assert {sheet.sampling.ema for sheet in finalist.evaluations} == {0, 100} and len(drawn(finalist)) == of_finalist
    laboratory.run(changes)
    assert laboratory.trained == laboratory.scored == [] and drawn(laboratory.history().runs[0]) == of_search


def test_finalists_draw_the_sweep_and_then_their_own(laboratory):
    own = {"top": 1, "repeats": 1, "sampling": {"sampler": "ddim", "ema": 0}}
    laboratory.run({**SWEEP, "sampling.at": "finalists", "search.finalists": own})
    *_, finalist = laboratory.history().runs
    assert [str(sheet.sampling) for sheet in finalist.evaluations] == [
        "ancestral, EMA off",
        "ancestral, EMA 100",
        "ddim, EMA off",
    ]


def test_finalists_are_scored_anew_when_they_are_asked_otherwise(laboratory):
    """On more samples, or at other sampling points: on the checkpoints that are there, and shown as they are now."""
    finals = {"top": 1, "repeats": 1}
    laboratory.run({**SWEEP, "search.finalists": finals})
    for more, drawn_now, samples in (
        ({"samples": 80}, 2, 80),
        ({"samples": 80, "sampling": {"sampler": "ddim", "steps": 1, "ema": 0}}, 1, 80),
    ):
        laboratory.run({**SWEEP, "search.finalists": {**finals, **more}})
        *_, finalist = laboratory.history().runs
        assert laboratory.trained == [] and len(laboratory.scored) == len(finalist.evaluations) == drawn_now
        assert {sheet.samples for sheet in finalist.evaluations} == {samples}
    laboratory.run({**SWEEP, "search.finalists": {**finals, **more}})
    assert laboratory.trained == laboratory.scored == []


def test_a_stopped_run_is_not_swept_when_it_is_asked_for_again(laboratory):
    """Its last milestone is the file's, not the one at which it was stopped."""
    changes = {"sampling.ema": [0, 100], "sampling.at": "last", "seed": 1}
    rule = {"search.stopping": {"name": "median", "minimum": 1}}
    laboratory.run({**changes, **rule})
    stopped = [run for run in laboratory.history().runs if run.outcome.state is State.STOPPED_EARLY]
    assert stopped, "the rule stopped nothing: the test needs other settings"
    laboratory.run({**changes, **rule, "evaluation.metrics": ["fd-digits", "kd-digits"]})
    again = [run for run in laboratory.history().runs if run.outcome.state is State.STOPPED_EARLY]
    assert [drawn(run) for run in again] == [{(1, 0)}]


# --- what each choice costs -----------------------------------------------------------------------------------------


def test_calls_are_counted_by_hand(laboratory):
    """T = 2, 70 images; ddim in 1 step beside all 2 steps: 140 calls of the base point, 70 of the other."""
    spec = laboratory.spec({"sampling.sampler": "ddim", "sampling.steps": [2, 1], **FINALS})
    sweep = plan_sweep(spec, train_images=200)
    assert sweep.training_calls == 3 * 200 * 2
    assert {at: calls.run for at, calls in sweep.calls.items()} == {
        "milestones": (210, 210),
        "last": (140, 210),
        "finalists": (140, 140),
    }
    assert {at: calls.finalist for at, calls in sweep.calls.items()} == dict.fromkeys(sweep.calls, 210)


def test_guidance_takes_two_calls_a_step(laboratory):
    spec = laboratory.spec({"training.conditioning": "class", "sampling.guidance_weight": [0, 1, -1]})
    assert plan_sweep(spec, 200).calls["milestones"].run == (70 * 2 * 4, 70 * 2 * 4)


@pytest.mark.parametrize(("images", "at"), [(24, "milestones"), (23, "last"), (12, "last"), (11, "finalists")])
def test_auto_takes_the_first_that_costs_no_more_than_training(laboratory, images, at):
    """Beyond the base point's: 2 × 70 calls at both milestones, 70 at the last. An epoch of n images: 3 n calls."""
    spec = laboratory.spec({"sampling.sampler": "ddim", "sampling.steps": [2, 1], "sampling.at": "auto", **FINALS})
    assert plan_sweep(spec, images).at == at
    assert settled(spec, images) == replace(spec, sampling_at=at)


def test_auto_takes_the_cheapest_that_there_is_where_none_is_cheap(laboratory):
    changes = {"sampling.sampler": "ddim", "sampling.steps": [2, 1], "sampling.at": "auto"}
    assert plan_sweep(laboratory.spec(changes), 1).at == "last"
    assert plan_sweep(laboratory.spec({**changes, "search.algorithm": "sequential"}), 1).at == "milestones"


def test_auto_leaves_a_front_its_sweep(laboratory):
    changes = {"sampling.sampler": "ddim", "sampling.steps": [2, 1], "sampling.at": "auto", **FINALS}
    several = {"evaluation.objective": None, "evaluation.objectives": ["fd-digits", "network_calls"]}
    assert plan_sweep(laboratory.spec(changes), 1).at == "finalists"
    assert plan_sweep(laboratory.spec({**changes, **several}), 1).at == "last"


def test_a_screen_makes_a_sweep_cheap(laboratory):
    changes = {"sampling.sampler": "ddim", "sampling.steps": [2, 1], "sampling.at": "auto", **FINALS}
    screen = {"evaluation.screen": {"objective": "kd-digits", "samples": 60}}
    assert plan_sweep(laboratory.spec({**changes, **screen}), 20).at == "milestones"
    assert plan_sweep(laboratory.spec(changes), 20).at == "last"


# --- keys and files -------------------------------------------------------------------------------------------------


def test_what_older_studies_did_asks_the_same_and_travels_the_same(laboratory):
    spec = laboratory.spec(SWEEP)
    assert asks_hash(laboratory.spec({**SWEEP, "sampling.at": "milestones"}), "x") == asks_hash(spec, "x")
    assert asks_hash(laboratory.spec({**SWEEP, "sampling.at": "last"}), "x") != asks_hash(spec, "x")
    laboratory.run(SWEEP)
    assert '"only"' not in (laboratory.store.study("tiny") / "ledger.jsonl").read_text()


def test_requests_and_what_was_asked_come_back_from_json_as_they_were(laboratory):
    spec = laboratory.spec({**SWEEP, "sampling.at": "last"})
    laboratory.run(spec)
    from diffsearch.study.history import StudyFolder

    [asked] = StudyFolder.open(laboratory.store, "tiny").asked()
    assert asked.only == ((1, 0), (2, 0), (2, 1)) and Asked.from_json(asked.to_json()) == asked
    request = TrialRequest(
        asked.run_key, asked.settings, asked.milestones, asked.points, ("fd-digits",), 70, 0, laboratory.store.root,
        "session", only=asked.only,
    )  # fmt: skip
    assert TrialRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling.at": "first"}, "unknown value 'first'"),
        ({"sampling.at": ["last", "milestones"]}, "takes one value"),
        ({"sampling.at": "finalists"}, "finalists are to be swept, but the study has none"),
        (
            {
                "sampling.at": "finalists",
                "search.finalists": {"top": 1},
                "evaluation.objective": None,
                "evaluation.objectives": ["fd-digits", "network_calls"],
            },
            "a front is made of the search's evaluations",
        ),
        ({"sampling.at": "last", "search.algorithm": "sequential"}, "compares a run's milestones with one another"),
        ({"search.finalists": {"top": 1, "sampling": {"at": "last"}}}, "no such key"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_the_file_is_loaded(laboratory, changes, says):
    with pytest.raises(ConfigError, match=says):
        laboratory.spec({**SWEEP, **changes})
