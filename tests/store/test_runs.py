"""Run folders and the store's own questions."""

from __future__ import annotations

import pytest

from diffsearch.errors import StoreError
from diffsearch.records import EpochRecord, Evaluation, Outcome, Score, State
from diffsearch.space.axes import points, sampling_points, settings_at
from diffsearch.store import Store


@pytest.fixture
def folder(tmp_path):
    return Store.open(tmp_path / "store").run("0123456789abcdef")


@pytest.fixture
def settings(laboratory):
    spec = laboratory.spec()
    return settings_at(spec, next(iter(points(spec.axes, spec.fixed))), 0)


@pytest.fixture
def evaluation(laboratory, settings):
    point = sampling_points(laboratory.spec(), settings)[0]
    scores = {"fd-digits": Score(12.5, 70, "hash")}
    return Evaluation("key", "0123456789abcdef", 2, point, 70, 0, scores, 140, 1.5, 0.25)


def test_a_run_never_begun_is_empty(folder):
    assert folder.header() == {} and folder.epochs() == () and folder.evaluations() == {} and folder.outcome() is None
    with pytest.raises(StoreError, match="no run 0123456789abcdef"):
        folder.settings()


def test_what_is_written_is_read(folder, settings, evaluation):
    epochs = tuple(EpochRecord(n, 1 / n, 200 * n, 10.0, 20.0, 300.0) for n in (1, 2))
    with folder.lease("me") as lease:
        folder.begin(lease, settings, "content", {"torch": "2"})
        for record in reversed(epochs):
            folder.add_epoch(lease, record)
        folder.add_evaluation(lease, evaluation)
        folder.set_outcome(lease, Outcome(State.DIVERGED, "NaN", {"epoch": 3}))
    assert folder.settings() == settings and folder.header()["environment"] == {"torch": "2"}
    assert folder.epochs() == epochs and folder.evaluations() == {"key": evaluation}
    assert folder.outcome() == Outcome(State.DIVERGED, "NaN", {"epoch": 3})


def test_the_header_is_written_once(folder, settings):
    with folder.lease("me") as lease:
        folder.begin(lease, settings, "content", {"torch": "2"})
        folder.begin(lease, settings, "content", {"torch": "3"})
    assert folder.header()["environment"] == {"torch": "2"}


def test_runs_are_found_by_the_beginning_of_their_key(tmp_path, settings):
    store = Store.open(tmp_path / "store")
    for key in ("abc0", "abd1"):
        with store.run(key).lease("me") as lease:
            store.run(key).begin(lease, settings, "content", {})
    store.run("abe2").path.mkdir()  # asked for, never begun
    assert store.keys() == ["abc0", "abd1"] and store.find("abc").key == "abc0"
    with pytest.raises(StoreError, match=r"2 runs in .+ begins with 'ab'"):
        store.find("ab")
    with pytest.raises(StoreError, match=r"no run in .+ begins with 'x'"):
        store.find("x")
