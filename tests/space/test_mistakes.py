"""Every mistake that a study file can hold is found when it is loaded, and named by its line."""

from __future__ import annotations

import pytest
import torch

from diffsearch.errors import ConfigError, Problem
from diffsearch.registry import model
from diffsearch.space.load import loads

# A whole small study of five lines; what a test adds begins in line 6.
BASE = """\
data: {dataset: mnist-5k}
evaluation: {objective: fd-digits, samples: 1000}
x-small: &small [8, 16]


"""


def problems_of(text: str, *overrides: str, base: str = BASE) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        loads(base + text, "small.yaml", overrides)
    return caught.value.problems


# (what is added to the base, line, column, path, a part of the message, a part of the help)
MISTAKES = [
    ("search: {algorithm: nsga2, runs: 12}", 6, 21, "search.algorithm", "first generation of 16", "population_size: 3"),
    ("search: {algorithm: {name: nsga2, population_size: 1}}", 6, 21, "search.algorithm", "equal to 2", ""),
    ("search: {constraints: [parameters 3]}", 6, 24, "search.constraints", "its bound, read 'parameters 3'", "2M"),
    ("search: {constraints: [parameters < 3q]}", 6, 24, "search.constraints", "a quantity and its bound", ""),
    ("search: {constraints: parametrs < 3}", 6, 23, "search.constraints", "'parametrs'", "mean 'parameters'?"),
    ("search: {constraints: [kid < 3]}", 6, 24, "search.constraints", "unknown quantity 'kid'", "known: fd-digits, "),
    ("search: {enqueue: [3]}", 6, 20, "search.enqueue", "should be a point, read 3", "e.g. "),
    ("search: {enqueue: {training.los: v-l2}}", 6, 20, "search.enqueue", "is no axis", ""),
    ("search: {enqueue: {training.loss: v-l2}}", 6, 35, "search.enqueue", "training.loss is x0-l2 in this file", ""),
    ("search: {enqueue: [{training.epochs: 1}]}", 6, 21, "search.enqueue", "milestones", "leave it out"),
    ("search: {warm_start: ./nowhere}", 6, 22, "search.warm_start", "is no store", ""),
    ("search: {warm_start: small}", 6, 22, "search.warm_start", "this study itself", ""),
    ("search: {algorithm: sequential, enqueue: [{}]}", 6, 33, "search.enqueue", "its own points", "start: {...}"),
    ("trainin: {}", 6, 1, "trainin", "no such key", "Did you mean 'training'?"),
    ("training: {los: x0-l2}", 6, 12, "training.los", "no such key", "Did you mean 'loss'?"),
    ("search:\n  stoping: asha", 7, 3, "search.stoping", "no such key", "Did you mean 'stopping'?"),
    ("model: {kind: unet, hidden: [3]}", 6, 21, "model.hidden", "no such key", "an option of dense; chosen: unet"),
    ("search: {stopping: {rule: asha, reducton: 2}}", 6, 33, "search.stopping", "no option 'reducton'", "'reduction'"),
    ("training: 3", 6, 11, "training", "is a section", ""),
    ("diffusion: {noise_process: cosin}", 6, 28, "diffusion.noise_process", "unknown value 'cosin'", "mean 'cosine'?"),
    ("diffusion: {noise_process: [linear-x, cosin]}", 6, 39, "diffusion.noise_process", "unknown value 'cosin'", ""),
    ("diffusion: {noise_process: [{nam: cosine}]}", 6, 29, "diffusion.noise_process", "needs a name", ""),
    ("diffusion: {noise_process: [{name: cosine, ofset: 1}]}", 6, 44, "diffusion.noise_process", "no option", ""),
    ("training: {loss: x0-l3}", 6, 18, "training.loss", "unknown value 'x0-l3'", "Did you mean 'x0-l"),
    ("training: {optimizer: adm}", 6, 23, "training.optimizer", "unknown value 'adm'", "known: adam, adamw."),
    ("model: {kind: unett}", 6, 15, "model.kind", "unknown value 'unett'", "Did you mean 'unet'?"),
    ("sampling: {sampler: ddimm}", 6, 21, "sampling.sampler", "unknown value 'ddimm'", "Did you mean 'ddim'?"),
    ("search: {algorithm: tpee}", 6, 21, "search.algorithm", "unknown value 'tpee'", "Did you mean 'tpe'?"),
    ("search: {algorithm: CmaSampler}", 6, 21, "search.algorithm", "unknown value 'CmaSampler'", "'CmaEsSampler'"),
    ("search: {algorithm: {name: NSGAIISampler, popsize: 3}}", 6, 43, "search.algorithm", "no option 'popsize'", ""),
    ("search: {stopping: ash}", 6, 20, "search.stopping", "unknown value 'ash'", "Did you mean 'asha'?"),
    ("training: {batch_size: many}", 6, 24, "training.batch_size", "should be a whole number, read 'many'", ""),
    ("training: {batch_size: 2.5}", 6, 24, "training.batch_size", "whole number", ""),
    ("training: {batch_size: true}", 6, 24, "training.batch_size", "should be a whole number, read true", ""),
    ("training: {batch_size: 0}", 6, 24, "training.batch_size", "should be greater than or equal to 1, read 0", ""),
    ("training: {batch_size: [8, 0]}", 6, 28, "training.batch_size", "greater than or equal to 1", ""),
    ("training: {learning_rate: .inf}", 6, 27, "training.learning_rate", "must be finite", ""),
    ("training: {learning_rate: '1e-4'}", 6, 27, "training.learning_rate", "should be a number, read '1e-4'", ""),
    ("training: {normalization: [1, -1]}", 6, 27, "training.normalization", "low < high", ""),
    ("training: {normalization: [0, 1, 2]}", 6, 27, "training.normalization", "at most 2 items", ""),
    ("training: {normalization: [mean, [0, 1]]}", 6, 28, "training.normalization", "unknown value 'mean'", ""),
    ("model: {channels: [8, x]}", 6, 23, "model.channels", "should be a whole number, read 'x'", ""),
    ("training: {warmup: 2q}", 6, 20, "training.warmup", "read '2q'", ""),
    ("budget: {wall: 10}", 6, 16, "budget.wall", "should be a duration such as 90s", ""),
    ("budget: {images: 0}", 6, 18, "budget.images", "greater than or equal to 1", ""),
    ("budget: {device_hours: 0}", 6, 24, "budget.device_hours", "greater than 0", ""),
    ("budget: {until: 20}", 6, 17, "budget.until", "is a section", ""),
    ("budget: {until: {no_improvment: 20}}", 6, 18, "budget.until.no_improvment", "no such key", "'no_improvement'?"),
    ("search: {give_up_after: 0}", 6, 25, "search.give_up_after", "greater than or equal to 1", ""),
    ("training: {batch_size: []}", 6, 24, "training.batch_size", "an axis without values", ""),
    ("training: {batch_size: {values: []}}", 6, 33, "training.batch_size", "an axis without values", ""),
    ("training: {batch_size: [8, 16, 8]}", 6, 32, "training.batch_size", "8 is in this axis twice", ""),
    ("model: {channels: [*small, [8, 16]]}", 6, 28, "model.channels", "[8, 16] is in this axis twice", ""),
    ("training: {epochs: [0, 1]}", 6, 21, "training.epochs", "greater than or equal to 1, read 0", ""),
    ("training: {epochs: [1, 2.5]}", 6, 24, "training.epochs", "read 2.5", ""),
    ("training: {epochs: [3, 1]}", 6, 20, "training.epochs", "must ascend", ""),
    ("training: {epochs: [1, 1]}", 6, 20, "training.epochs", "must ascend and name no value twice", ""),
    ("training: {epochs: {int: [1, 9]}}", 6, 20, "training.epochs", "can't be an axis", ""),
    ("training: {deterministic: [true, false]}", 6, 27, "training.deterministic", "can't be an axis", ""),
    ("data: {dataset: [mnist-5k, mnist]}", 1, 17, "data.dataset", "can't be an axis", ""),
    ("data: {dataset: folder}", 1, 17, "data.dataset", "folder needs 'path'", "add path: ..."),
    ("data: {}", 1, 1, "data.dataset", "is needed", "known: "),
    ("training: {learning_rate: {log: [0, 1]}}", 6, 34, "training.learning_rate", "should be greater than 0", ""),
    ("training: {weight_decay: {log: [0, 1]}}", 6, 33, "training.weight_decay", "a log range starts above 0", ""),
    ("training: {learning_rate: {log: [2, 1]}}", 6, 33, "training.learning_rate", "low < high", ""),
    ("training: {learning_rate: {log: 1}}", 6, 33, "training.learning_rate", "log takes [low, high]", ""),
    ("training: {batch_size: {log: [8, 64]}}", 6, 30, "training.batch_size", "takes whole numbers", "{int: [8, 64]}"),
    ("training: {loss: {uniform: [0, 1]}}", 6, 18, "training.loss", "takes no range", "write a list"),
    ("sampling: {ema: 4k}", 6, 17, "sampling.ema", "half-life of 4k images is kept", "without training"),
    ("sampling: {ema: [2k, 4k]}", 6, 22, "sampling.ema", "half-life of 4k images is kept", "kept: 0, 2k, 8k"),
    (
        "search: {finalists: {top: 1, sampling: {ema: [3k]}}}", 6, 47,
        "search.finalists.sampling.ema", "half-life of 3k images is kept", "",
    ),
    ("training: {ema_half_life: [2k, 2k]}", 6, 27, "training.ema_half_life", "names a value twice", ""),
    ("model: {channels: [62, 128], groups: 8}", 6, 38, "model.groups", "8 groups don't divide 62 channels", ""),
    ("model: {dropout: 1.5, residual: [true, false]}", 6, 18, "model.dropout", "must lie in [0, 1), got 1.5", ""),
    ("model: {attention: [[], [8]]}", 6, 25, "model.attention", "no resolution is 8 pixels high; they are 28", ""),
    ("model: {channels: [[8, 16], []]}", 6, 29, "model.channels", "can't be built", ""),
    (
        "diffusion: {noise_process: [cosine, {name: cosine-squared, max_beta: 2}]}", 6, 37,
        "diffusion.noise_process", "cosine-squared (max_beta 2) can't be built", "",
    ),
    ("diffusion: {terminal: skip, steps: [1, 5]}", 6, 23, "diffusion.terminal", "skip leaves nothing to train", ""),
    ("training: {epochs: 3}\nsearch: {stopping: asha}", 7, 20, "search.stopping", "has one milestone", "[1, 3, 9]"),
    ("training: {epochs: 3}\nsearch: {stopping: HyperBandScheduler}", 7, 20, "search.stopping", "one milestone", ""),
    ("search: {stopping: {rule: asha, reduction: 1}}", 6, 20, "search.stopping", "must be greater than 1", ""),
    ("search: {algorithm: grid}\ntraining: {learning_rate: {log: [1, 2]}}", 7, 27, "training.learning_rate", "gri", ""),
    ("training: {learning_rate: {log: [1e-4, 1]}}\nsearch: {algorithm: tpe}", 7, 1, "search.runs", "is needed", ""),
    ("training: {batch_size: [8, 16]}\nsearch: {finalists: {top: 3}}", 7, 27, "search.finalists.top", "of 2", ""),
    ("search: {runs: 2, finalists: {top: 3}}", 6, 36, "search.finalists.top", "3 finalists of", ""),
    (
        "training: {batch_size: [8, 16]}\nsearch: {algorithm: {name: sequential, start: {training.batch_size: 9}}}",
        7, 21, "search.algorithm", "start has training.batch_size 9", "its values: 8, 16",
    ),
    ("search: {algorithm: {name: sequential, start: {training.loss: x0-l2}}}", 6, 21, "search.algorithm", "no ", ""),
    ("search: {algorithm: {name: sequential, order: [model.kind]}}", 6, 21, "search.algorithm", "order names", ""),
    ("search: {algorithm: {name: sequential, later_epochs: 2}}", 6, 21, "search.algorithm", "hasn't", "1, 3, 9"),
    (
        "training: {loss: [x0-l2, mu-tilde-l2]}\nsampling: {sampler: [ancestral, ddim]}", 7, 33, "sampling.sampler",
        "ddim can't be combined with training.loss mu-tilde-l2", "when: {training.loss: [x0-l2]}",
    ),
    (
        "training: {loss: [x0-l2, x-prev-l1]}\nsampling: {steps: [5, 15]}", 7, 20, "sampling.steps",
        "5 can't be combined with training.loss x-prev-l1", "when: {training.loss: [x0-l2]}",
    ),
    (
        "diffusion: {steps: [10, 20]}\nsampling: {steps: 15}", 7, 19, "sampling.steps",
        "15 can't be combined with diffusion.steps 10", "when: {diffusion.steps: [20]}",
    ),
    ("sampling: {steps: {int: [1, 15]}}", 6, 19, "sampling.steps", "takes no range", ""),
    (
        "training: {loss: x-prev-l2}\nsearch: {finalists: {top: 1, sampling: {sampler: ddim}}}", 7, 50,
        "search.finalists.sampling.sampler", "fits no run", "",
    ),
    ("training: {batch_size: {values: 3, when: {model.kind: unet}}}", 6, 33, "training.batch_size", "takes a list", ""),
    ("training: {batch_size: {value: 8, when: unet}}", 6, 41, "training.batch_size", "when takes a mapping", ""),
    ("training: {batch_size: {value: 8, when: {model.knd: unet}}}", 6, 42, "training.batch_size", "model.knd", "kind"),
    ("training: {batch_size: {value: 8, when: {model.kind: unt}}}", 6, 54, "training.batch_size", "value 'unt'", ""),
    ("training: {batch_size: {value: 8, when: {sampling.steps: 3}}}", 6, 42, "training.batch_size", "comes after", ""),
    ("seed: -1", 6, 7, "seed", "greater than or equal to 0", ""),
    ("name: a/b", 6, 7, "name", "pattern", ""),
    ("keep: some", 6, 7, "keep", "unknown value 'some'", "known: all, best, last, milestones."),
    (
        "training: {conditioning: [none, class]}\nmodel: {kind: dense}", 6, 33, "training.conditioning",
        "class can't be combined with model.kind dense: it takes no labels", "needs kind: unet",
    ),
    (
        "training: {learned_variance: true, loss: [v-l2, x-prev-l2]}", 6, 30, "training.learned_variance",
        "True can't be combined with training.loss x-prev-l2", "predicts x0, v or epsilon",
    ),
    (
        "diffusion: {time: continuous}\ntraining: {learned_variance: true}", 7, 30, "training.learned_variance",
        "True can't be combined with diffusion.time continuous: its bound is one of steps", "time: discrete",
    ),
    (
        "training: {min_snr_gamma: [off, 5], loss: mu-tilde-l1}", 6, 33, "training.min_snr_gamma",
        "5.0 can't be combined with training.loss mu-tilde-l1", "",
    ),
    (
        "diffusion: {time: continuous}\ntraining: {loss: x-prev-l2}", 6, 19, "diffusion.time",
        "continuous can't be combined with training.loss x-prev-l2", "",
    ),
    (
        "training: {augmentation: [crop, flip]}", 6, 33, "training.augmentation",
        "flip can't be combined with data.dataset mnist-5k: a mirrored character is another", "crop or none",
    ),
    ("training: {label_dropout: 0.3}", 6, 27, "training.label_dropout", "conditioning none", "needs class"),
    ("training: {learning_rate_floor: 0.3}", 6, 33, "training.learning_rate_floor", "schedule constant", "cosine"),
    (
        "training: {conditioning: [none, class]}\nsampling: {guidance_weight: [0, 3]}", 7, 33,
        "sampling.guidance_weight", "3 can't be combined with training.conditioning none", "[class]",
    ),
    (
        "training: {conditioning: class, label_dropout: 0}\nsampling: {guidance_scale: 3}", 7, 28,
        "sampling.guidance_weight", "label_dropout 0", "",
    ),
    (
        "training: {conditioning: class}\nsampling: {guidance_scale: 3, guidance_weight: 2}", 7, 28,
        "sampling.guidance_scale", "the same as sampling.guidance_weight", "give one of the two",
    ),
    ("sampling: {guidance_weight: -2}", 6, 29, "sampling.guidance_weight", "greater than or equal to -1", ""),
    (
        "sampling: {variance: learned}", 6, 22, "sampling.variance",
        "learned can't be combined with training.learned_variance", "",
    ),
    ("resources: {gpu: -1}", 6, 18, "resources.gpu", "greater than or equal to 0", ""),
    ("use: ./absent.py", 6, 6, "use", "no such file", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "path", "message", "help"), MISTAKES)
