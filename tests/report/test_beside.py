"""Printed tables beside measured ones: which runs answer them, orders, Kendall's τ, and what lies inside the noise."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest
from PIL import Image
from scipy import stats

from diffsearch.records import Bounds, Evaluation, Outcome, RunHistory, Score, State, StudyHistory
from diffsearch.report.beside import compare, correlation, repeated, stranger
from diffsearch.report.markdown import Pictures, write
from diffsearch.space.published import loads
from diffsearch.space.settings import Choice, SamplingPoint
from tests.report.conftest import hex_of, settings_of

START = {
    "model.channels": (8, 16),
    "diffusion.steps": 15,
    "diffusion.noise_process": "linear-noise",
    "training.loss": "x-prev-l2",
    "training.batch_size": 256,
    "training.normalization": (-1.0, 1.0),
    "training.learning_rate": 1e-3,
}
AXES = ("training.batch_size", "training.loss")
MILESTONES = (1, 5, 50)
BATCH = """\
title: Batches
year: 2023
settings: {training.loss: x-prev-l2, training.epochs: 50}
not_printed: [optimiser]
tables:
  - name: batch size
    where: section 4
    metric: fid
    extractor: InceptionV3
    axis: training.batch_size
    settings: {model.channels: [32, 64]}
    train_images: 60000
    winner: 256
    rows:
      - {value: 32, score: 26.4}
      - {value: 64, score: 27.3}
      - {value: 256, score: 21.4}
      - {value: 512, score: 42.2}
"""


def run_of(
    order: int, changes: dict, curve: dict[int, float], seed: int = 0, state: State = State.FINISHED, ema: int = 0
):
    """A run of the search at START with some changes; `curve` is epoch → fd-digits."""
    point = {**START, **changes}
    key = hex_of("run", sorted(point.items(), key=str), seed)
    sheets = tuple(
        Evaluation(hex_of(key, epoch), key, epoch, SamplingPoint(Choice.of("ancestral"), None, ema), 100, seed,
                   {"fd-digits": Score(score, 100, "e" * 16)}, 1500, 1.0, 0.1)
        for epoch, score in curve.items()
    )  # fmt: skip
    on_axes = {path: point[path] for path in AXES}
    outcome = Outcome(state, "" if state is State.FINISHED else "said so")
    return RunHistory(key, settings_of(point, seed), on_axes, "search", order, outcome, (), sheets, 0, 0)


def history_of(*runs: RunHistory, milestones: tuple[int, ...] = MILESTONES) -> StudyHistory:
    bounds = (Bounds("fd-digits", 100, 2.0, 900.0),)
    return StudyHistory("s", "fd-digits", "min", ("fd-digits",), 100, AXES, milestones, runs, bounds, "name: s\n",
                        "diffsearch run s.yaml", 10.0, 1, 2, 5000, "the store", {})  # fmt: skip


def seeds(
    first: int, changes: dict, scores: list[float], epochs: tuple[int, ...] = (1, 5), **options
) -> list[RunHistory]:
    """One run a score, each a seed; the score is that of the last epoch, and worse before it."""
    return [
        run_of(first + seed, changes, {e: score + 100 * (epochs[-1] - e) for e in epochs}, seed, **options)
        for seed, score in enumerate(scores)
    ]


def sequential() -> StudyHistory:
    """Batch size tuned to epoch 5 from 256, epochs to 50 on its winner 32, then the loss at batch size 32."""
    runs = [
        *seeds(1, {"training.batch_size": 32}, [50, 52, 54], epochs=(1, 5, 50)),
        *seeds(4, {"training.batch_size": 64}, [360, 362, 364]),
        *seeds(7, {"training.batch_size": 256}, [500, 600, 700]),
        *seeds(10, {"training.batch_size": 32, "training.loss": "mu-tilde-l2"}, [40, 41, 42]),
        *seeds(13, {"training.batch_size": 32, "training.loss": "epsilon-l2"}, [90, 95, 91], state=State.DIVERGED),
    ]
    return history_of(*runs)


def batch(history: StudyHistory, text: str = BATCH):
    published = loads(text)
    return compare(history, published, published.tables[0])


def test_a_table_is_answered_by_the_runs_in_which_its_axis_alone_varied() -> None:
    """At the last epoch that they share: the winner's further epochs belong to another axis."""
    found = batch(sequential())
    means = {line.row.value: line.measured and round(line.measured.mean) for line in found.lines}
    assert means == {32: 52 + 4500, 64: 362, 256: round(stats.gmean([500, 600, 700])), 512: None}
    assert (found.epoch, found.mixed) == (5, False)
    assert [(line.measured.n, line.asked) for line in found.lines[:3]] == [(3, 3)] * 3
    assert found.lines[3].state == "not run" and found.lines[3].ranks is None
    assert [line.ranks for line in found.lines[:3]] == [(2, 3), (3, 1), (1, 2)]
    assert found.ours["model.channels"] == ((8, 16),) and found.ours["training.loss"] == ("x-prev-l2",)


