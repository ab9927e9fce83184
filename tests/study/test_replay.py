"""A study on a recorded table: the same decisions as on real runs, at times and costs that are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffsearch.data.datasets import load as load_data
from diffsearch.errors import ConfigError, DataError
from diffsearch.records import State
from diffsearch.scoring.metrics import measure
from diffsearch.space.axes import member_at
from diffsearch.space.metric_names import parse
from diffsearch.study.recording import Recording, record
from diffsearch.study.replay import Replays, replay_all, study
from diffsearch.study.simulated import Costs
from diffsearch.study.traces import at, band, reached
from tests.study.tables import EPOCH_S, IMAGES, SAMPLING_S, SCORING_S, made_up

EVALUATION_S = SAMPLING_S + SCORING_S
SPACE = {
    "diffusion.steps": [2, 3, 4, 5],
    "training.loss": ["x0-l2", "v-l2", "epsilon-l2"],
    "training.epochs": [1, 3, 9],
    "sampling.ema": [0, 100],
}
LOSSES = {"x0-l2": 0.0, "v-l2": 0.3, "epsilon-l2": 1.2}


def falling(point, epoch, sampling, seed):
    """Better with more epochs; x0-l2 at T = 4 is the best point, the average the better track."""
    worse = LOSSES[point["training.loss"]] + abs(point["diffusion.steps"] - 4) / 3
    return 100 * math.exp(worse - 0.5 * math.log(epoch)) + (sampling.ema == 0) + seed / 10


@pytest.fixture
def table(laboratory):
    return made_up(laboratory.spec(SPACE), falling)


def replays(table, *overrides, workers=1, **costs):
    return Replays(table, study(table, overrides), workers, Costs(**{"overhead_s": 0.0, **costs}))


# --- the same as a real study ---------------------------------------------------------------------------------------


def test_a_replay_decides_as_the_study_that_it_was_recorded_from(laboratory):
    """Points, their order, the scores that the search is told and the runs that are stopped: all as they were."""
    space = {"training.loss": "x0-l2", "diffusion.steps": [2, 3], "training.batch_size": [50, 100]}
    rule = {"search.stopping": {"name": "median", "minimum": 1}}
    spec = laboratory.spec({**space, **rule, "search.algorithm": "tpe", "name": "searched"})
    real = laboratory.run(spec).folder.history().runs
    laboratory.run(space)  # the rest of the grid
    data = load_data(member_at(spec.fixed, "data"))
    table = record(spec, laboratory.store, data, {"fd-digits": measure(parse("fd-digits"))}, "")
    simulation, conductor = Replays(table, study(table)).begin(seed=0)
    simulation.run(conductor)
    ends = [(asked.point, conductor.ledger.end_of(asked).state) for asked in conductor.ledger.asked]
    assert ends == [(run.point, run.outcome.state) for run in real]
    assert State.STOPPED_EARLY in [state for _, state in ends], "the rule stopped nothing: choose other settings"
    told = [trial.scores for trial in conductor.proposals.journal.trials()]
    curves = [{sheet.epoch: sheet.scores["fd-digits"].value for sheet in run.evaluations} for run in real]
    assert [scores for number, scores in enumerate(told) if scores not in told[:number]] == curves
    seconds = sum(epoch.wall_s for run in real for epoch in run.epochs)
    assert simulation.trace[-1].worker_s > seconds and simulation.trace[-1].epochs == sum(
        len(run.epochs) for run in real
    )


def test_a_table_is_the_same_after_it_was_written(table, tmp_path):
    table.write(tmp_path / "table.parquet")
    again = Recording.read(tmp_path / "table.parquet")
    assert again.facts == table.facts and again.runs == table.runs
    trace = replays(table, "search.algorithm=random").run(3)
    assert replays(again, "search.algorithm=random").run(3) == trace
    [other] = replay_all(replays(again, "search.algorithm=random"), tmp_path / "table.parquet", [3], jobs=1)
    assert other == trace


# --- time and cost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 5, 1000])
def test_workers_share_the_runs(table, workers):
    """12 runs of the same length, a tenth of a second before each: as many rounds as it takes."""
    run_s = 0.1 + 9 * EPOCH_S + 6 * EVALUATION_S
    end = replays(table, "search.algorithm=random", workers=workers, overhead_s=0.1).run(0)[-1]
    assert end.simulated_s == pytest.approx(math.ceil(12 / workers) * run_s)
    assert end.worker_s == pytest.approx(12 * run_s)
    assert (end.runs, end.epochs, end.images, end.evaluations, end.network_calls) == (
        12,
        108,
        108 * IMAGES,
        72,
        72 * 40,
    )


def test_without_keys_each_evaluation_trains_from_the_start_and_finds_the_same(table):
    """1, 3 and 9 epochs for each of two sampling points; what is found, and in which order, doesn't change."""
    kept, alone = (replays(table, "search.algorithm=random", reuse=reuse).run(0) for reuse in ("keys", "none"))
    assert alone[-1].worker_s == pytest.approx(12 * (2 * (1 + 3 + 9) * EPOCH_S + 6 * EVALUATION_S))
    assert (alone[-1].epochs, kept[-1].epochs) == (12 * 26, 12 * 9)
    assert [moment.best for moment in alone] == [moment.best for moment in kept]