def test_a_mistake_is_named_by_its_line(text: str, line: int, column: int, path: str, message: str, help: str) -> None:
    base = BASE.partition("\n")[2] if text.startswith("data:") else BASE
    (problem,) = problems_of(text + "\n" + base, base="") if base is not BASE else problems_of(text)
    assert (problem.line, problem.column, problem.path) == (line, column, path)
    assert message in problem.message
    assert help in problem.help


@pytest.mark.parametrize(
    ("text", "path", "column", "message"),
    [
        ("objective: fd-digit", "evaluation.objective", 25, "unknown metric 'fd-digit'"),
        ("objective: fd-digits, metrics: [fd-digits, kd]", "evaluation.metrics", 45, "unknown metric 'kd'"),
        ("objective: fd-digits, metrics: [kd-digits]", "evaluation.metrics", 45, "fd-digits is not among them"),
        ("objective: fid, samples: 2048", "evaluation.samples", 39, "2,048 images are too few for fid"),
        ("objective: fd-digits, samples: 1", "evaluation.samples", 45, "greater than or equal to 2"),
        ("objective: fid, reference: tset", "evaluation.reference", 41, "unknown value 'tset'"),
    ],
)
def test_a_mistake_in_scoring_is_named_by_its_line(text: str, path: str, column: int, message: str) -> None:
    (problem,) = problems_of(f"evaluation: {{{text}}}", base="data: {dataset: mnist-5k}\n")
    assert (problem.line, problem.column, problem.path) == (2, column, path)
    assert message in problem.message