def test_the_epochs_are_read_off_one_run() -> None:
    text = BATCH.replace("axis: training.batch_size", "axis: training.epochs").replace("winner: 256", "winner: 50")
    for old, new in ((32, 1), (64, 5), (256, 50), (512, 1000)):
        text = text.replace(f"value: {old},", f"value: {new},")
    found = batch(sequential(), text)
    assert [line.measured and round(line.measured.mean) for line in found.lines] == [4952, 4552, 52, None]
    assert found.epoch is None and found.lines[3].state == "not run" and found.lines[0].asked == 3


def test_a_value_whose_runs_all_failed_has_their_state_and_no_score() -> None:
    text = BATCH.replace("training.batch_size", "training.loss").replace("winner: 256", "winner: x-prev-l2")
    for old, new in ((32, "mu-tilde-l2"), (64, "x-prev-l2"), (256, "epsilon-l2"), (512, "x0-l2")):
        text = text.replace(f"value: {old},", f"value: {new},")
    lines = {line.row.value: line for line in batch(sequential(), text).lines}
    assert lines["epsilon-l2"].measured is None and lines["epsilon-l2"].state == "diverged"
    assert lines["x0-l2"].state == "not run" and round(lines["mu-tilde-l2"].measured.mean, 1) == 41.0


def test_a_seed_that_failed_is_missing_from_n() -> None:
    runs = [*seeds(1, {"training.batch_size": 32}, [10, 11]), *seeds(3, {"training.batch_size": 64}, [20, 21])]
    lost = run_of(9, {"training.batch_size": 32}, {}, seed=7, state=State.OUT_OF_MEMORY)
    found = batch(history_of(*runs, lost))
    assert [(line.measured.n, line.asked) for line in found.lines[:2]] == [(2, 3), (2, 2)]


def test_among_equals_the_runs_with_the_printed_settings_answer() -> None:
    """A grid holds the table once for each value of its other axes, and at each epoch."""
    runs = [
        run_of(order, {"training.batch_size": size, "training.loss": loss}, {5: 1.0 * size, 50: 2.0 * size, 80: 3.0})
        for order, (loss, size) in enumerate(itertools.product(["mu-tilde-l2", "x-prev-l2"], [32, 64]), 1)
    ]
    found = batch(history_of(*runs, milestones=(5, 50, 80)))
    assert found.epoch == 50 and found.ours["training.loss"] == ("x-prev-l2",)
    assert [line.measured and round(line.measured.mean) for line in found.lines] == [64, 128, None, None]


def test_a_joint_search_is_answered_by_all_its_runs_and_says_nothing_of_noise() -> None:
    losses = ["x-prev-l2", "mu-tilde-l2", "x0-l2", "v-l2", "x-prev-l1", "mu-tilde-l1"]
    sizes = [32, 32, 64, 64, 256, 256]
    runs = [
        run_of(order, {"training.batch_size": size, "training.loss": loss}, {1: 90.0, 5: 10.0 * order})
        for order, (size, loss) in enumerate(zip(sizes, losses, strict=True), 1)
    ]
    found = batch(history_of(*runs))
    means = [stats.gmean(pair) for pair in ([10, 20], [30, 40], [50, 60])]
    assert found.mixed and found.lines[3].measured is None
    assert [line.measured.mean for line in found.lines[:3]] == pytest.approx(means, rel=1e-12)
    assert all(order.verdict == "" for order in found.orders) and found.taken.verdict == ""
    assert found.ours["training.loss"] == tuple(losses)


