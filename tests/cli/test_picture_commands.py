"""`sample` and `export`: what they draw is what the store's own checkpoint draws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffsearch import api, exported
from diffsearch.space.settings import Choice, SamplingPoint
from diffsearch.store import Store
from tests.cli.conftest import Cli
from tests.laboratory import Laboratory


def best_run(cli: Cli) -> tuple[str, int]:
    told = json.loads(cli("best", "two", "--json").stdout)
    return told["run"], told["epoch"]


def test_sample_draws_a_grid_of_the_best(cli: Cli, at: Path):
    said = cli("sample", "two", "-o", "grid.png", "--count", 8)
    assert said.exit_code == 0 and "8 images of two" in said.stdout and "EMA 100" in said.stdout
    with Image.open("grid.png") as grid:
        assert grid.size == (4 * 29 + 1, 2 * 29 + 1)


def test_another_sampler_draws_other_images_from_the_same_noise(cli: Cli, at: Path):
    key, _ = best_run(cli)
    words = ["sample", key[:6], "--count", 8, "--epoch", 1]
    assert cli(*words, "-o", "a.png").exit_code == 0
    assert cli(*words, "-o", "b.png", "--sampler", "ddim:eta=0.5", "--steps", 1, "--ema", 0).exit_code == 0
    assert np.any(np.asarray(Image.open("a.png")) != np.asarray(Image.open("b.png")))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--sampler", "ddmi"], "Did you mean 'ddim'?"),
        (["--sampler", "ddim:ta=1"], "Did you mean 'eta'?"),
        (["--steps", 3], "1..2"),
        (["--ema", "5k"], "Kept: 0, 100"),
        (["--ema", "often"], "a number of images"),
        (["--epoch", 7], "Kept: 1, 2"),
    ],
)
def test_what_a_run_cannot_give_is_refused_with_what_it_can(cli: Cli, at: Path, wrong: list[object], told: str):
    said = cli("sample", "two", "-o", "grid.png", *wrong)
    assert said.exit_code == 2 and told in said.stderr and not Path("grid.png").exists()


def test_an_export_draws_what_the_store_draws(cli: Cli, at: Path):
    key, epoch = best_run(cli)
    said = cli("export", "two", "-o", "out")
    assert said.exit_code == 0, said.output
    point = SamplingPoint(Choice("ancestral"), None, 100)
    expected = api.draw(Store.open(at / ".diffsearch").run(key), epoch, point, 20, 3)
    assert torch.equal(exported.load("out").sample(20, seed=3), expected)
    assert expected.float().std() > 0


def test_its_loader_runs_by_itself_in_five_lines(cli: Cli, at: Path):
    cli("export", "two", "-o", "out", "--ema", 0)
    loader = Path("out/load.py").read_text()
    code = [line for line in loader.splitlines() if line and not line.startswith('"""')]
    assert len(code) <= 5
    checked = "; import sys; print(tuple(images.shape), {'ray', 'mlflow'} & set(sys.modules))"
    Path("out/load.py").write_text(loader.rstrip().rsplit("#", 1)[0].rstrip() + checked)
    said = subprocess.run([sys.executable, "out/load.py"], capture_output=True, text=True, check=False)
    assert said.stdout == "(64, 1, 28, 28) set()\n", said.stderr
    assert json.loads(Path("out/config.json").read_text())["sampling"]["ema"] == 0


def test_an_export_does_not_overwrite_other_files(cli: Cli, at: Path):
    said = cli("export", "two", "-o", at / "reports")
    assert said.exit_code == 2 and "holds other files" in said.stderr


# --- class labels -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory, new_laboratory: type[Laboratory]) -> Laboratory:
    made = new_laboratory(tmp_path_factory.mktemp("conditional"))
    made.run({"training.loss": "v-l2", "training.conditioning": "class", "training.epochs": [1], "diffusion.steps": 3})
    return made


def test_sample_draws_one_class_and_guides_to_it(cli: Cli, conditional: Laboratory, tmp_path: Path):
    drawn = {}
    for words in ([], ["--class", "3"], ["--class", "3", "--guidance", 2], ["--class", "8"]):
        picture = tmp_path / f"{len(drawn)}.png"
        said = cli("sample", "tiny", "--store", conditional.store.root, "-o", picture, "--count", 8, *words)
        assert said.exit_code == 0, said.output
        drawn[tuple(words)] = picture.read_bytes()
    assert len(set(drawn.values())) == 4


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(["--class", "cat"], "no such class. known: 0, 1"), (["--guidance", -3], "-3.0 is not in the range")],
)
def test_a_class_that_it_does_not_know_is_refused(
    cli: Cli, conditional: Laboratory, tmp_path: Path, wrong: list[object], told: str
):
    said = cli("sample", "tiny", "--store", conditional.store.root, "-o", tmp_path / "a.png", *wrong)
    assert said.exit_code == 2 and told in said.stderr


@pytest.mark.parametrize("wrong", [["--class", "3"], ["--guidance", 2]])
def test_an_unconditional_network_takes_no_class(cli: Cli, at: Path, wrong: list[object]):
    said = cli("sample", "two", "-o", "grid.png", *wrong)
    assert said.exit_code == 2 and ("is unconditional" in said.stderr or "knows no classes" in said.stderr)


def test_a_conditional_export_draws_the_classes_that_it_is_told(cli: Cli, conditional: Laboratory, tmp_path: Path):
    said = cli("export", "tiny", "--store", conditional.store.root, "-o", tmp_path / "out", "--guidance", 1)
    assert said.exit_code == 0, said.output
    model = exported.load(tmp_path / "out")
    assert model.classes == tuple("0123456789") and model.point.guidance == 1
    (run,) = conditional.history().runs
    point, rows = SamplingPoint(Choice("ancestral"), None, 0, 1.0), torch.eye(10)
    expected = api.draw(conditional.store.run(run.key), 1, point, 10, 3, rows)
    assert torch.equal(model.sample(10, seed=3, labels=rows), expected)
