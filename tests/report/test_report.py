"""The written report: its contents, its figures, and that it is the same each time."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from diffsearch.cli import endings
from diffsearch.errors import DataError
from diffsearch.records import Outcome, RunHistory, State
from diffsearch.report.markdown import Pictures, write
from diffsearch.report.phrases import plus_minus
from diffsearch.space.settings import Choice

SECTIONS = [
    "# mnist_unet",
    "## The winner",
    "## In pictures",
    "## What mattered",
    "## What sampling gave",
    "## How it went",
    "## The finalists",
    "## What to try next",
    "## All evaluations",
    "## What it cost",
    "## What went wrong",
    "## To repeat this",
]


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(study_with_pictures, tmp_path_factory):
    """A report of the whole invented study, written once for the tests that only read it."""
    history, pictures = study_with_pictures(tmp_path_factory.mktemp("pictures"))
    folder = tmp_path_factory.mktemp("report")
    return history, pictures, folder, write([history], folder, pictures=pictures)


def test_the_sections_come_in_their_order(whole):
    _, _, folder, path = whole
    assert path == folder / "report.md"
    heads = [line for line in path.read_text().splitlines() if re.match(r"##? [A-Z]|# m", line)]
    assert heads == SECTIONS


def test_every_figure_is_there_at_twice_the_size_and_says_what_it_shows(whole):
    _, _, folder, path = whole
    shown = re.findall(r'<img src="([^"]+)" width="700" alt="([^"]+)">', path.read_text())
    names = {
        "samples",
        "importances",
        "interaction",
        "parallel",
        "noising",
        "progress",
        "learning",
        "finalists",
        "losses",
        "metrics",
    }
    assert {name for name, _ in shown} == {f"figures/{name}.png" for name in names}
    for name, alt in shown:
        assert re.search(r"\d", alt)
        with Image.open(folder / name) as image:
            assert image.size[0] >= 1390
            assert "Software" not in image.info and "Creation Time" not in image.info


def test_the_same_history_gives_the_same_bytes(whole, tmp_path):
    history, pictures, folder, _ = whole
    write([history], tmp_path, pictures=pictures)
    assert files_of(tmp_path) == files_of(folder)


def test_the_evaluations_show_each_score_with_its_spread(whole):
    history, _, _, path = whole
    section = path.read_text().partition("## All evaluations")[2].partition("\n## ")[0]
    scores = [sheet.scores["kd-digits"] for run in history.runs for sheet in run.evaluations if len(sheet.scores) == 2]
    assert "± is within one evaluation's images, not over seeds: the standard deviation over subsets" in section
    for score in scores:
        assert f"{plus_minus(score.value, score.spread)} |" in section
    fd = re.findall(r"EMA \S+ +\| +([\d.,]+) \|", section)
    assert len(fd) == len(scores) + 1, "the Fréchet distance has no spread"


def test_every_table_lines_up_as_plain_text(whole):
    blocks = re.findall(r"(?:^\|.*\n?)+", whole[3].read_text(), flags=re.MULTILINE)
    assert len(blocks) > 8
    for block in blocks:
        assert len({len(line) for line in block.strip().splitlines()}) == 1, block


def test_what_it_says(whole):
    history, _, folder, path = whole
    text = path.read_text()
    assert "floor 0.730" in text and "pure noise 912" in text
    assert "3 seeds, epoch 9, 2,000 samples" in text
    assert history.text.strip() in text and history.command in text and "abc1234" in text
    assert "loss became NaN at epoch 2, step 31" in text and "killed (attempt 1)" in text
    assert "diverged (not ranked)" in text
    assert "```yaml\ntraining:\n  loss: x0-l2\n```" in text  # the winner's settings, to copy
    assert "The same checkpoints, sampled in other ways" in text
    csv = pd.read_csv(folder / "table.csv")
    assert len(csv) == sum(len(run.evaluations) for run in history.runs)
    assert csv["fd-digits"].tolist()[0] == history.runs[0].evaluations[0].scores["fd-digits"].value


def without_pictures(history, folder) -> str:
    return write([history], folder, pictures=Pictures()).read_text()


def test_choices_and_absent_axes_survive_json(make, tmp_path):
    """An axis value with options, None as a value, an axis that some runs lack, and a history read back from JSON."""
    history = make(count=12)
    runs = []
    for run in history.runs:
        point = {
            **run.point,
            "diffusion.noise_process": Choice.of("cosine-squared", offset=0.008 * (run.order % 2 + 1)),
        }
        point["training.gradient_clip"] = None if run.order % 3 else 1.0
        if run.order % 2 and run.stage == "search":
            del point["model.channels"]
        runs.append(dataclasses.replace(run, point=point))
    axes = (*history.axes, "training.gradient_clip")
    typed = dataclasses.replace(history, runs=tuple(runs), axes=axes)
    read = [RunHistory.from_json(json.loads(json.dumps(run.to_json()))) for run in runs]
    pictures = Pictures(real=np.full((130, 3, 8, 8), 200, dtype=np.uint8))
    write([typed], tmp_path / "typed", pictures=pictures)
    write([dataclasses.replace(typed, runs=tuple(read))], tmp_path / "read", pictures=pictures)
    assert files_of(tmp_path / "typed") == files_of(tmp_path / "read")
    text = (tmp_path / "typed" / "report.md").read_text()
    assert "cosine-squared (offset 0.016)" in text and "| None" in text
    assert "Left out, since not varied in every run: channels" in text


def test_an_empty_study(history, tmp_path):
    text = without_pictures(dataclasses.replace(history, runs=()), tmp_path)
    assert "Nothing won" in text and "Nothing failed." in text and "nan" not in text.lower()


def test_one_run_claims_nothing(make, tmp_path):
    history = make(count=1, finalists=False, stopping=False)
    text = without_pictures(history, tmp_path)
    assert "one run, so no interval: nothing is claimed" in text
    assert "Too few runs: 1 of them rank" in text.replace("too few", "Too few") and "Nothing failed." in text


def test_all_failed(make, tmp_path):
    history = make(count=6, finalists=False)
    broken = Outcome(State.FAILED, "ValueError: a | b\n<script>", {"traceback": "..."})
    runs = tuple(dataclasses.replace(run, outcome=broken) for run in history.runs)
    text = without_pictures(dataclasses.replace(history, runs=runs), tmp_path)
    assert "Nothing won" in text
    assert text.count(r"ValueError: a \| b &lt;script&gt;") == 6
    assert "nan" not in text.lower().replace("nan at epoch", "")


def test_what_ended_the_search_is_told(make, tmp_path):
    history = make()
    assert "The search was ended" not in write([history], tmp_path / "old", pictures=Pictures({})).read_text()
    history = dataclasses.replace(history, search_ended="budget.wall (10m)")
    text = write([history], tmp_path / "new", pictures=Pictures({})).read_text()
    runs = sum(run.stage == "search" for run in history.runs)
    assert f"The search was ended by budget.wall (10m) after {runs} runs." in text
    assert re.search(r"\| search ended by +\| budget.wall \(10m\)", text)
    assert "Raised, it goes on with the same command." in endings.cost_line(history)


def test_an_unfinished_study_says_so(make, tmp_path):
    history = make(count=9)
    running = dataclasses.replace(history.runs[-1], outcome=Outcome(State.RUNNING), epochs=(), evaluations=())
    text = without_pictures(dataclasses.replace(history, runs=(*history.runs[:-1], running)), tmp_path)
    assert text.startswith("# mnist_unet\n\n**Unfinished:** 1 run of 15 is still to end")
    assert "2 of 3" in text  # the seeds of the configuration that miss one


def test_a_bad_grid_of_samples_is_named(whole, tmp_path):
    history, pictures, _, _ = whole
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    broken = dataclasses.replace(pictures, samples=dict.fromkeys(pictures.samples, bad))
    with pytest.raises(DataError, match=r"bad\.png"):
        write([history], tmp_path / "out", pictures=broken)


def test_samples_and_real_images_keep_their_pixels(whole):
    """Enlarged by whole numbers: every colour of the figure's panels is one of the images' own."""
    _, pictures, folder, _ = whole
    own = set(np.unique(pictures.real[:128])) | set(
        np.unique(np.asarray(Image.open(next(iter(pictures.samples.values())))))
    )
    figure = np.asarray(Image.open(io.BytesIO((folder / "figures/samples.png").read_bytes())).convert("RGB"))
    panels = figure[46:, : 16 * 28 * 2]
    assert set(np.unique(panels)) <= {int(value) for value in own}


def test_several_studies_are_compared_by_kind_of_score(make, tmp_path):
    first = make(count=8)
    second = dataclasses.replace(make(count=8, seed=11), name="other")
    alone = dataclasses.replace(make(count=5, finalists=False), name="small")
    none = dataclasses.replace(first, name="none", runs=())
    text = write([first, second, alone, none], tmp_path, pictures=Pictures()).read_text()
    assert text.count("## fd-digits on 2,000 samples, mnist-5k") == 1
    assert text.count("## fd-digits on 1,000 samples, mnist-5k") == 1
    table = text[text.index("## fd-digits on 1,000") :]
    table = table[: table.index("# mnist_unet")]
    assert "| small" in table and "| other" not in table and "Without a winner: none." in table
    csv = pd.read_csv(tmp_path / "table.csv")
    assert set(csv["study"]) == {"mnist_unet", "other", "small"}
    assert (tmp_path / "figures" / "other-learning.png").is_file()


def test_a_report_needs_a_study(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write([], tmp_path, pictures=Pictures())
