"""Every search algorithm proposes valid points, and the same ones when it is taken up again."""

from __future__ import annotations

import inspect
import math

import optuna
import pytest

from diffsearch import registry
from diffsearch.errors import DiffsearchError
from diffsearch.search import samplers
from diffsearch.search.sequential import Proposal
from diffsearch.space.axes import grid_size, points
from diffsearch.space.settings import Axis, Choice, Choices, Integers, LogUniform, Uniform
from diffsearch.study.journal import SearchJournal

LISTS = (
    Axis("model.kind", Choices(("unet", Choice.of("conv", width=8), "dense"))),
    Axis("model.channels", Choices(((4,), (4, 8))), when=(("model.kind", ("unet",)),)),
    Axis("diffusion.steps", Choices((2, 3))),
)
RANGES = (
    *LISTS,
    Axis("training.learning_rate", LogUniform(1e-4, 1e-2)),
    Axis("training.weight_decay", Uniform(0.0, 0.1)),
    Axis("training.batch_size", Integers(8, 64), when=(("diffusion.steps", (3,)),)),
)
# Classes of optuna.samplers that need more than a study file can say, or a package that diffsearch doesn't need.
UNBUILDABLE = {
    "GridSampler": "needs a search space of its own: `grid` is it",
    "PartialFixedSampler": "needs another sampler",
}
ABSENT = {"CmaEsSampler": "cmaes", "GPSampler": "torch"}


def journal(folder, axes, algorithm, seed=0, name="study"):
    folder.mkdir(exist_ok=True)
    return SearchJournal(folder, name, axes, {}, algorithm, seed)


def is_valid(axes, point):
    inside = {
        Choices: lambda d, v: v in d.values,
        Integers: lambda d, v: isinstance(v, int) and d.low <= v <= d.high,
        LogUniform: lambda d, v: d.low <= v <= d.high,
        Uniform: lambda d, v: d.low <= v <= d.high,
    }
    exist = {axis.path for axis in axes if axis.exists(point)}
    return exist == set(point) and all(
        inside[type(axis.domain)](axis.domain, point[axis.path]) for axis in axes if axis.path in point
    )


@pytest.mark.parametrize("name", [n for n in registry.algorithm.names() if n != "sequential"])
def test_every_algorithm_of_ours_proposes_valid_points(tmp_path, name):
    axes = LISTS if registry.algorithm.member(name).traits["finite"] else RANGES
    asks = journal(tmp_path, axes, Choice.of(name))
    seen = []
    for number in range(16):
        if asks.is_exhausted():
            break
        trial = asks.ask()
        assert is_valid(axes, trial.proposal.point), trial
        seen.append(trial.proposal.identity)
        asks.tell(trial.number, {1: float(number % 5), 2: float(number % 3)}, stopped=number % 4 == 0)
    assert len(set(seen)) >= 8


@pytest.mark.parametrize("name", samplers.optuna_names())
def test_every_sampler_of_optuna_that_can_be_built_proposes_valid_points(tmp_path, name):
    if name in UNBUILDABLE:
        with pytest.raises(DiffsearchError, match=f"search.algorithm: {name}: "):
            samplers.build(Choice.of(name), 0, RANGES)
        return
    if name in ABSENT:
        pytest.importorskip(ABSENT[name])
    options = {"n_startup_trials": 2} if "n_startup_trials" in parameters(name) else {}
    if name == "NSGAIIISampler":
        options = {"population_size": 4}
    axes = LISTS if name == "BruteForceSampler" else RANGES  # it goes through a finite space
    asks = journal(tmp_path, axes, Choice.of(name, **options))
    for number in range(5):
        trial = asks.ask()
        assert is_valid(axes, trial.proposal.point), trial
        asks.tell(trial.number, None if number == 1 else {1: float(number)}, stopped=False)


def parameters(name):
    return inspect.signature(getattr(optuna.samplers, name)).parameters


