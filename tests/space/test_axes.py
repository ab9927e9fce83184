"""What the axes of a study mean: settings, points and sweeps."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from diffsearch.space.axes import (
    describe_axes,
    finalist_points,
    grid,
    grid_size,
    point_of,
    sampling_points,
    settings_at,
    value_at,
    walk,
)
from diffsearch.space.load import loads
from diffsearch.space.settings import Axis, Choice, Choices, Integers, LogUniform, RunSettings, StudySpec

BASE = """\
data: {dataset: mnist-5k}
evaluation: {objective: fd-digits, samples: 1000}
search: {runs: 5, finalists: {top: 1, sampling: {sampler: [ancestral, ddim], steps: [5, null]}}}
"""
CONDITIONAL = """
model:
  kind: [unet, dense]
  channels: [[8, 16], [16, 32]]
  hidden: [[16], [16, 16]]
  time_dim: {values: [16, 32], when: {model.channels: [[8, 16]]}}
diffusion:
  steps: [5, 10]
  noise_process: [linear-noise, {name: cosine-squared, max_beta: 0.5}, cosine-squared]
  offset: {uniform: [0.001, 0.02]}
training:
  loss: [x0-l2, mu-tilde-l2]
  batch_size: {int: [8, 64]}
  learning_rate: {log: [1e-4, 1e-2]}
  normalization: [mean-variance, [-1, 1]]
  schedule: [constant, cosine]
  gradient_clip: [off, 1.0]
sampling:
  sampler: {values: [ancestral, ddim], when: {training.loss: x0-l2}}
  eta: [0.0, 1.0]
  ema: [0, 2k]
"""


def spec_of(text: str) -> StudySpec:
    return loads(BASE + text, "small.yaml")


def drawn(spec: StudySpec, rng: random.Random) -> dict[str, Any]:
    def choose(axis: Axis) -> Any:
        if isinstance(axis.domain, Choices):
            return rng.choice(axis.domain.values)
        low, high = axis.domain.low, axis.domain.high
        return rng.randint(int(low), int(high)) if isinstance(axis.domain, Integers) else rng.uniform(low, high)

    return dict(walk(spec.axes, spec.fixed, choose))


def test_settings_survive_json_and_give_back_their_point() -> None:
    spec, rng = spec_of(CONDITIONAL), random.Random(0)
    for seed in range(200):
        point = drawn(spec, rng)
        settings = settings_at(spec, point, seed)
        assert RunSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
        found = point_of(spec, settings)
        assert found is not None and settings_at(spec, found, seed) == settings
        assert found == point


def test_options_exist_only_where_their_member_takes_them() -> None:
    spec, rng = spec_of(CONDITIONAL), random.Random(1)
    for _ in range(100):
        point = drawn(spec, rng)
        assert ("model.channels" in point) == (point["model.kind"] == "unet")
        assert ("model.hidden" in point) == (point["model.kind"] == "dense")
        assert ("model.time_dim" in point) == (point.get("model.channels") == (8, 16))
        assert ("diffusion.offset" in point) == (point["diffusion.noise_process"] != "linear-noise")
        settings = settings_at(spec, point, 0)
        assert (
            set(settings.model.kwargs) <= {"unet": {"channels", "time_dim"}, "dense": {"hidden"}}[settings.model.name]
        )


def test_a_point_takes_its_axes_in_file_order() -> None:
    spec = spec_of("model:\n  channels: [[8], [16]]\n  kind: [dense, unet]\n")
    assert list(drawn(spec, random.Random(3))) in (["model.channels", "model.kind"], ["model.kind"])


def test_an_option_inside_a_choice_goes_before_one_beside_it() -> None:
    spec = spec_of("diffusion: {noise_process: [cosine-squared, {name: cosine-squared, max_beta: 0.5}], max_beta: 0.9}")
    processes = [settings_at(spec, point, 0).noise_process for point in grid(spec) or ()]
    assert processes == [Choice.of("cosine-squared", max_beta=0.9), Choice.of("cosine-squared", max_beta=0.5)]


def test_to_spell_a_default_changes_nothing() -> None:
    bare = settings_at(spec_of(""), {}, 0)
    spelled = settings_at(spec_of("model: {kind: unet, channels: [32, 64, 128]}\ntraining: {loss: x0-l2}"), {}, 0)
    assert bare == spelled
    assert value_at(bare, "model.channels") == (32, 64, 128)


def test_only_a_cosine_schedule_plans_for_its_last_milestone() -> None:
    spec = spec_of("training: {schedule: [constant, cosine], epochs: [1, 7]}")
    horizons = [settings_at(spec, point, 0).training.horizon for point in grid(spec) or ()]
    assert horizons == [None, 7]


def test_the_grid_goes_through_every_point_once_in_file_order() -> None:
    spec = spec_of("model: {kind: [unet, dense], channels: [[8], [16]]}\ntraining: {batch_size: [8, 16]}")
    found = [tuple(point.values()) for point in grid(spec) or ()]
    assert found == [
        ("unet", (8,), 8), ("unet", (8,), 16), ("unet", (16,), 8), ("unet", (16,), 16), ("dense", 8), ("dense", 16),
    ]  # fmt: skip
    assert grid_size(spec) == 6
    assert describe_axes(spec) == "kind 2 · channels 2 · batch_size 2   → 6 points"


def test_a_range_has_no_grid() -> None:
    spec = spec_of("training: {learning_rate: {log: [1e-4, 1e-2]}, batch_size: [8, 16]}")
    assert grid(spec) is None and grid_size(spec) is None
    assert [axis.domain for axis in spec.axes] == [LogUniform(1e-4, 1e-2), Choices((8, 16))]
    assert describe_axes(spec) == "learning_rate log 0.0001 to 0.01 · batch_size 2   → 2 points × a range"


def test_a_large_conditional_grid_is_counted_without_going_through_it() -> None:
    many = list(range(1, 200))
    spec = spec_of(
        f"model: {{kind: [unet, dense], channels: [[8], [16]]}}\ntraining: {{batch_size: {many}, warmup: {many}}}"
    )
    assert grid_size(spec) == 3 * 199 * 199


@pytest.mark.parametrize(("loss", "sweep"), [("x0-l2", 6), ("mu-tilde-l2", 2)])
def test_a_sweep_keeps_to_the_conditions_of_each_run(loss: str, sweep: int) -> None:
    spec = spec_of(CONDITIONAL)
    point = {**drawn(spec, random.Random(0)), "training.loss": loss}
    points = sampling_points(spec, settings_at(spec, point, 0))
    assert len(points) == sweep == len(set(points))
    assert {p.sampler.name for p in points} == ({"ancestral", "ddim"} if loss == "x0-l2" else {"ancestral"})


def test_a_finalist_is_sampled_as_its_target_allows() -> None:
    spec = spec_of("training: {loss: [x0-l2, mu-tilde-l2]}")
    free, direct = (finalist_points(spec, settings_at(spec, point, 0)) for point in grid(spec) or ())
    assert len(free) == 4
    assert [(point.sampler.name, point.steps) for point in direct] == [("ancestral", None)]
