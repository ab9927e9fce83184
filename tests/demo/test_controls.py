"""What the page offers of a run, and that what can't be drawn is refused in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffsearch.demo import controls, markup
from diffsearch.demo.controls import Said
from diffsearch.demo.drawing import EACH, NONE, SHARES
from diffsearch.demo.networks import Networks
from diffsearch.errors import DiffsearchError, StoreError
from diffsearch.space.settings import Choice, SamplingPoint
from tests.demo.conftest import LOST, of_loss
from tests.laboratory import Laboratory


def said(networks: Networks, loss: str = "x0-l2") -> Said:
    """The controls as they stand when a run is chosen."""
    run = of_loss(networks, loss)
    offered = controls.offered(networks, run)
    return Said(
        run.key, *(offered[name]["value"] for name in ("epoch", "ema", "sampler", "steps", "label", "weight")), 3
    )


def test_a_run_is_offered_as_it_scored(networks: Networks) -> None:
    offered = controls.offered(networks, of_loss(networks, "x0-l2"))
    assert offered["epoch"] == {"choices": (1,), "value": 1}
    assert offered["ema"] == {"choices": [("raw", 0), ("100", 100)], "value": 0}
    assert offered["steps"] == {"maximum": 4, "value": 4}
    assert offered["sampler"]["value"] == "ancestral" and {"ddim", "heun"} <= set(offered["sampler"]["choices"])
    assert not offered["label"]["visible"] and not offered["weight"]["visible"]
    asked = controls.read(networks, said(networks), 8)
    assert asked.scored is not None and asked.wish.point == SamplingPoint(Choice("ancestral"), None, 0)
    assert "70 samples, extractor" in markup.score_of(asked.scored)


def test_classes_are_offered_of_a_network_that_takes_them(networks: Networks) -> None:
    offered = controls.offered(networks, of_loss(networks, "mu-tilde-l2"))
    assert offered["label"]["choices"] == [SHARES, EACH, *"0123456789", NONE] and offered["label"]["visible"]
    asked = controls.read(networks, said(networks, "mu-tilde-l2"), 8)
    assert asked.scored is not None
    seven = controls.read(networks, replace(said(networks, "mu-tilde-l2"), label="7", weight=1.5), 8)
    assert seven.scored is None and seven.wish.label == "7" and seven.wish.point.guidance == 1.5
    with pytest.raises(DiffsearchError, match=r"guidance of weight 1.5.*no classes to guide to"):
        controls.read(networks, replace(said(networks), weight=1.5), 8)


def test_what_was_not_scored_so_is_said_to_be_not(networks: Networks) -> None:
    asked = controls.read(networks, replace(said(networks), sampler="ddim:eta=0.5", steps=2), 8)
    assert asked.wish.point == SamplingPoint(Choice.of("ddim", eta=0.5), 2, 0)
    assert asked.scored is None and "Not scored so" in markup.score_of(asked.scored)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sampler": "ddmi"}, "Did you mean 'ddim'"),
        ({"sampler": "ddim:ta=1"}, "Did you mean 'eta'"),
        ({"sampler": "ddim:eta=x"}, "eta should be a number"),
        ({"sampler": ""}, "unknown sampler"),
        ({"epoch": 7}, r"no checkpoint of epoch 7\. Kept: 1"),
        ({"ema": 5}, "5"),
        ({"seed": None}, "give a seed"),
        ({"steps": None}, "give the number of steps"),
        ({"run": "nosuch"}, "no run nosuch"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(networks: Networks, wrong: dict[str, object], told: str) -> None:
    with pytest.raises(DiffsearchError, match=told):
        controls.read(networks, replace(said(networks), **wrong), 8)  # type: ignore[arg-type]


def test_a_run_without_a_checkpoint_says_so_everywhere(networks: Networks) -> None:
    run = of_loss(networks, LOST)
    asked = said(networks, LOST)
    assert asked.epoch is None and markup.run_label(networks, run).endswith("no checkpoint kept")
    assert "checkpoints kept, by epochs: none" in markup.card(networks, run)
    with pytest.raises(DiffsearchError, match="keeps no checkpoint"):
        controls.read(networks, asked, 8)


def test_another_run_takes_all_its_steps_where_the_first_takes_all(networks: Networks) -> None:
    other = of_loss(networks, "mu-tilde-l2")
    asked = controls.read(networks, said(networks), 8)
    beside = controls.beside(networks, asked, other.key, 1)
    assert beside.wish == asked.wish and beside.run is other
    ddim = controls.read(networks, replace(said(networks), sampler="ddim", steps=3), 8)
    assert controls.beside(networks, ddim, other.key, 1).wish.point.steps == 3


def test_runs_stand_in_the_order_of_their_scores(networks: Networks) -> None:
    best = [networks.best(run) for run in networks.runs]
    values = [sheet.scores["fd-digits"].value for sheet in best if sheet is not None]
    assert len(values) == 3 and values == sorted(values)
    page = markup.scores(networks)
    places = [page.index(run.key[:6]) for run in networks.runs]
    assert places == sorted(places)


def test_a_study_that_is_not_there_is_named_with_those_that_are(laboratory: Laboratory) -> None:
    with pytest.raises(StoreError, match=r"no study 'tony'.*Studies there: tiny"):
        Networks(laboratory.store, "tony")


def test_words_of_a_study_are_no_markup() -> None:
    assert "<script>" not in markup.wrong("<script>alert(1)</script>") and "&lt;script" in markup.told("<script>")


def test_a_page_begins_with_what_can_be_drawn(networks: Networks) -> None:
    best, second = networks.drawable(2)
    kept = networks.store.run(best.key).checkpoint(1)
    hidden = kept.rename(kept.with_suffix(".hidden"))
    try:
        assert networks.drawable(1) == [second]
    finally:
        hidden.rename(kept)
    assert len({run.key for run in networks.drawable(5)}) == 3