def test_an_unknown_sampler_and_an_unknown_argument_are_refused_by_name():
    with pytest.raises(DiffsearchError, match=r"unknown 'TPESampeler'.+Did you mean 'TPESampler'"):
        samplers.build(Choice.of("TPESampeler"), 0, RANGES)
    with pytest.raises(DiffsearchError, match=r"TPESampler takes no 'startup'"):
        samplers.build(Choice.of("TPESampler", startup=3), 0, RANGES)


def test_a_grid_of_a_range_is_refused():
    with pytest.raises(DiffsearchError, match=r"training\.learning_rate is a range"):
        samplers.build(Choice.of("grid"), 0, RANGES)


@pytest.mark.parametrize("seed", range(5))
def test_a_grid_gives_out_every_point(tmp_path, seed):
    """Each trial's sampler is built anew: all of them must mean the same grid by a point's number."""
    asks = journal(tmp_path, LISTS, Choice.of("grid"), seed)
    found = set()
    while not asks.is_exhausted():
        trial = asks.ask()
        found.add(trial.proposal.identity)
        asks.tell(trial.number, {1: 1.0}, stopped=False)
    assert found == {Proposal(point).identity for point in points(LISTS, {})} and len(found) == 8


SHORT = {  # so that eight trials are enough to see the model at work
    "tpe": Choice.of("tpe", startup_trials=3),
    "gp": Choice.of("gp", startup_trials=5),
    "nsga2": Choice.of("nsga2", population_size=2),
}


@pytest.mark.parametrize("name", ["gp", "grid", "nsga2", "random", "tpe"])
@pytest.mark.parametrize("reopen", [0, 1, 4, 7])
def test_the_same_seed_proposes_the_same_points_also_after_a_kill(tmp_path, name, reopen):
    """Nothing of a sampler lives in memory: the journal, opened anew, goes on as if it had never been closed."""
    axes = LISTS if name == "grid" else RANGES
    choice = SHORT.get(name, Choice.of(name))
    if name == "gp" and reopen < 7:
        pytest.skip("each of its proposals takes a second: the last one, after its model began, is enough")

    def eight(folder, closed_at):
        asks, points = journal(folder, axes, choice, seed=3), []
        for number in range(8):
            if number == closed_at:
                asks = journal(folder, axes, choice, seed=3)
            trial = asks.ask()
            points.append(trial.proposal.identity)
            asks.tell(trial.number, {1: float(number % 3)}, stopped=False)
        return points

    whole = eight(tmp_path / "whole", None)
    assert eight(tmp_path / "again", reopen) == whole
    other = journal(tmp_path / "other", axes, choice, seed=4)
    assert [other.ask().proposal.identity for _ in range(8)] != whole