def test_a_study_without_the_axis_answers_the_row_that_it_holds() -> None:
    text = BATCH.replace("training.batch_size", "diffusion.steps").replace("winner: 256", "winner: 15")
    for old, new in ((32, 5), (64, 15), (256, 30), (512, 50)):
        text = text.replace(f"value: {old},", f"value: {new},")
    found = batch(history_of(*seeds(1, {}, [5.0, 6.0])), text)
    assert [line.state for line in found.lines] == ["not run", "", "not run", "not run"]
    assert found.lines[1].measured.mean == pytest.approx(math.sqrt(30)) and found.tau is None


# --- orders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_256", "at_32", "verdict"),
    [
        ([10.0, 11.0, 12.0], [20.0, 21.0, 22.0], "held"),
        ([20.0, 21.0, 22.0], [10.0, 11.0, 12.0], "reversed"),
        ([10.0, 14.0, 18.0], [11.0, 15.0, 19.0], "inside the noise"),
        ([11.0, 15.0, 19.0], [10.0, 14.0, 18.0], "inside the noise"),
        ([10.0], [20.0], ""),
    ],
)
def test_repeats_say_whether_the_published_order_is_noise(at_256: list, at_32: list, verdict: str) -> None:
    history = history_of(*seeds(1, {"training.batch_size": 256}, at_256), *seeds(9, {"training.batch_size": 32}, at_32))
    found = batch(history)
    assert [(order.better.value, order.worse.value) for order in found.orders] == [(256, 32), (32, 64), (64, 512)]
    assert [order.verdict for order in found.orders] == [verdict, "", ""]
    assert (found.taken.better.value, found.taken.worse.value, found.taken.verdict) == (256, 32, verdict)


def test_what_was_printed_alike_has_no_order() -> None:
    history = history_of(
        *seeds(1, {"training.batch_size": 256}, [1.0, 1.1]), *seeds(9, {"training.batch_size": 32}, [9.0, 9.1])
    )
    found = batch(history, BATCH.replace("score: 26.4", "score: 21.4"))
    assert found.orders[0].verdict == "" and found.orders[0].better.score == found.orders[0].worse.score


def test_the_choice_of_the_authors_may_be_worse_than_another_of_their_values() -> None:
    history = history_of(
        *seeds(1, {"training.batch_size": 256}, [1.0, 1.1]), *seeds(9, {"training.batch_size": 32}, [9.0, 9.1])
    )
    found = batch(history, BATCH.replace("winner: 256", "winner: 32"))
    assert (found.taken.better.value, found.taken.worse.value, found.taken.verdict) == (32, 256, "reversed")
    assert found.orders[0].verdict == "held"


def test_where_high_scores_are_good_there_the_orders_turn_round() -> None:
    history = history_of(
        *seeds(1, {"training.batch_size": 256}, [9.0, 9.1]), *seeds(9, {"training.batch_size": 32}, [1.0, 1.1])
    )
    found = batch(history, BATCH.replace("metric: fid", "metric: recall-inception"))
    assert [(order.better.value, order.worse.value) for order in found.orders][-1] == (32, 256)
    assert found.orders[-1].verdict == "held" and found.tau.tau == 1.0
    assert {line.row.value: line.ranks for line in found.lines if line.ranks} == {32: (1, 1), 256: (2, 2)}


def test_an_objective_that_is_to_be_high_turns_the_measured_column_too() -> None:
    history = history_of(
        *seeds(1, {"training.batch_size": 256}, [0.9, 0.8]), *seeds(9, {"training.batch_size": 32}, [0.1, 0.2])
    )
    runs = [
        dataclasses.replace(
            run,
            evaluations=tuple(
                dataclasses.replace(sheet, scores={"recall-digits": sheet.scores["fd-digits"]})
                for sheet in run.evaluations
            ),
        )
        for run in history.runs
    ]
    found = batch(
        dataclasses.replace(
            history, runs=tuple(runs), objective="recall-digits", metrics=("recall-digits",), direction="max"
        )
    )
    assert found.metric == "recall-digits" and found.orders[0].verdict == "held" and found.tau.tau == 1.0
    assert {line.row.value: line.ranks for line in found.lines if line.ranks} == {32: (2, 2), 256: (1, 1)}


# --- Kendall's tau ------------------------------------------------------------------------------------------------


def tau_a(pairs: list[tuple[float, float]]) -> float:
    """By its definition, without ties: concordant less discordant pairs, as a share of all."""
    signs = [math.copysign(1, (a - c) * (b - d)) for (a, b), (c, d) in itertools.combinations(pairs, 2)]
    return sum(signs) / len(signs)


