"""Law 1. Nothing is computed twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffsearch.errors import DataError
from diffsearch.space.axes import points, sampling_points, settings_at
from diffsearch.store import evaluation_key, run_key

CONTENT = "0123456789abcdef"

LOSS = """
import torch
from diffsearch import registry

@registry.loss.register("{name}", predicts="x0")
def far(output, batch):
    return ((output - batch.x_0) ** 2).flatten(1).mean(1) * {scale}
"""


def keys(spec, content=CONTENT):
    return {run_key(settings_at(spec, point, spec.seed), content, spec.extensions) for point in points_of(spec)}


def points_of(spec):
    return list(points(spec.axes, spec.fixed))


@pytest.mark.parametrize(
    "changes",
    [
        {"training.epochs": [1, 5, 100]},
        {"sampling.sampler": "ddim"},
        {"sampling.steps": [1, 2]},
        {"sampling.ema": 100},
        {"evaluation.metrics": ["fd-digits", "kd-digits"]},
        {"evaluation.samples": 90},
        {"evaluation.seed": 7},
        {"search.algorithm": "random", "search.runs": 3},
        {"repeats": 3, "name": "another", "keep": "all"},
        {"resources": {"cpu": 2}, "budget.wall": "10m"},
        {"model.groups": None, "training.weight_decay": 0.0},
        {"training.conditioning": "none", "training.augmentation": "none", "training.min_snr_gamma": "off"},
        {"training.learned_variance": False, "diffusion.time": "discrete", "data.validation": 0},
    ],
    ids=",".join,
)
def test_what_weights_do_not_depend_on_is_not_in_the_run_key(laboratory, changes):
    assert keys(laboratory.spec(changes)) == keys(laboratory.spec())


@pytest.mark.parametrize(
    "changes",
    [
        {"diffusion.steps": 3},
        {"diffusion.terminal": "clamp"},
        {"diffusion.time": "continuous"},
        {"training.conditioning": "class"},
        {"training.augmentation": "crop"},
        {"training.min_snr_gamma": 5},
        {"training.learned_variance": True},
        {"diffusion.noise_process": "cosine"},
        {"model.channels": [8]},
        {"training.batch_size": 50},
        {"training.learning_rate": 2e-3},
        {"training.ema_half_life": [0, 200]},
        {"training.schedule": "cosine"},
        {"training.precision": "bf16"},
        {"seed": 1},
    ],
    ids=",".join,
)
def test_what_weights_depend_on_is_in_the_run_key(laboratory, changes):
    assert not keys(laboratory.spec(changes)) & keys(laboratory.spec())


def test_the_run_key_holds_the_content_of_the_data_and_not_its_name(laboratory):
    spec = laboratory.spec()
    [point, *_] = points_of(spec)
    settings = settings_at(spec, point, 0)
    moved = replace(settings, dataset=replace(settings.dataset, name="folder", options=(("path", "/elsewhere"),)))
    assert run_key(moved, CONTENT, {}) == run_key(settings, CONTENT, {})
    assert run_key(settings, "another content", {}) != run_key(settings, CONTENT, {})


def test_a_renamed_folder_of_images_is_the_same_data(laboratory, tmp_path):
    from PIL import Image

    (tmp_path / "a").mkdir()
    for number in range(4):
        Image.new("L", (28, 28), 60 * number).save(tmp_path / "a" / f"{number}.png")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    from diffsearch.data.datasets import load
    from diffsearch.space.settings import Choice

    first, second = (
        load(Choice.of("folder", path=str(tmp_path / name), test_fraction=0.0), tmp_path / "cache") for name in "ab"
    )
    assert first.content == second.content


def test_only_a_cosine_schedule_puts_the_horizon_into_the_run_key(laboratory):
    short, long = (
        laboratory.spec({"training.schedule": ["constant", "cosine"], "training.epochs": epochs})
        for epochs in ([1, 2], [1, 4])
    )
    shared = keys(short) & keys(long)
    assert len(keys(short)) == len(keys(long)) == 4 and len(shared) == 2


def test_a_users_file_enters_only_the_keys_of_runs_that_use_its_members(laboratory, tmp_path):
    def with_file(scale):
        file = tmp_path / "mine.py"
        file.write_text(LOSS.format(name="keyed-loss", scale=scale))
        return laboratory.spec({"use": [str(file)], "training.loss": ["x0-l2", "keyed-loss"]})

    before, after = with_file(1.0), with_file(2.0)
    assert len(keys(before)) == len(keys(after)) == 2
    assert keys(before) & keys(after) == keys(laboratory.spec({"training.loss": ["x0-l2"]}))


def test_an_evaluation_key_holds_all_that_the_samples_depend_on(laboratory):
    spec = laboratory.spec({"sampling.ema": [0, 100]})
    settings = settings_at(spec, points_of(spec)[0], 0)
    first, second = sampling_points(spec, settings)
    base = ("run", 1, first, 70, 0, {})
    others = [
        ("nur", 1, first, 70, 0, {}),
        ("run", 2, first, 70, 0, {}),
        ("run", 1, second, 70, 0, {}),
        ("run", 1, first, 71, 0, {}),
        ("run", 1, first, 70, 1, {}),
        ("run", 1, first, 70, 0, {"sampler:ancestral": "edited"}),
    ]
    assert evaluation_key(*base) not in {evaluation_key(*other) for other in others}
    assert evaluation_key(*base) == evaluation_key("run", 1, first, 70, 0, {"loss:mine": "edited"})


ONE = {"training.loss": "x0-l2"}  # a study of one run


def test_milestones_are_points_along_one_run(laboratory):
    laboratory.run({**ONE, "training.epochs": [1, 2, 4]})
    assert [epoch for _, epoch in laboratory.trained] == [1, 2, 3, 4]
    assert len(laboratory.scored) == 3


def test_later_epochs_go_on_from_where_the_run_is(laboratory):
    laboratory.run({**ONE, "training.epochs": [1, 2]})
    laboratory.run({**ONE, "training.epochs": [1, 3]})
    assert [epoch for _, epoch in laboratory.trained] == [3]
    assert len(laboratory.scored) == 1


@pytest.mark.parametrize(
    ("changes", "evaluations"),
    [
        ({"sampling.ema": [0, 100]}, 2),
        ({"sampling.steps": [1, 2]}, 4),  # `steps: null` and `steps: 2` are two names; each is drawn under its own
        ({"evaluation.metrics": ["fd-digits", "kd-digits"]}, 2),
        ({"evaluation.samples": 80}, 2),
        ({"search.algorithm": "random"}, 0),
    ],
    ids=["track", "steps", "metric", "samples", "algorithm"],
)
def test_what_is_asked_of_the_same_weights_trains_nothing(laboratory, changes, evaluations):
    laboratory.run(ONE)
    laboratory.run({**ONE, **changes})
    assert laboratory.trained == [] and len(laboratory.scored) == evaluations


def test_a_later_metric_keeps_the_scores_that_are_there(laboratory):
    laboratory.run(ONE)
    before = laboratory.table()
    laboratory.run({**ONE, "evaluation.metrics": ["fd-digits", "kd-digits"]})
    for old, new in zip(before, laboratory.table(), strict=True):
        assert new["key"] == old["key"] and set(new["scores"]) == {"fd-digits", "kd-digits"}
        assert new["scores"]["fd-digits"] == old["scores"]["fd-digits"]


def test_a_wider_axis_computes_only_what_is_new(laboratory):
    laboratory.run({"training.loss": ["x0-l2", "v-l2"]})
    laboratory.run({"training.loss": ["x0-l2", "v-l2", "epsilon-l2"]})
    assert [epoch for _, epoch in laboratory.trained] == [1, 2]
    runs = laboratory.history().runs
    assert sorted(run.point["training.loss"] for run in runs) == ["epsilon-l2", "v-l2", "x0-l2"]
    assert sorted(run.reused_epochs for run in runs) == [0, 0, 0]  # this study trained all of them itself, once


def test_two_studies_share_their_runs(laboratory):
    laboratory.run({"name": "first"})
    laboratory.run({"name": "second", "training.loss": ["x0-l2", "epsilon-l2"]})
    assert len(laboratory.trained) == 2 and len({key for key, _ in laboratory.trained}) == 1
    reused = {run.point["training.loss"]: run.reused_epochs for run in laboratory.history("second").runs}
    assert reused == {"x0-l2": 2, "epsilon-l2": 0}


def test_checkpoints_of_milestones_are_what_stays(laboratory, tmp_path):
    laboratory.run({**ONE, "training.epochs": [1, 3]})
    [key] = laboratory.store.keys()
    names = {Path(name).name for name in laboratory.checkpoints()}
    assert names == {"epoch-00001.safetensors", "epoch-00003.safetensors", "latest.safetensors"}, key


def test_runs_of_older_stores_keep_their_keys(laboratory):
    """Settings that came later are in no key while they are at their default: these keys were made before them."""
    spec = laboratory.spec()
    settings = settings_at(spec, points_of(spec)[0], 0)
    assert run_key(settings, CONTENT, {}) == "9b042b28bbc0b002"
    assert [evaluation_key("0123", 1, point, 70, 0, {}) for point in sampling_points(spec, settings)] == [
        "9b97e11a6132fb79"
    ]


def test_guidance_is_swept_on_one_training_by_either_name(laboratory):
    changes = {"training.loss": "v-l2", "training.conditioning": "class", "sampling.guidance_weight": [0, 1]}
    laboratory.run(changes)
    assert len(laboratory.trained) == 2 and len(laboratory.scored) == 4
    scale = {**changes, "sampling.guidance_weight": None, "sampling.guidance_scale": [1, 2, 3]}
    laboratory.run(scale)
    assert not laboratory.trained and len(laboratory.scored) == 2
    calls = {line["sampling"].get("guidance", 0): line["network_calls"] for line in laboratory.table()}
    assert calls == {0: 140, 1: 280, 2: 280}


def test_the_best_and_the_last_checkpoint_stay(laboratory):
    laboratory.run(
        {"keep": "best", "training.loss": "v-l2", "training.epochs": [1, 2, 3, 4], "training.batch_size": 20}
    )
    scores = {line["epoch"]: line["scores"]["fd-digits"]["value"] for line in laboratory.table()}
    kept = {int(name.partition("epoch-")[2][:5]) for name in laboratory.checkpoints() if "epoch-" in name}
    assert kept == {min(scores, key=scores.__getitem__), 4}
    laboratory.run(
        {"keep": "best", "training.loss": "v-l2", "training.epochs": [1, 2, 3, 4], "training.batch_size": 20}
    )
    assert not laboratory.trained and not laboratory.scored


def test_a_conditional_study_without_labels_is_refused_before_it_begins(laboratory, tmp_path):
    from PIL import Image

    for number in range(20):
        Image.new("L", (28, 28), number * 10).save(tmp_path / f"{number}.png")
    changes = {"data": {"dataset": "folder", "path": str(tmp_path)}, "training.conditioning": "class"}
    with pytest.raises(DataError, match="has no class labels"):
        laboratory.run({**changes, "evaluation": {"objective": "kd-digits", "samples": 50}})
