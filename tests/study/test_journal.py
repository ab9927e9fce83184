"""The search's journal: Optuna reads it, and a kill at any of its lines costs the search nothing."""

from __future__ import annotations

import shutil

import optuna
import pytest

from diffsearch.space.settings import Axis, Choice, Choices, LogUniform
from diffsearch.study.journal import FILE, SearchJournal

SEARCHES = {
    "random": {"search": {"algorithm": "random", "runs": 3}},
    "sequential": {"search.algorithm": "sequential"},
    "tpe": {"search": {"algorithm": "tpe", "runs": 3}},
}


@pytest.mark.filterwarnings("error:.*already reported")
@pytest.mark.parametrize("name", SEARCHES)
def test_cut_at_any_line_it_goes_on_with_whole_points(laboratory, tmp_path, name):
    changes = {**SEARCHES[name], "training.loss": ["x0-l2", "v-l2"], "training.epochs": [1]}
    if name == "sequential":
        changes["diffusion.steps"] = [2, 3]
    else:  # a second draw shows whether the first was made again
        changes |= {f"training.{axis}": {"uniform": [0.001, 0.01]} for axis in ("learning_rate", "weight_decay")}
    laboratory.run(changes)
    study = laboratory.store.study("tiny")
    whole, table = (study / FILE).read_text().splitlines(keepends=True), laboratory.table()
    assert len(whole) > 10
    shutil.copytree(study, tmp_path / "kept")
    for lines in range(0, len(whole), 2 if name == "random" else 4):
        shutil.rmtree(study)
        shutil.copytree(tmp_path / "kept", study)
        (study / FILE).write_text("".join(whole[:lines]))
        laboratory.run(changes)
        assert laboratory.trained == [], f"something new was asked for after {lines} lines"
        assert laboratory.table() == table


def test_optuna_opens_it_as_it_is(laboratory):
    laboratory.run({"search": {"algorithm": "random", "runs": 2}})
    backend = optuna.storages.journal.JournalFileBackend(str(laboratory.store.study("tiny") / FILE))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    scores = {line["scores"]["fd-digits"]["value"] for line in laboratory.table()}
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert {value for trial in study.trials for value in trial.intermediate_values.values()} == scores


def test_cut_anywhere_a_trial_has_a_value_on_every_axis_that_its_sampler_models(tmp_path):
    """A trial without one would take that axis out of Optuna's model for good."""
    axes = (
        Axis("model.kind", Choices(("unet", "dense"))),
        Axis("model.channels", Choices(((4,), (4, 8))), when=(("model.kind", ("unet",)),)),
        Axis("training.learning_rate", LogUniform(1e-4, 1e-2)),
    )

    def opened(folder):
        folder.mkdir(exist_ok=True)
        return SearchJournal(folder, "study", axes, {}, Choice.of("nsga2"), seed=0)

    asks = opened(tmp_path / "whole")
    points = [trial.proposal.point for trial in (asks.ask() for _ in range(4))]
    whole = (tmp_path / "whole" / FILE).read_text()
    for cut in range(0, len(whole), 211):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / FILE).write_text(whole[:cut])
        again = opened(folder)
        kept = [trial.proposal.point for trial in again.trials()]
        assert kept == points[: len(kept)]
        assert [again.ask().proposal.point for _ in points[len(kept) :]] == points[len(kept) :]
        assert all(len(frozen.params) == len(axes) for frozen in again._study.trials)