def test_a_network_that_takes_whole_steps_alone_is_refused_in_continuous_time() -> None:
    class Indexed(torch.nn.Module):
        def __init__(self, image_shape: tuple[int, int, int], steps: int) -> None:
            super().__init__()
            self.of_step = torch.nn.Embedding(steps + 1, 1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x * self.of_step(t)[:, :, None, None]

    model.register("indexed")(Indexed)
    loads(BASE + "model: {kind: indexed}")
    (problem,) = problems_of("model: {kind: indexed}\ndiffusion: {time: continuous}")
    assert (problem.path, problem.line) == ("model.kind", 6) and "can't be built" in problem.message


def test_finalists_need_enough_samples_too() -> None:
    (problem,) = problems_of("search: {finalists: {top: 1, samples: 20}}")
    assert (problem.line, problem.path) == (6, "search.finalists.samples")


def test_all_mistakes_come_at_once_sorted_by_line() -> None:
    text = "training:\n  epochs: [2, 1]\n  loss: x\nmodel: {kind: y}\nsearch: {finalist: 1}\ntrainin: 3\n"
    assert [problem.line for problem in problems_of(text)] == [7, 8, 9, 10, 11]


def test_a_mistake_reads_as_on_the_screen() -> None:
    with pytest.raises(ConfigError) as caught:
        loads(BASE + "diffusion: {noise_process: cosin}", "small.yaml")
    assert str(caught.value).splitlines() == [
        "small.yaml:6:28: diffusion.noise_process: unknown value 'cosin'",
        "    known: cosine, cosine-squared, linear-alpha-bar, linear-beta, linear-noise, linear-x, signal-rate."
        "   Did you mean 'cosine'?",
        "1 error; nothing was run.",
    ]


OBJECTIVES = """\
data: {dataset: mnist-5k}
training: {learning_rate: {log: [1e-4, 1e-2]}, batch_size: [32, 64]}
model: {kind: [dense, unet], channels: [[8, 16], [16, 32]]}
search: {algorithm: %s, runs: 20%s}
evaluation: {objectives: %s%s}
"""


@pytest.mark.parametrize(
    ("algorithm", "search", "objectives", "evaluation", "line", "path", "message", "help"),
    [
        ("tpe", "", "[fd-digits]", "", 5, "evaluation.objectives", "two or more", "objective: fd-digits"),
        ("tpe", "", "[fd-digits, network_cals]", "", 5, "evaluation.objectives", "'network_cals'", "'network_calls'"),
        ("tpe", "", "[parameters, network_calls]", "", 5, "evaluation.objectives", "holds costs alone", "a metric"),
        ("tpe", "", "[fd-digits, parameters]", ", objective: fid", 5, "evaluation.objectives", "beside", "one of the"),
        ("tpe", "", "[fd-digits, parameters]", ", metrics: [kd-digits]", 5, "evaluation.metrics", "not among", ""),
        ("CmaEsSampler", "", "[fd-digits, parameters]", "", 4, "search.algorithm", "one objective", "gp, grid, nsga2"),
        ("tpe", ", stopping: ASHAScheduler", "[fd-digits, parameters]", "", 4, "search.stopping", "one score", "asha"),
        ("tpe", "}\nx-a: {b: 1", "[fd-digits, parameters]", "}\nkeep: best\nx-b: {c: 1", 7, "keep", "the front", ""),
        ("tpe", ", stopping: curves", "[fd-digits, parameters]", "", 4, "search.stopping", "one score", "asha"),
        ("tpe", "", "[fd-digits, parameters]", ", screen: {samples: 99}", 5, "evaluation.screen", "one score", ""),
        ("tpe", ", constraints: fd-digits < 9", "[fd-digits, parameters]", ", screen: {samples: 99}", 4,
         "search.constraints", "a metric", "bound costs"),
        ("tpe", ", enqueue: {training.learning_rate: 1}", "[fd-digits, parameters]", "", 4, "search.enqueue",
         "outside of the axis' range", "from 0.0001 to 0.01"),
        ("tpe", ", enqueue: {training.batch_size: 48}", "[fd-digits, parameters]", "", 4, "search.enqueue",
         "batch_size 48 is none of", "its values: 32, 64"),
        ("tpe", ", enqueue: {model.kind: dense, model.channels: [8, 16]}", "[fd-digits, parameters]", "", 4,
         "search.enqueue", "model.channels doesn't exist here: only where model.kind is unet", "leave it out"),
        ("tpe", ", enqueue: [{training.batch_size: 32}, {}]", "[fd-digits, parameters]", "", 4, "search.enqueue",
         "enqueued already", ""),
    ],
)  # fmt: skip
def test_what_several_objectives_and_points_cant_be_is_refused_with_its_line(
    algorithm, search, objectives, evaluation, line, path, message, help
):
    text = OBJECTIVES % (algorithm, search, objectives, evaluation)
    found = [problem for problem in problems_of(text, base="") if problem.path == path]
    assert found and found[0].line == line and message in found[0].message and help in (found[0].help or "")


def test_a_range_and_a_list_of_an_enqueued_point_begin_where_they_do():
    spec = loads(
        OBJECTIVES
        % ("tpe", ", enqueue: [{model.kind: unet}, {training.batch_size: 64}]", "[fd-digits, parameters]", "")
    )
    first, second = spec.search.enqueue
    assert first == {
        "training.learning_rate": pytest.approx(1e-3),
        "training.batch_size": 32,
        "model.kind": "unet",
        "model.channels": (8, 16),
    }
    assert second == {"training.learning_rate": pytest.approx(1e-3), "training.batch_size": 64, "model.kind": "dense"}
