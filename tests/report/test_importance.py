"""How sure importances are: bootstraps of the runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from diffsearch.records import RunHistory, StudyHistory
from diffsearch.report.figures import importance_bars
from diffsearch.report.importance import Importances, _around, importances
from tests.report.conftest import make_history


def scored(history: StudyHistory, score) -> StudyHistory:
    def change(run: RunHistory) -> RunHistory:
        sheets = tuple(
            dataclasses.replace(s, scores={"fd-digits": dataclasses.replace(s.scores["fd-digits"], value=score(run))})
            for s in run.evaluations
        )
        return dataclasses.replace(run, evaluations=sheets)

    return dataclasses.replace(history, runs=tuple(map(change, history.runs)))


@pytest.fixture(scope="module")
def clear() -> tuple[StudyHistory, Importances]:
    """One axis decides, others add a little."""
    history = make_history(count=24, finalists=False, stopping=False, diverged=False)
    axes = ("training.batch_size", "model.channels", "diffusion.steps")
    history = dataclasses.replace(history, axes=axes)
    noise = np.random.default_rng(0)
    history = scored(history, lambda run: run.point["training.batch_size"] ** 2 * float(np.exp(0.05 * noise.normal())))
    return history, importances(history)


def test_each_share_lies_in_its_interval(clear):
    _, found = clear
    for path, share in found.shares:
        low, high = found.intervals[path]
        assert 0 <= low <= share <= high <= 1


def test_an_axis_that_decides_leads_and_its_interval_is_narrow(clear):
    history, found = clear
    assert found.shares[0][0] == "training.batch_size" and found.unranked == ()
    low, high = found.intervals["training.batch_size"]
    assert low > 0.8 and high - low < 0.25
    figure = importance_bars(history, found)
    assert figure is not None and f"({100 * low:.0f} to {100 * high:.0f})" in figure.alt
    assert "80 % of bootstraps" in figure.caption


def test_two_axes_of_equal_effect_can_not_be_ranked():
    history = make_history(count=24, finalists=False, stopping=False, diverged=False, seed=3)
    history = dataclasses.replace(history, axes=("model.channels", "training.normalization"))
    noise = np.random.default_rng(0)
    equal = scored(
        history,
        lambda run: (
            1
            + (run.point["model.channels"] == (8, 16, 32))
            + (run.point["training.normalization"] == (0.0, 1.0))
            + 0.3 * float(noise.normal()) ** 2
        ),
    )
    found = importances(equal)
    assert set(found.unranked) == {"model.channels", "training.normalization"}
    (turned,) = found.turned.values()
    assert 0.1 < turned < 0.9


def test_bootstraps_lie_around_the_share_that_they_are_of():
    """By themselves they tend towards equal shares, as a study of fewer different runs does."""
    found = _around({"a": 0.7, "b": 0.3}, [{"a": 0.5, "b": 0.5}, {"a": 0.6, "b": 0.4}, {"a": 0.7, "b": 0.3}])
    assert found["a"] == pytest.approx([0.6, 0.7, 0.8]) and found["b"] == pytest.approx([0.4, 0.3, 0.2])
