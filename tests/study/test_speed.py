"""How fast runs are here: remembered, timed, and carried over to those that were neither."""

from __future__ import annotations

import itertools
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from diffsearch.data.datasets import load as load_data
from diffsearch.space.axes import grid, member_at, settings_at
from diffsearch.space.settings import Choice
from diffsearch.store import Store
from diffsearch.study import timing
from diffsearch.study.speed import NOMINAL, Rates, Speeds, fit, remember, sort_of

CHANNELS = {"model.channels": [[4], [8], [16], [32]], "training.batch_size": [25, 100]}


@pytest.fixture
def space(laboratory):
    spec = laboratory.spec({**CHANNELS, "training.loss": "x0-l2"})
    return [settings_at(spec, point, 0) for point in grid(spec)]


def cost(speeds, settings):
    """Seconds of a step that follow from the shapes, and of a call."""
    step, call = speeds._step_features(settings), speeds._call_features(settings)
    return Rates(float(step @ [2e-3, 1e-4, 5e-2, 1e-3]) / settings.training.batch_size, float(call @ [1e-3, 0.02, 0.1]))


def test_a_few_points_carry_over_to_a_whole_space(space):
    """The seconds are a sum of the features with coefficients ≥ 0, so that least squares must find them."""
    speeds = Speeds((1, 28, 28), 10)
    assert speeds.rates(space[0]) == NOMINAL
    probes = speeds.spread(space, 5)
    assert len(probes) == 5 and sort_of(space[0]) in map(sort_of, probes), "the cheapest is among them"
    for probe in probes:
        speeds.known[sort_of(probe)] = probe, cost(speeds, probe)
    for settings in space:
        wanted, found = cost(speeds, settings), speeds.rates(settings)
        assert found.s_per_image == pytest.approx(wanted.s_per_image, rel=0.02)
        assert found.s_per_call == pytest.approx(wanted.s_per_call, rel=0.02)
    assert len(speeds.spread(space, 50)) == len(space) - 5, "what is known isn't timed again"


def test_a_fit_has_no_negative_costs_and_needs_three_rows():
    rng = np.random.default_rng(0)
    rows = [(rng.uniform(0.1, 1, 3), float(seconds)) for seconds in rng.uniform(1, 2, 8)]
    assert (fit(rows) >= 0).all()
    assert fit([(np.array([1.0, 5.0]), 10.0)]) @ [1.0, 10.0] == pytest.approx(20.0)


def test_what_speed_depends_on(space):
    one = space[0]
    alike = replace(one, steps=9, seed=5, noise_process=Choice.of("cosine"))
    alike = replace(alike, training=replace(one.training, loss="v-l2", learning_rate=0.1))
    assert sort_of(alike) == sort_of(one) and len({sort_of(each) for each in space}) == len(space)


def test_scoring_time_lies_on_lines_between_what_was_measured():
    speeds = Speeds((1, 28, 28), 10, scoring={("fd-digits",): {100: 1.0, 300: 2.0}})
    assert [speeds.scoring_s(["fd-digits"], n) for n in (50, 200, 300, 600)] == [1.0, 1.5, 2.0, 4.0]
    assert Speeds((1, 28, 28), 10).scoring_s(["fd-digits"], 50) == 0.0


def test_the_store_is_asked_before_anything_is_timed(laboratory, monkeypatch):
    monkeypatch.setattr("diffsearch.study.speed.LEAST_REMEMBERED_S", 0.0)
    changes = {"training.loss": "x0-l2", "training.epochs": [1]}
    laboratory.run(changes)
    [run] = laboratory.history().runs
    spec = laboratory.spec({**changes, "training.loss": "v-l2", "diffusion.steps": 3})
    speeds, settings = Speeds((1, 28, 28), 10), [settings_at(spec, {}, 7)]
    remember(speeds, laboratory.store, settings, [spec.evaluation.metrics])
    [epoch], [sheet] = run.epochs, run.evaluations
    calls = sheet.network_calls / 70 * 250  # a batch is computed in full, and 70 of its images are kept
    expected = Rates(epoch.wall_s / 200, pytest.approx(sheet.sampling_s / calls))
    assert speeds.rates(settings[0]) == expected and speeds.scoring_s(spec.evaluation.metrics, 70) == sheet.scoring_s
    assert speeds.spread(settings, 5) == []
    other = Speeds((1, 28, 28), 10)
    monkeypatch.setattr("diffsearch.study.speed.device_name", lambda: "another")
    remember(other, laboratory.store, settings, [spec.evaluation.metrics])
    assert not other.known and not other.scoring, "of another machine"


def test_probes_are_timed_beside_as_many_others_as_there_will_be(laboratory, monkeypatch):
    monkeypatch.setattr(timing, "TIMED_S", 0.01)
    spec = laboratory.spec({"training.loss": "x0-l2", "training.learning_rate": 1e30, "training.schedule": "cosine"})
    data, speeds, settings = load_data(member_at(spec.fixed, "data")), Speeds((1, 28, 28), 10), settings_at(spec, {}, 0)
    seen = itertools.count()
    time = timing._time

    def watched(*given):
        assert len(multiprocessing.active_children()) == min(3, len(timing.os.sched_getaffinity(0))) - 1
        next(seen)
        return time(*given)

    monkeypatch.setattr(timing, "_time", watched)
    timing.measure(speeds, [settings], data, 3)
    assert next(seen) == 1 and not multiprocessing.active_children()
    rates = speeds.rates(settings)
    assert 0 < rates.s_per_call < rates.s_per_image < 1


def test_scoring_is_timed_without_sampling(laboratory, tmp_path):
    spec = laboratory.spec({})
    data = load_data(member_at(spec.fixed, "data"))
    took = timing.measure_scoring(["fd-digits", "kd-digits"], 70, data, Store.open(tmp_path))
    assert 0 < took < 30