@pytest.mark.parametrize(
    "algorithm, stopping",
    [
        ("random", "none"),
        ("random", "asha"),
        ("grid", "curves"),
        ("{name: sequential, start: {training.epochs: 3}}", "none"),
    ],
)
@pytest.mark.parametrize("until", [3, 5])
def test_a_replay_with_keys_tells_what_it_would_cost_without(laboratory, algorithm, stopping, until):
    """Of one worker, whatever diverges: the same moments, each at the time that it comes to without keys."""
    diverging = made_up(
        laboratory.spec(SPACE), falling, diverges=lambda point: until if point["diffusion.steps"] == 2 else 0
    )
    told = (f"search.algorithm={algorithm}", f"search.stopping={stopping}")
    kept, alone = (replays(diverging, *told, reuse=reuse).run(0) for reuse in ("keys", "none"))
    assert [m.alone_s for m in kept] == pytest.approx([m.worker_s for m in alone])
    assert [m.best for m in kept] == [m.best for m in alone] and kept[-1].worker_s < alone[-1].worker_s


def test_a_sweep_at_the_last_milestone_is_scored_there_alone(table):
    """Two sampling points at epoch 9, one at epochs 1 and 3."""
    last = replays(table, "search.algorithm=random", "sampling.at=last").run(0)[-1]
    assert last.evaluations == 12 * (1 + 1 + 2) and last.epochs == 12 * 9


def test_what_a_search_asks_for_twice_costs_nothing_the_second_time(table):
    """Coordinate search asks each winner again beside the values of the next axis, and then for its epochs."""
    algorithm = "search.algorithm={name: sequential, start: {training.epochs: 3}}"
    kept, alone = (replays(table, algorithm, reuse=reuse).run(0)[-1] for reuse in ("keys", "none"))
    assert kept.epochs == (4 + 2) * 3 + 6, "values of both axes to epoch 3, the best of them to epoch 9"
    assert alone.epochs == (4 + 2) * 2 * (1 + 3) + 2 * (1 + 3 + 9)
    assert (
        kept.best == alone.best == pytest.approx(falling({"training.loss": "x0-l2", "diffusion.steps": 4}, 9, _Ema, 0))
    )


class _Ema:
    ema = 100


@pytest.mark.parametrize("rule", ["asha", "{name: median, minimum: 2}", "{name: curves, minimum: 3}"])
def test_a_rule_stops_runs_and_saves_their_epochs(table, rule):
    whole, halved = (replays(table, f"search.stopping={rule}").run(0)[-1] for rule in ("none", rule))
    assert halved.epochs < whole.epochs / 1.2 and halved.runs == whole.runs and halved.best == whole.best


def test_a_budget_of_wall_time_is_simulated_time(table):
    """The search asks for nothing new once it is spent; a run that began before is finished."""
    run_s = 9 * EPOCH_S + 6 * EVALUATION_S
    end = replays(table, "search.algorithm=random", f"budget.wall={2.5 * run_s}s").run(0)[-1]
    assert (end.runs, end.simulated_s) == (3, pytest.approx(3 * run_s))


