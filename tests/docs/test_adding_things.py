"""The page on adding things is the source of the code tested here: what it shows works, as it stands."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

import diffsearch
from diffsearch import registry
from diffsearch.diffusion import Denoiser, Schedule
from diffsearch.records import StudyHistory
from diffsearch.space import published
from diffsearch.space.axes import points, sampling_points, settings_at
from diffsearch.space.settings import Choice, walk_choices
from diffsearch.store import evaluation_key, run_key

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding_things.md"
NO_MLFLOW = "http://127.0.0.1:1"  # refuses at once
MEMBERS = {
    "dataset:digits-8x8",
    "model:linear",
    "noise_process:sigmoid",
    "loss:x0-huber",
    "sampler:renoise",
    "extractor:dct",
    "metric:coverage",
}
# The study of the page on shipped data and a shipped network: one of its four points uses nothing of mine.py.
ON_SHIPPED = ("data={dataset: mnist-5k, images: 200}", "model={kind: dense, hidden: [[16]]}")


def blocks(language: str) -> list[str]:
    """The page's code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def write_page(folder: Path) -> Path:
    """mine.py, test_mine.py and mine.yaml as the page has them; the study file's path."""
    python, [study] = blocks("python"), blocks("yaml")
    [checks] = [block for block in python if "\nregistry.use(" in block]
    (folder / "mine.py").write_text("\n\n".join(block for block in python if block != checks))
    (folder / "test_mine.py").write_text(checks)
    (folder / "mine.yaml").write_text(study)
    return folder / "mine.yaml"


def run_keys(study: diffsearch.Study) -> dict[tuple[str, str], str]:
    """(noise process, loss) → run key, of each point."""
    spec = study.spec
    found = {}
    for point in points(spec.axes, spec.fixed):
        settings = settings_at(spec, point, spec.seed)
        found[settings.noise_process.name, settings.training.loss] = run_key(settings, "content", spec.extensions)
    return found