@pytest.mark.parametrize("seed", range(20))
def test_tau_is_the_share_of_pairs_in_the_same_order(seed: int) -> None:
    rng = random.Random(seed)
    pairs = [(rng.random(), rng.random()) for _ in range(rng.randint(2, 9))]
    assert correlation(pairs).tau == pytest.approx(tau_a(pairs), abs=1e-12)


def test_p_of_perfect_agreement_is_two_of_all_orders() -> None:
    """Of n! orders one agrees wholly and one is wholly opposite."""
    for n in range(3, 8):
        found = correlation([(float(i), float(i)) for i in range(n)])
        assert found.n == n and (found.tau, found.p) == pytest.approx((1.0, 2 / math.factorial(n)), rel=1e-9)


def test_tau_and_p_are_scipys_also_with_ties() -> None:
    pairs = [(13.3, 5.0), (13.3, 4.0), (20.0, 9.0), (339.3, 8.0), (24.2, 8.0)]
    found, theirs = correlation(pairs), stats.kendalltau(*zip(*pairs, strict=True))
    assert (found.tau, found.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-12)
    turned = correlation(pairs, (1.0, -1.0))
    assert turned.tau == pytest.approx(-found.tau) and turned.p == pytest.approx(found.p)


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)], [(1.0, 2.0), (3.0, 2.0)]])
def test_without_an_order_there_is_no_tau(pairs: list) -> None:
    assert correlation(pairs) is None


# --- what a file says of itself, and of which study it speaks -----------------------------------------------------


def test_settings_that_were_printed_twice_show_the_authors_own_noise() -> None:
    again = """\
  - name: loss
    where: section 5
    metric: fid
    extractor: InceptionV3
    axis: training.loss
    settings: {model.channels: [32, 64], training.batch_size: 256}
    rows: [{value: x-prev-l2, score: 13.3}, {value: x-prev-l1, score: 13.3}]
"""
    assert repeated(loads(BATCH)) == []
    assert repeated(loads(BATCH + again)) == [(21.4, 13.3)]


def test_a_table_of_another_network_or_other_images_does_not_speak_of_a_study() -> None:
    history = sequential()
    for settings, why in [
        ("model.kind: unet, data.dataset: mnist", ""),  # mnist-5k holds digits of mnist
        ("model.kind: dense", "of the network dense"),
        ("data.dataset: cifar10", "of cifar10"),
    ]:
        published = loads(BATCH.replace("model.channels: [32, 64]", settings))
        assert stranger(history, published, published.tables[0]) == why


def test_a_sequential_study_that_was_run_answers_its_tables(laboratory, tmp_path) -> None:
    """Batch size from the start, then the epochs on its winner, then the loss: each table finds its own stage."""
    changes = {
        "repeats": 2,
        "training.loss": ["x0-l2", "v-l2"],
        "training.batch_size": [50, 100],
        "search.algorithm": {
            "name": "sequential",
            "order": ["training.batch_size", "training.epochs", "training.loss"],
            "start": {"training.batch_size": 100, "training.epochs": 1},
            "later_epochs": 1,
        },
    }
    laboratory.run(changes)
    history = laboratory.history()
    text = "title: Tiny\ntables:\n"
    for axis, values in (("batch_size", [50, 100]), ("epochs", [1, 2]), ("loss", ["x0-l2", "v-l2"])):
        rows = ", ".join(f"{{value: {value}, score: {place}}}" for place, value in enumerate(values))
        text += f"  - {{name: {axis}, where: t, metric: fid, extractor: i, axis: training.{axis}, rows: [{rows}]}}\n"
    published = loads(text)
    found = {table.name: compare(history, published, table) for table in published.tables}
    assert all(line.measured.n == line.asked == 2 for each in found.values() for line in each.lines)
    assert not any(each.mixed for each in found.values())
    assert [found[name].epoch for name in ("batch_size", "epochs", "loss")] == [1, None, 1]
    best = min(found["batch_size"].lines, key=lambda line: line.measured.mean)
    first = [found["epochs"].lines[0].measured.mean, found["loss"].lines[0].measured.mean]
    assert first == pytest.approx([best.measured.mean] * 2, rel=1e-12), "each stage goes on from the winner before"


# --- in the report ------------------------------------------------------------------------------------------------


def section(history: StudyHistory, text: str, folder) -> str:
    path = write([history], folder, pictures=Pictures(), published=loads(text))
    return path.read_text().partition("## Published and measured")[2].partition("\n## ")[0]


