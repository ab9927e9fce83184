"""What a study file means once it is loaded: axes, fixed values, overrides, files of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsearch.errors import ConfigError, Problem
from diffsearch.registry import noise_process
from diffsearch.space.load import load, loads
from diffsearch.space.settings import (
    Budget,
    Choice,
    Choices,
    Integers,
    LogUniform,
    StudySpec,
    Uniform,
    show_duration,
)

# A whole small study of five lines; what a test adds begins in line 6.
BASE = """\
data: {dataset: mnist-5k}
evaluation: {objective: fd-digits, samples: 1000}
x-small: &small [8, 16]


"""


def spec_of(text: str, *overrides: str) -> StudySpec:
    return loads(BASE + text, "small.yaml", overrides)


def problems_of(text: str, *overrides: str, base: str = BASE) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        loads(base + text, "small.yaml", overrides)
    return caught.value.problems


# --- what is an axis ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "domain"),
    [
        ("training: {batch_size: [8, 16]}", "training.batch_size", Choices((8, 16))),
        ("training: {batch_size: [8]}", "training.batch_size", Choices((8,))),
        ("model: {channels: [[8, 16], [4]]}", "model.channels", Choices(((8, 16), (4,)))),
        ("training: {normalization: [[-1, 1], [0, 1]]}", "training.normalization", Choices(((-1.0, 1.0), (0.0, 1.0)))),
        ("training: {normalization: [mean-variance, [-1, 1]]}", "training.normalization",
         Choices(("mean-variance", (-1.0, 1.0)))),
        ("training: {gradient_clip: [off, 1]}", "training.gradient_clip", Choices((None, 1.0))),
        ("training: {warmup: [0, 2k, 1e3]}", "training.warmup", Choices((0, 2000, 1000))),
        ("training: {weight_decay: {uniform: [0, 0.1]}}", "training.weight_decay", Uniform(0.0, 0.1)),
        ("training: {learning_rate: {log: [1e-4, 1e-2]}}", "training.learning_rate", LogUniform(1e-4, 1e-2)),
        ("training: {batch_size: {int: [8, 64]}}", "training.batch_size", Integers(8, 64)),
        ("diffusion: {noise_process: [cosine, {name: cosine-squared, max_beta: 1}]}", "diffusion.noise_process",
         Choices(("cosine", Choice.of("cosine-squared", max_beta=1.0)))),
    ],
)  # fmt: skip
def test_a_list_or_a_range_where_a_single_value_belongs_is_an_axis(text: str, path: str, domain: object) -> None:
    (axis,) = spec_of(text + "\nsearch: {runs: 5}").axes
    assert (axis.path, axis.domain, axis.line) == (path, domain, 6)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("model: {channels: [8, 16]}", "model.channels", (8, 16)),
        ("model: {channels: *small}", "model.channels", (8, 16)),
        ("training: {normalization: [-1, 1]}", "training.normalization", (-1.0, 1.0)),
        ("training: {normalization: mean-variance}", "training.normalization", "mean-variance"),
        ("training: {learning_rate: 1e-4}", "training.learning_rate", 1e-4),
        ("training: {gradient_clip: off}", "training.gradient_clip", None),
        ("training: {ema_half_life: [8k, 0, 2k]}", "training.ema_half_life", (0, 2000, 8000)),
        ("training: {ema_half_life: 2k}", "training.ema_half_life", (2000,)),
        ("training: {batch_size: {value: 8, when: {model.kind: unet}}}", "training.batch_size", 8),
        ("training: {batch_size: {value: 8, when: {model.kind: dense}}}", "training.batch_size", 128),
        ("diffusion: {steps: 7}", "diffusion.steps", 7),
        ("training:", "training.loss", "x0-l2"),
    ],
)
def test_a_single_value_is_fixed(text: str, path: str, value: object) -> None:
    spec = spec_of(text)
    assert not spec.axes and spec.fixed[path] == value


def test_milestones_and_sweeps_are_no_training_axes() -> None:
    text = "training: {epochs: [1, 2, 4]}\nsampling: {sampler: [ancestral, ddim], ema: [0, 2k]}"
    spec = spec_of(text)
    assert spec.milestones == (1, 2, 4) and not spec.axes
    assert [axis.path for axis in spec.sampling_axes] == ["sampling.sampler", "sampling.ema"]
    assert spec_of("training: {epochs: 4}").milestones == (4,)


def test_an_option_of_some_choices_exists_only_there() -> None:
    spec = spec_of("model: {kind: [unet, dense, conv], channels: [[8], [16]], hidden: [[8], [16]], width: 3}")
    assert {axis.path: axis.when for axis in spec.axes} == {
        "model.kind": (),
        "model.channels": (("model.kind", ("unet",)),),
        "model.hidden": (("model.kind", ("dense",)),),
    }
    assert spec.fixed["model.width"] == 3


def test_an_axis_whose_condition_never_holds_vanishes() -> None:
    text = "model:\n  kind: unet\n  channels: {values: [[8], [16]], when: {model.kind: unet}}\n"
    assert [axis.path for axis in spec_of(text).axes] == ["model.channels"]
    assert not spec_of(text, "model.kind=dense").axes


def test_conditions_that_lead_in_a_circle_are_refused() -> None:
    text = (
        "training:\n  batch_size: {values: [8, 16], when: {training.loss: x0-l2}}\n"
        "  loss: {values: [x0-l2, v-l2], when: {training.batch_size: 8}}\n"
    )
    assert {problem.line for problem in problems_of(text)} == {7, 8}


def test_a_condition_keeps_direct_means_from_few_steps() -> None:
    text = (
        "training: {loss: [x0-l2, mu-tilde-l2]}\n"
        "sampling:\n"
        "  sampler: {values: [ancestral, ddim], when: {training.loss: x0-l2}}\n"
        "  steps: {values: [5, 15], when: {training.loss: [x0-l2]}}\n"
    )
    assert len(spec_of(text).sampling_axes) == 2


# --- the rest -----------------------------------------------------------------------------------------------------


def test_defaults_agree_with_each_other() -> None:
    spec = spec_of("")
    assert spec.name == "small" and spec.seed == 0 and spec.repeats == 1
    assert spec.sampling_fixed["sampling.ema"] in spec.fixed["training.ema_half_life"]
    assert spec.evaluation.metrics == ("fd-digits", "fd-digits-train")
    assert spec_of("training: {ema_half_life: 0}").sampling_fixed["sampling.ema"] == 0


def test_the_training_images_as_reference_rename_every_metric() -> None:
    text = "evaluation: {objective: fd-digits, metrics: [fd-digits, kd-digits], samples: 1000, reference: train}\n"
    evaluation = loads("data: {dataset: mnist-5k}\n" + text).evaluation
    assert evaluation.objective == "fd-digits-train"
    assert evaluation.metrics == ("fd-digits-train", "kd-digits-train")


def test_strategies_take_options_or_a_class_name() -> None:
    spec = spec_of(
        "search: {algorithm: {name: CmaEsSampler, n_startup_trials: 5}, stopping: {name: HyperBandScheduler, max_t: 9}}"
    )
    assert spec.search.algorithm == Choice.of("CmaEsSampler", n_startup_trials=5)
    assert spec.search.stopping == Choice.of("HyperBandScheduler", max_t=9)
    spec = spec_of("search: {algorithm: {name: tpe, startup_trials: 3}, stopping: {rule: asha, reduction: 4}}")
    assert spec.search.algorithm == Choice.of("tpe", startup_trials=3)
    assert spec.search.stopping == Choice.of("asha", reduction=4.0)


def test_the_start_of_a_sequential_search_is_read_as_its_axes_are() -> None:
    spec = spec_of(
        "training: {normalization: [[0, 1], [-1, 1]], epochs: [1, 3]}\n"
        "search: {algorithm: {name: sequential, start: {training.normalization: [-1, 1], training.epochs: 3}}}"
    )
    assert spec.search.algorithm.kwargs["start"] == {"training.normalization": (-1.0, 1.0), "training.epochs": 3}


def test_durations_and_counts() -> None:
    budget = "budget: {wall: 1h30m, images: 2M, device_hours: 0.5, until: {no_improvement: 20}}"
    spec = spec_of(f"{budget}\nsearch: {{finalists: {{top: 1, samples: 2k}}}}")
    assert spec.budget == Budget(5400, 2_000_000, 1800, 20) and spec.search.finalists.samples == 2000
    assert spec.search.give_up_after == 10
    assert spec_of("search: {give_up_after: off}").search.give_up_after is None
    assert spec_of("budget: {until: }").budget.is_endless
    assert [show_duration(s) for s in (5400, 90, 86400, 0.5)] == ["1h30m", "1m30s", "24h", "0.5s"]


def test_finalists_sweep_what_they_name_and_keep_the_rest() -> None:
    spec = spec_of(
        "sampling: {sampler: ddim, eta: 0.5, steps: 5}\nsearch: {finalists: {top: 1, sampling: {ema: [0, 8k]}}}"
    )
    points = spec.search.finalists.sampling
    assert [(point.sampler, point.steps, point.ema) for point in points] == [
        (Choice.of("ddim", eta=0.5), 5, 0),
        (Choice.of("ddim", eta=0.5), 5, 8000),
    ]


def test_auto_precision_is_asked_only_where_it_is_written() -> None:
    assert loads(BASE, precision=lambda: "bf16").fixed["training.precision"] == "bf16"
    assert loads(BASE).fixed["training.precision"] == "fp32"

    def never() -> str:
        raise AssertionError("asked")

    loads(BASE + "training: {precision: fp32}", precision=never)


def test_overrides_replace_add_and_deepen() -> None:
    text = "search: {stopping: asha}\ntraining: {batch_size: [8, 16]}\n"
    rate = "training.learning_rate.log=[1e-4, 1]"
    spec = spec_of(text, "training.batch_size=32", "search.stopping.reduction=4", rate, "search.runs=3")
    assert spec.fixed["training.batch_size"] == 32
    assert spec.search.stopping == Choice.of("asha", reduction=4.0)
    assert [axis.domain for axis in spec.axes] == [LogUniform(1e-4, 1.0)]


def test_the_text_of_a_study_is_what_was_read_with_its_overrides() -> None:
    assert spec_of("# a comment\n").text == BASE + "# a comment\n"
    changed = spec_of("training: {gradient_clip: off, learning_rate: 1e-4}", "training.batch_size=[8, 16]")
    again = loads(changed.text, "small.yaml")
    assert again.fixed == changed.fixed
    assert [(axis.path, axis.domain) for axis in again.axes] == [(axis.path, axis.domain) for axis in changed.axes]


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("training.epochs=[2, 1]", "training.epochs", "must ascend"),
        ("training.epoch=3", "training.epoch", "no such key"),
        ("model.kind=unett", "model.kind", "unknown value 'unett'"),
        ("training.epochs", "training.epochs", "should be path=value"),
        ("training.epochs=[1", "", "not YAML"),
    ],
)
def test_a_wrong_override_is_named_itself(override: str, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_of("", override)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path, caught.value.source) == (0, path, "--set")
    assert message in problem.message and f"--set {override}" in problem.message


def test_a_file_that_cant_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: x\n# \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2:1: not UTF-8"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "large.yaml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = BASE.replace("mnist-5k", "folder, path: photos") + "store: runs\n"
    (tmp_path / "mine.yaml").write_text(text)
    spec = load(tmp_path / "mine.yaml")
    assert spec.name == "mine" and spec.source == tmp_path / "mine.yaml"
    assert spec.fixed["data.path"] == str(tmp_path / "photos") and spec.store == tmp_path / "runs"
    assert load(tmp_path / "mine.yaml", store=Path("/else")).store == Path("/else")


def test_a_path_may_begin_with_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS", str(tmp_path / "shelf"))
    monkeypatch.delenv("ABSENT", raising=False)
    for written, meant in [
        ("${PHOTOS}/a", tmp_path / "shelf" / "a"),
        ("$PHOTOS", tmp_path / "shelf"),
        ("./US$$", tmp_path / "US$"),
    ]:
        (tmp_path / "mine.yaml").write_text(f"data: {{dataset: folder, path: '{written}', size: 32}}\n")
        assert load(tmp_path / "mine.yaml").fixed["data.path"] == str(meant)
    for written, message, help in [
        ("${ABSENT}/a", "the environment variable ABSENT isn't set", "export ABSENT="),
        ("./US$", "a $ names an environment variable", "write $$"),
    ]:
        with pytest.raises(ConfigError) as caught:
            loads(f"data:\n  dataset: folder\n  path: '{written}'\n  size: 32\n")
        (problem,) = caught.value.problems
        assert (problem.line, problem.path) == (3, "data.path")
        assert message in problem.message and help in problem.help


def test_use_brings_in_members_and_hashes_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {name: noise_process.member(name) for name in noise_process.names()}
    monkeypatch.setattr(noise_process, "_members", members)  # so that other tests don't see what this one registers
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from diffsearch.registry import noise_process\n"
        "@noise_process.register('test-straight')\n"
        "def straight(steps: int, *, end: float = 0.5) -> torch.Tensor:\n"
        "    return torch.linspace(1, end, steps + 1, dtype=torch.float64)\n"
    )
    (tmp_path / "a.yaml").write_text(BASE + "use: [./mine.py]\ndiffusion: {noise_process: test-straight, end: 0.1}\n")
    spec = load(tmp_path / "a.yaml")
    assert list(spec.extensions) == ["noise_process:test-straight"]
    assert len(spec.extensions["noise_process:test-straight"]) == 16
    assert spec.use == (tmp_path / "mine.py",) and spec.fixed["diffusion.end"] == 0.1


def test_a_used_file_that_raises_is_a_mistake_of_the_study(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "a.yaml").write_text(BASE + "use: broken.py\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:6:6: use: .*ZeroDivisionError"):
        load(tmp_path / "a.yaml")