def evaluation_keys(study: diffsearch.Study) -> dict[str, str]:
    """Sampler → key of its evaluation, on one and the same run."""
    spec = study.spec
    settings = settings_at(spec, next(iter(points(spec.axes, spec.fixed))), spec.seed)
    drawn = sampling_points(spec, settings)
    return {point.sampler.name: evaluation_key("run", 1, point, 64, 0, spec.extensions) for point in drawn}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[diffsearch.Study]:
    """The page's study, run in this process as it stands."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        study = diffsearch.load(write_page(folder), store=folder / "store")
        study.run(workers=0, tracking_uri=NO_MLFLOW)
        yield study


@pytest.fixture(scope="module")
def history(ran: diffsearch.Study) -> StudyHistory:
    return ran.history(from_store=True)


@pytest.fixture(scope="module")
def table(ran: diffsearch.Study) -> pd.DataFrame:
    return ran.table()


def test_every_member_of_the_page_is_used_by_its_study(history: StudyHistory, table: pd.DataFrame) -> None:
    used = {f"{family}:{name}" for run in history.runs for family, name in walk_choices(run.settings)}
    used |= {f"sampler:{line.sampling.sampler.name}" for run in history.runs for line in run.evaluations}
    assert MEMBERS - used == {"extractor:dct", "metric:coverage"}, "the two that the table shows"
    assert {"fd-dct", "coverage-dct"} <= set(table.columns)
    assert len(table) == 4 * 2 * 2, "points, milestones, samplers"
    assert set(table.state) == {"finished"} and table[["fd-dct", "coverage-dct"]].notna().all(axis=None)


def test_options_of_the_study_reach_the_members(history: StudyHistory) -> None:
    given = [run.settings for run in history.runs]
    assert {settings.dataset.kwargs["hold_out"] for settings in given} == {5}
    assert {settings.model.kwargs["rank"] for settings in given} == {24}
    sharpness = {s.noise_process.kwargs.get("sharpness") for s in given if s.noise_process.name == "sigmoid"}
    assert sharpness == {2.5}
    assert history.train_images == 1797 - 360


def test_the_members_work(history: StudyHistory, table: pd.DataFrame) -> None:
    """Each point learns, each sampler draws images of its own, and both scores lie within their bounds."""
    by_epoch = table.groupby(["noise_process", "loss", "sampling", "epoch"])["fd-dct"].first().unstack("epoch")
    assert (by_epoch[5] < by_epoch[1] / 2).all()
    last = table[table.epoch == 5].set_index(["noise_process", "loss", "sampling"])["fd-dct"].unstack("sampling")
    assert (last.nunique(axis=1) == 2).all()
    bounds = {bound.metric: bound for bound in history.bounds}
    distance, covered = bounds["fd-dct"], bounds["coverage-dct"]
    assert distance.floor < table["fd-dct"].min() < distance.ceiling / 4
    assert covered.ceiling == 0 and 0.3 < table["coverage-dct"].max() < covered.floor <= 1


def test_the_sampler_of_the_page_draws_the_law_of_its_recursion(ran: diffsearch.Study) -> None:
    """On Gaussian data, whose denoiser is linear: each guess x_0 = a x_t + b is noised with fresh noise."""
    mean, std, steps = 0.4, 0.7, 20
    schedule = Schedule.build(Choice("sigmoid"), steps)
    alpha_bar = schedule.alpha_bar
    slope = alpha_bar.sqrt() * std**2 / (alpha_bar * std**2 + 1 - alpha_bar)

    def exact(x_t: Tensor, t: Tensor) -> Tensor:
        return mean + slope[t[0]] * (x_t - alpha_bar[t[0]].sqrt() * mean)

    denoiser = Denoiser(exact, schedule, "x0", -9.0, 9.0, torch.full((1, 4, 4), mean, dtype=torch.float64))
    noise = torch.randn(2000, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = registry.sampler.build("renoise", denoiser, noise, None, torch.Generator().manual_seed(1))
    variance = 1.0
    for t in range(steps, 0, -1):
        s = float(alpha_bar[t - 1])
        variance = s * float(slope[t]) ** 2 * variance + 1 - s
    assert float(drawn.mean()) == pytest.approx(mean, abs=5 * (variance / drawn.numel()) ** 0.5 + 0.01)
    assert float(drawn.var()) == pytest.approx(variance, rel=5 * (2 / drawn.numel()) ** 0.5)


def test_editing_the_file_changes_the_keys_of_just_what_uses_it(tmp_path: Path) -> None:
    path = write_page(tmp_path)
    before = diffsearch.load(path, ON_SHIPPED, store=tmp_path / "store")
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\n# another thought\n")
    after = diffsearch.load(path, ON_SHIPPED, store=tmp_path / "store")
    old, new = run_keys(before), run_keys(after)
    assert {point for point in old if old[point] == new[point]} == {("linear-noise", "x0-l2")}
    assert len({*old.values(), *new.values()}) == 7
    drawn, again = evaluation_keys(before), evaluation_keys(after)
    assert {sampler for sampler in drawn if drawn[sampler] == again[sampler]} == {"ddim"}


def test_on_data_of_the_file_every_run_is_its_own(tmp_path: Path) -> None:
    path = write_page(tmp_path)
    before = run_keys(diffsearch.load(path, store=tmp_path / "store"))
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\n# a further thought\n")
    after = run_keys(diffsearch.load(path, store=tmp_path / "store"))
    assert not {*before.values()} & {*after.values()}


def test_only_what_the_file_registers_is_of_the_file(tmp_path: Path) -> None:
    """In a fresh process, where importing mine.py imports the rooms of the shipped members for the first time."""
    write_page(tmp_path)
    ask = "import diffsearch; print(*diffsearch.load('mine.yaml').spec.extensions, sep='\\n')"
    said = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(said.stdout.split()) == MEMBERS


def test_the_checks_of_the_page_pass(tmp_path: Path) -> None:
    write_page(tmp_path)
    found = runpy.run_path(str(tmp_path / "test_mine.py"))
    checks = [check for name, check in found.items() if name.startswith("test_")]
    assert len(checks) == 2
    for check in checks:
        check()


def test_the_published_numbers_of_the_page_are_read() -> None:
    [text] = blocks("yml")
    [table] = published.loads(text).tables
    assert (table.axis, table.winner, [row.value for row in table.rows]) == ("training.batch_size", 64, [32, 64])


def test_the_page_is_short() -> None:
    lines = PAGE.read_text().splitlines()
    assert len(lines) <= 225 and max(map(len, lines)) <= 120