def test_the_report_sets_them_side_by_side_and_says_what_differs(tmp_path) -> None:
    text = section(sequential(), BATCH, tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == [
        "batch_size",
        "published fid",
        "measured fd-digits [95 %]",
        "n",
        "rank there",
        "rank here",
        "over the next",
    ]
    assert rows[3] == ["64", "27.3", "362.0 [357.1, 367.0]", "3", "3", "1", "512: –"]
    assert rows[4] == ["256 (taken)", "21.4", "590 [390, 900]", "3", "1", "2", "32: held"]
    assert rows[5] == ["512", "42.2", "not run", "–", "–", "–", ""]
    for said in (
        "*Batches*, 2023",
        "Never printed: optimiser.",
        "There → here: fid (InceptionV3) → fd-digits (of which only the order can be compared); images",
        "images scored not printed → 100 images scored",
        "60,000 images trained on → 5,000 images trained on",
        "50 epochs (3.0 M images) → 5 epochs (25 k images)",
        "model.channels [32, 64] → [8, 16]",
        "τ = -0.33 (p = 1, 3 values; so few can't give a p below 0.33).",
        "The authors took 256 (21.4) over 32 (26.4): our repeats tell them apart, the same way round.",
    ):
        assert said in text, said
    with Image.open(tmp_path / "figures/published-1.png") as image:
        assert image.size[0] >= 1390
    assert "published fid and measured fd-digits: 32: 26.4 and 4,552.0 [4,547.0, 4,557.0]; 64: 27.3" in text


def test_what_differs_in_all_tables_is_said_once(tmp_path) -> None:
    another = """\
  - name: loss
    where: section 5
    metric: fid
    extractor: InceptionV3
    axis: training.loss
    settings: {training.batch_size: 256}
    train_images: 60000
    rows: [{value: x-prev-l2, score: 13.3}, {value: mu-tilde-l2, score: 24.2}]
"""
    text = section(sequential(), BATCH + another, tmp_path)
    [above, first, second] = text.split("\n### ")
    assert "In all tables, there → here: fid (InceptionV3) → fd-digits" in above
    assert "60,000 images" in above and "50 epochs (3.0 M images) → 5 epochs (25 k images)" in above
    assert "There → here: model.channels [32, 64] → [8, 16].\n" in first
    assert "There → here: batch_size 256 → 32.\n" in second


def test_one_setting_stands_between_noise_and_real_images(tmp_path) -> None:
    text = """\
title: One
tables:
  - name: score
    where: table 2
    metric: fd-digits
    extractor: our own
    samples: 100
    settings: {training.batch_size: 64}
    rows: [{score: 2.6435, error: 0.1593}]
    noise: {score: 1.2150, error: 0.0113}
    real: {score: 9.9603}
claims: [{what: it is good, where: the end}]
"""
    found = section(sequential(), text, tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines() if line.startswith("| ")]
    assert rows[2] == ["pure noise", "1.215 ± 0.0113", "900", "–"]
    assert rows[3] == [
        "the model; here the runs nearest to its settings",
        "2.6435 ± 0.1593",
        "362.0 [357.1, 367.0]",
        "3",
    ]
    assert rows[4][:3] == ["this study's winner, 100 samples", "–", "41.0 [38.6, 43.6]"]
    assert rows[5] == ["real images", "9.9603", "2.00", "–"]
    assert "it is good" in found and "only their order" not in found and "τ =" not in found


def test_a_report_that_prints_no_score_is_still_told(tmp_path) -> None:
    text = "title: None\nsettings: {training.loss: epsilon-l2, training.epochs: 100, sampling.steps: 10}\n"
    found = section(sequential(), text + "figures: [{what: a grid, where: figure 1}]\n", tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines() if line.startswith("| ")]
    assert rows[2:5] == [
        ["loss", "epsilon-l2", "mu-tilde-l2"],
        ["training.epochs", "100", "5"],
        ["sampling.steps", "10", "–"],
    ]
    assert "It prints no score" in found and "a grid" in found


def test_a_study_that_ran_nothing_leaves_the_column_blank(tmp_path) -> None:
    found = section(history_of(), BATCH, tmp_path)
    assert found.count("not run") == 4 and "there is no τ" in found and "nan" not in found.lower()


def test_without_published_numbers_there_is_no_such_section(tmp_path) -> None:
    assert "Published" not in write([sequential()], tmp_path, pictures=Pictures()).read_text()