def test_a_run_that_diverged_when_it_was_recorded_diverges_again(laboratory):
    """It costs the epochs until then, keeps no score, and nothing is ranked by what it had scored."""
    spec = laboratory.spec({**SPACE, "training.loss": "x0-l2"})
    table = made_up(spec, lambda *_: 1.0, diverges=lambda point: 3 if point["diffusion.steps"] == 2 else 0)
    simulation, conductor = replays(table, "search.algorithm=grid").begin(0)
    end = simulation.run(conductor)[-1]
    assert end.epochs == 3 * 9 + 2 and end.evaluations == 3 * 6 + 2
    states = [conductor.ledger.end_of(asked).state for asked in conductor.ledger.asked]
    assert sorted(states) == [State.DIVERGED, *[State.FINISHED] * 3]
    assert [trial.scores is None for trial in conductor.proposals.journal.trials()].count(True) == 1


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_each_replay_draws_a_recorded_seed_for_each_point(laboratory):
    table = made_up(laboratory.spec(SPACE), falling, seeds=2)
    drawn = {}
    for seed in range(6):
        simulation, conductor = replays(table, "search.algorithm=random").begin(seed)
        simulation.run(conductor)
        for asked in conductor.ledger.asked:
            drawn.setdefault(str(asked.point), []).append(simulation.source.run(asked).seed)
    shares = [np.mean(seeds) for seeds in drawn.values()]
    assert len(shares) == 12 and 0.25 < np.mean(shares) < 0.75 and max(shares) > min(shares)


def test_the_truth_of_a_score_is_its_mean_over_the_recorded_seeds(laboratory):
    table = made_up(laboratory.spec(SPACE), falling, seeds=3)
    end = replays(table, "search.algorithm=grid").run(0)[-1]
    best = {"training.loss": "x0-l2", "diffusion.steps": 4}
    assert end.truth == pytest.approx(falling(best, 9, _Ema, 1))
    assert end.best in [pytest.approx(falling(best, 9, _Ema, seed)) for seed in range(3)]


def test_repeats_are_different_recorded_seeds(laboratory):
    table = made_up(laboratory.spec(SPACE), falling, seeds=2)
    simulation, conductor = replays(table, "search.algorithm=random", "search.runs=3", "repeats=2").begin(5)
    simulation.run(conductor)
    assert [simulation.source.run(asked).seed for asked in conductor.ledger.asked].count(0) == 3
    assert len(conductor.ledger.asked) == 6
    with pytest.raises(DataError, match="2 of 3 seeds"):
        replays(table, "repeats=3")


# --- what was recorded ----------------------------------------------------------------------------------------------


def test_the_space_is_what_was_recorded_whole(table):
    """One value of an axis was begun only: the others are searched, and every combination of them is there."""
    frame = table.frame
    part = frame[(frame["diffusion.steps"] != 5) | (frame["training.loss"] == "v-l2")]
    assert replays(Recording(part, table.facts)).points == 9
    unfinished = frame[(frame["epoch"] < 9) | (frame["training.loss"] != "v-l2")]
    assert replays(Recording(unfinished, table.facts)).points == 8
    assert replays(Recording(unfinished, table.facts), "training.epochs=[1, 3]").points == 12


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs=[1, 4]", "nothing at epoch 4"),
        ("training.learning_rate=1e-5", "0 of 1 seeds"),
        ("evaluation.metrics=[fd-digits, kd-digits]", "no kd-digits"),
        ("search.stopping=HyperBandScheduler", "needs Ray"),
        ("training.learning_rate={log: [1e-4, 1e-3]}", "this is a range"),
    ],
)
def test_what_the_table_lacks_is_refused(table, override, said):
    with pytest.raises((ConfigError, DataError), match=said):
        study(table, [override])


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DataError, match="not a recorded table"):
        Recording.read(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not a recorded table"):
        Recording.read(tmp_path / "absent.parquet")


# --- several traces -------------------------------------------------------------------------------------------------


def test_a_band_holds_the_interquartile_mean_of_the_seeds():
    values = np.random.default_rng(0).normal(size=(40, 2))
    middle = np.sort(values, axis=0)[10:30].mean(axis=0)
    found = band(values)
    assert found.iqm == pytest.approx(middle)
    assert (found.low < middle).all() and (found.high > middle).all()
    spread = 1.96 * math.sqrt(1.2 / 40)  # of a 25 % trimmed mean of normal values: variance 1.2 / n
    assert (found.high - found.low) / 2 == pytest.approx([spread, spread], rel=0.35)


def test_traces_are_steps(table):
    traces = [replays(table, "search.algorithm=random").run(seed) for seed in range(4)]
    first = EPOCH_S + EVALUATION_S
    values = at(traces, np.asarray([first - 0.1, first, 1e9]))
    assert np.isnan(values[:, 0]).all() and np.isfinite(values[:, 1]).all()
    assert set(values[:, 2]) == {traces[0][-1].best}
    assert np.isnan(band(values).iqm[0]) and band(values).low[2] == band(values).high[2]
    assert reached(traces[0], traces[0][-1].best, 1.0) <= traces[0][-1].worker_s
    assert reached(traces[0], 0.0, 1.0) == math.inf
