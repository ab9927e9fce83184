"""What the benchmark of intervals and winners draws from, and that it judges by the very functions that reports use."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.honesty import pairs, shapes, winners
from diffsearch.scoring.statistics import judge


@pytest.fixture(scope="module")
def measured() -> list[shapes.Repeats]:
    return shapes.repeats()


def test_the_repeats_are_those_of_the_committed_reports(measured: list[shapes.Repeats]) -> None:
    [found] = [
        each
        for each in measured
        if each.report == "mnist_unet" and each.sampling == "ancestral, EMA 2k" and "x0-l2" in each.place
    ]
    assert found.place[0] == "finalist" and found.scores == pytest.approx((32.747, 32.867, 35.226), abs=2e-3)
    assert all(len(each.scores) > 1 for each in measured)


@pytest.mark.parametrize("family", shapes.FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("s", [0.1, 0.37])
def test_the_median_and_the_mean_of_a_family_are_those_of_its_draws(family: shapes.Family, s: float) -> None:
    drawn = family.draw(np.random.default_rng(0), s, (200_000,))
    assert np.mean(drawn < family.median(s)) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(drawn.size))
    assert drawn.mean() == pytest.approx(family.mean(s), abs=4 * drawn.std() / np.sqrt(drawn.size))


def test_the_fit_finds_the_scatter_that_was_drawn() -> None:
    rng, truth = np.random.default_rng(0), shapes.Scatter(0.02, 4.0, 0)
    scatter = np.sqrt(truth.squared * truth.freedom / rng.chisquare(truth.freedom, 3000))
    drawn = [shapes.Repeats("", "fd-digits", (), "", tuple(np.exp(s * rng.normal(size=4)))) for s in scatter]
    found = shapes.fit(drawn)
    assert found.squared == pytest.approx(truth.squared, rel=0.1) and found.freedom == pytest.approx(4, rel=0.2)
    assert np.mean(scatter < truth.quantile(0.9)) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("k", [2, 4])
def test_the_simulation_judges_as_reports_do(k: int) -> None:
    """Study by study; and its comparators are scipy's own, where they are there to compare with."""
    drawn = np.exp(np.random.default_rng(k).normal(size=(40, k, 4)) + np.linspace(0, 4, k)[:, None])
    claims = winners._claims(drawn)
    assert any(claims[winners.OURS].any(axis=-1)) and not all(claims[winners.OURS].any(axis=-1))
    for study, *told in zip(drawn, *(claims[method] for method in winners.METHODS), strict=True):
        said = dict(zip(winners.METHODS, told, strict=True))
        verdict = judge(study.tolist(), "min", "log")
        assert said[winners.OURS].tolist() == [p < 0.05 for p in verdict.p]
        for method, equal_var in ((winners.GAMES_HOWELL, False), (winners.TUKEY, True)):
            p = stats.tukey_hsd(*np.log(study), equal_var=equal_var).pvalue[verdict.first]
            clear = np.abs(p - 0.05) > 0.005  # the quantile is interpolated
            assert (said[method] == (p < 0.05))[clear].all()


def test_pairs_of_one_network_are_narrower_and_those_of_two_are_not() -> None:
    rng = np.random.default_rng(0)
    network = np.exp(0.2 * rng.normal(size=5))

    def repeats(place: str, sampling: str, scores: np.ndarray) -> shapes.Repeats:
        return shapes.Repeats("r", "fd-digits", ("search", place, "1", "100"), sampling, tuple(scores.tolist()))

    same = [repeats("a", point, network * np.exp(0.01 * rng.normal(size=5))) for point in ("x", "y")]
    other = repeats("b", "x", np.exp(0.2 * rng.normal(size=5)))
    found = dict(pairs.rows([*same, other]))
    narrower = {what: float(said.split("paired intervals ")[1].split()[0]) for what, said in found.items()}
    assert narrower["all reports: sampling points of the same networks"] > 5
    assert narrower["r, fd-digits: configurations, same seeds and noise"] < 2