@pytest.mark.parametrize("name", [n for n in registry.algorithm.names() if n not in ("sequential", "grid")])
def test_a_search_goes_where_scores_are_low(tmp_path, name):
    """The last third of the trials of every algorithm that learns lies lower than that of random search."""
    axes = (Axis("training.learning_rate", LogUniform(1e-5, 1e-1)), *LISTS)

    def score(point):
        return abs(math.log10(point["training.learning_rate"]) + 2) + (point["model.kind"] != "unet")

    def last_third(choice):
        asks, found = journal(tmp_path / choice.name, axes, choice, seed=1), []
        for _ in range(30 if name != "gp" else 15):
            trial = asks.ask()
            found.append(score(trial.proposal.point))
            asks.tell(trial.number, {1: found[-1]}, stopped=False)
        return sum(found[-len(found) // 3 :]) / (len(found) // 3)

    learned = last_third(SHORT.get(name, Choice.of(name)))
    assert (learned < 0.7 * last_third(Choice.of("random"))) == (name != "random")


@pytest.mark.parametrize(
    "name", [n for n in registry.algorithm.names() if registry.algorithm.member(n).traits.get("every_axis")]
)
def test_conditional_axes_are_modelled_and_not_drawn_beside_the_model(tmp_path, name):
    """Optuna's own GPSampler and NSGAIISampler draw them at random: they know the axes that all trials have."""
    asks = journal(tmp_path, RANGES, SHORT[name])
    for number in range(7):
        trial = asks.ask()
        assert is_valid(RANGES, trial.proposal.point)
        asks.tell(trial.number, {1: float(number)}, stopped=False)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name="study", storage=storage)
    sampler = samplers.build(SHORT[name], 0, RANGES)
    assert set(sampler.infer_relative_search_space(study, study.trials[-1])) == {axis.path for axis in RANGES}


@pytest.mark.parametrize("name", ["gp", "nsga2"])
def test_a_run_that_was_stopped_early_teaches_a_sampler_that_reads_no_pruned_trials(tmp_path, name):
    asks = journal(tmp_path, RANGES, SHORT[name])
    asks.tell(asks.ask().number, {1: 5.0}, stopped=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    [trial] = optuna.load_study(study_name="study", storage=storage).trials
    assert (trial.state.name, trial.value) == ("COMPLETE", 5.0)


def test_a_point_that_was_chosen_elsewhere_belongs_to_a_generation(tmp_path):
    asks = journal(tmp_path, RANGES, SHORT["nsga2"])
    point = next(iter(points(RANGES, {})))
    for number in range(2):
        asks.tell(asks.ask_for(Proposal(point)).number, {1: float(number)}, stopped=False)
    asks.tell(asks.ask().number, {1: 0.0}, stopped=False)
    frozen = asks._study.get_trials(deepcopy=False)
    assert [trial.system_attrs["NSGAIISampler:generation"] for trial in frozen] == [0, 0, 1]


def test_trials_of_one_search_differ_in_their_seeds():
    assert len({samplers.seed_of(study, number) for study in range(20) for number in range(50)}) == 1000


def test_a_categorical_value_survives_the_journal():
    for value in (1, 1.5, True, None, "x", (4, 8), (-1.0, 1.0), Choice.of("conv", width=8, sides=(1, 2))):
        back = samplers.decode(samplers.encode(value))
        assert back == value and type(back) is type(value)


def test_what_was_told_is_read_again(tmp_path):
    asks = journal(tmp_path, RANGES, Choice.of("random"))
    told = [({1: 3.0, 2: 2.0}, False), ({1: 5.0}, True), (None, False)]
    proposals = []
    for scores, stopped in told:
        trial = asks.ask()
        proposals.append(trial.proposal)
        asks.tell(trial.number, scores, stopped)
    running = asks.ask()
    again = journal(tmp_path, RANGES, Choice.of("random")).trials()
    assert [trial.proposal for trial in again] == [*proposals, running.proposal]
    assert [trial.scores for trial in again] == [{1: 3.0, 2: 2.0}, {1: 5.0}, None, None]
    assert [trial.finished for trial in again] == [True, True, True, False]


def test_a_stopped_run_is_pruned_in_optuna_and_keeps_its_curve(tmp_path):
    asks = journal(tmp_path, RANGES, Choice.of("random"))
    for number, (scores, stopped) in enumerate([({1: 3.0, 2: 2.0}, False), ({1: 5.0}, True), (None, False)]):
        asks.tell(asks.ask().number, scores, stopped)
        assert number < 3
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    trials = optuna.load_study(study_name="study", storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert [trial.value for trial in trials] == [2.0, 5.0, None]  # a pruned trial's value is its last report


def test_points_chosen_elsewhere_are_kept_with_their_epochs(tmp_path):
    asks = journal(tmp_path, LISTS, Choice.of("sequential"))
    proposals = [Proposal(point, epochs) for point in points(LISTS, {}) for epochs in (None, 2)]
    for proposal in proposals:
        assert asks.ask_for(proposal).proposal == proposal
    assert [trial.proposal for trial in journal(tmp_path, LISTS, Choice.of("sequential")).trials()] == proposals


def test_the_size_of_a_grid_is_its_number_of_points(laboratory):
    spec = laboratory.spec({"diffusion.steps": [2, 3, 4]})
    assert grid_size(spec) == len(list(points(spec.axes, spec.fixed))) == 6
