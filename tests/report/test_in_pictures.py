"""The section of pictures: what applies is shown, what doesn't leaves no trace, and nothing is drawn twice."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsearch import registry
from diffsearch.api import Study
from diffsearch.data.datasets import ImageData
from diffsearch.data.datasets import load as load_data
from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser, Schedule
from diffsearch.errors import MetricError
from diffsearch.records import Evaluation
from diffsearch.report import plates, sittings
from diffsearch.report.album import FILE, Album, album
from diffsearch.report.in_pictures import in_pictures
from diffsearch.report.ranks import winner
from diffsearch.report.sittings import MOST_CALLS, Real, Studio
from diffsearch.scoring.features import Extractor
from diffsearch.space.settings import Choice, SamplingPoint
from diffsearch.store import Store

ONE = {"training.loss": "x0-l2"}  # of the tiny study's two runs
UNCONDITIONAL = ["noising", "trajectory", "interpolation", "reconstruction", "best-of", "neighbours", "losses"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def studied(new_laboratory, tmp_path_factory):
    """A tiny study, run once."""
    laboratory = new_laboratory(tmp_path_factory.mktemp("study"))
    laboratory.run(ONE)
    return laboratory


@pytest.fixture(scope="module")
def report(studied) -> Path:
    return Study(studied.spec(ONE), studied.store).report(studied.folder / "report", from_store=True)


@pytest.fixture
def store(studied, tmp_path) -> Store:
    """A copy of the study's store without an album, to spoil."""
    shutil.copytree(studied.store.root, tmp_path / "store", ignore=shutil.ignore_patterns(FILE))
    return Store.open(tmp_path / "store")


@pytest.fixture
def data(studied) -> ImageData:
    return load_data(studied.history().runs[0].settings.dataset)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def shown(text: str) -> list[str]:
    return re.findall(r'<img src="figures/([^"]+)\.png"', text)


def sheets_of(studied) -> list[Evaluation]:
    """The evaluations of the one run, the winner's first."""
    history = studied.history()
    found = winner(history)
    assert found is not None
    others = [sheet for run in history.runs for sheet in run.evaluations if sheet.key != found.sheet.key]
    return [found.sheet, *others]


def section_of(studied, made: Album) -> str:
    return in_pictures(studied.history(), None, made, lambda drawn: f"({drawn.name})" if drawn else "")


def test_what_applies_is_shown_with_a_caption_of_its_numbers(report) -> None:
    text = report.read_text()
    text = text[text.index("## In pictures") : text.index("## What mattered")]
    assert shown(text) == UNCONDITIONAL
    captions = re.findall(r"<img [^>]+>\n\n([^\n]+)", text)
    assert len(captions) == len(UNCONDITIONAL)
    assert "by ancestral (2 network calls each)" in text and "The best 16 of" in text and "picked" in text
    assert re.search(r"0\.\d+ and 0\.\d+ of the arc's norm", text)
    back = r"from t = 1 they come back [\d.]+ grey levels of 255 off on average \([\d.]+ in the network's own units\)"
    assert re.search(r"4 training images noised part of the way .*: " + back, text)


def test_a_report_made_again_draws_nothing_and_is_the_same(studied, report, tmp_path) -> None:
    assert "figures/trajectory.png" in files_of(report.parent)
    aside = tmp_path / "aside"
    (studied.store.root / "runs").rename(aside)
    try:
        shutil.copytree(aside, studied.store.root / "runs", ignore=shutil.ignore_patterns("*.safetensors"))
        again = Study(studied.spec(ONE), studied.store).report(tmp_path / "again", from_store=True)
    finally:
        shutil.rmtree(studied.store.root / "runs")
        aside.rename(studied.store.root / "runs")
    assert files_of(again.parent) == files_of(report.parent)


def test_what_is_drawn_again_is_drawn_the_same(studied, store, data) -> None:
    kept = store.study("tiny") / FILE
    first = album(store, "tiny", "fd-digits", sheets_of(studied), data, CPU)
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2])  # torn
    again = album(store, "tiny", "fd-digits", sheets_of(studied), data, CPU)
    assert kept.read_bytes() == content and list(first.plates) == list(again.plates)
    kept_one = album(store, "tiny", "fd-digits", sheets_of(studied), data, CPU)
    for name, plate in first.plates.items():
        assert plate.facts == kept_one.plates[name].facts
        assert all(np.array_equal(image, kept_one.plates[name].images[part]) for part, image in plate.images.items())


def test_a_checkpoint_that_isnt_kept_takes_one_line(studied, store, data) -> None:
    first, *others = sheets_of(studied)
    store.run(first.run_key).checkpoint(first.epoch).unlink()
    text = section_of(studied, album(store, "tiny", "fd-digits", [first], data, CPU))
    line = f"No checkpoint is kept of run `{first.run_key[:6]}`, epoch {first.epoch}, ancestral, EMA off, so nothing"
    assert text == f"## In pictures\n\n{line} could be drawn from it.\n\n(losses)"
    other = next(sheet for sheet in others if sheet.epoch != first.epoch)
    found = album(store, "tiny", "fd-digits", [first, other], data, CPU)  # another seed of the winner, say
    assert f"epoch {other.epoch}," in found.of and "trajectory" in found.plates


def test_another_winner_has_another_album(studied, store, data) -> None:
    first, second, *_ = sheets_of(studied)
    albums = [album(store, "tiny", "fd-digits", [sheet], data, CPU) for sheet in (first, second)]
    assert [f"epoch {sheet.epoch}" in found.of for sheet, found in zip((first, second), albums, strict=True)] == [
        True
    ] * 2
    of_first, of_second = (found.plates["trajectory"].images["x_t"] for found in albums)
    assert np.array_equal(of_first[0], of_second[0]) and not np.array_equal(of_first[-1], of_second[-1])


def test_without_the_data_set_nothing_real_is_shown(studied, store) -> None:
    found = album(store, "tiny", "fd-digits", sheets_of(studied), None, CPU)
    assert set(found.plates) == {"trajectory", "interpolation"}
    text = section_of(studied, found)
    assert "(interpolation)\n\nThe data set isn't on this machine: nothing is reconstructed, and" in text


def test_an_extractor_that_cant_be_had_takes_one_line(studied, store, data) -> None:
    @registry.extractor.register("absent", dim=1, image_shape=None)
    def absent() -> Extractor:
        raise MetricError("the weights of 'absent' aren't on this machine")

    found = album(store, "tiny", "fd-absent", sheets_of(studied), data, CPU)
    assert set(found.plates) == {"trajectory", "interpolation", "reconstruction"}
    assert found.lacking == ("No neighbours are shown: the weights of 'absent' aren't on this machine.",)


def test_nothing_at_all_leaves_no_heading(history) -> None:
    assert in_pictures(dataclasses.replace(history, runs=()), None, Album(), lambda drawn: "") == ""


# --- sittings, on networks that are known ---------------------------------------------------------------------------


SHAPE = (1, 6, 6)


class Counting:
    """Sees an even grey that its label says, 0.5 without one; counts the images that it is asked about."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls.append(len(x_t))
        level = torch.full((len(x_t),), 0.5) if labels is None else labels @ torch.linspace(-0.8, 0.8, labels.shape[1])
        return level[:, None, None, None].expand_as(x_t)


class Means:
    """An extractor whose features are the mean grey alone."""

    name, content, dim, image_shape = "means", "0" * 16, 1, None

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        return np.asarray(images, np.float32).mean((1, 2, 3))[:, None]


def studio_of(
    steps: int = 15, predicts: str = "x0", classes: int = 0, point_steps: int | None = None, speed: float = 1e9
) -> Studio:
    schedule = Schedule.build(Choice("linear-beta"), steps)
    means = torch.zeros(classes, *SHAPE) if classes else None
    denoiser = Denoiser(Counting(), schedule, predicts, -1.0, 1.0, torch.zeros(SHAPE), means)  # type: ignore[arg-type]
    levels = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones(SHAPE, np.uint8)
    data = ImageData.of("levels", levels, train_labels=np.arange(100) % max(1, classes))
    point = SamplingPoint(Choice("ancestral"), point_steps, 0)
    names = tuple("abcdefghijklmnopqrst"[:classes])
    return Studio(denoiser, Normalization(-1.0, 1.0), SHAPE, names, point, speed, 1e9, data, torch.device("cpu"))


def test_labels_bring_a_row_a_class_and_what_lies_between() -> None:
    at = studio_of(classes=3)
    found = sittings.plates(at, None)
    assert list(found) == ["trajectory", "classes", "interpolation", "between-classes", "reconstruction"]
    grey = np.array([25, 128, 230])  # -0.8, 0 and 0.8 of [-1, 1] in 0..255
    assert (np.abs(found["classes"].images["rows"].mean((1, 2, 3, 4)) - grey) < 1).all()
    assert found["classes"].facts["classes"] == ["a", "b", "c"]
    between = found["between-classes"].images["rows"][0].mean((1, 2, 3))
    np.testing.assert_allclose(between, np.linspace(grey[0], grey[1], 9), atol=1)
    figures = {drawn.name: drawn for drawn in plates.figures(Album("run", found))}
    assert list(figures) == list(found)
    assert "a, b and c" in figures["classes"].alt and "a to b and b to c" in figures["between-classes"].caption


def test_a_direct_mean_has_no_estimate_on_the_way_and_nothing_between_latents() -> None:
    found = sittings.plates(studio_of(predicts="mu-tilde"), None)
    assert list(found) == ["trajectory", "reconstruction"] and list(found["trajectory"].images) == ["x_t"]
    captions = [drawn.caption for drawn in plates.figures(Album("run", found))]
    assert "holds no estimate" in captions[0] and "denoised from there by ancestral" in captions[1]


def test_many_classes_are_shown_in_part() -> None:
    plate = sittings.class_rows(studio_of(classes=20))
    assert plate is not None and plate.images["rows"].shape[0] == 10
    (figure,) = plates.classes(plate)
    assert "10 of 20" in figure.caption


def test_reconstruction_names_its_error_in_both_units() -> None:
    """The network sees 0.5 whatever it reads: a grey of v comes back |0.5 - v| off, and 127.5 times that in greys."""
    plate = sittings.reconstruction(studio_of(steps=8))
    assert plate is not None and plate.facts["ts"] == [2, 4, 6] and plate.facts["which"] == "training"
    real = plate.images["real"].astype(float).mean((1, 2, 3)) / 127.5 - 1
    for own, levels in zip(plate.facts["errors"], plate.facts["grey_levels"], strict=True):
        np.testing.assert_allclose(own, np.abs(0.5 - real), atol=1e-5)
        np.testing.assert_allclose(levels, 127.5 * np.abs(0.5 - real), atol=1e-3)
    assert sittings.reconstruction(studio_of(steps=1)) is None  # no step lies part of the way


def test_neighbours_are_the_nearest_and_copies_show() -> None:
    at = studio_of(steps=4)
    unseen = np.array([[3.0], [191.0], [250.0], [251.0]])
    data = at.data
    assert data is not None
    plate = sittings.neighbours(at, Real(data.train, unseen, Means()))
    assert (plate.images["picked"] == 191).all() and (plate.images["picked_near"] == 99).all()  # 0.5 is a grey of 191
    assert plate.facts["to_real"] == [0.0] * 16 and plate.facts["picked"] == [92.0] * 16
    assert plate.facts["memorised"] == float(np.median([0, 92, 151, 152]) > 92)
    copies = np.full((50, *SHAPE), 191, np.uint8)
    seen = sittings.neighbours(at, Real(copies, unseen, Means()))
    assert seen.facts["memorised"] == 1.0 and seen.facts["suspects"] == [0.0] * 8
    blind = sittings.neighbours(at, Real(copies, None, Means()))
    assert "picked" not in blind.facts and "memorised" not in blind.facts
    assert [figure.name for figure in plates.neighbours(blind)] == ["neighbours"]


def test_the_best_are_near_to_unseen_images_and_the_suspects_to_trained_ones() -> None:
    """Three classes of greys 25, 128 and 230: trained on were 0 to 99, unseen is 128."""
    at = studio_of(steps=4, classes=3)
    assert at.data is not None
    plate = sittings.neighbours(at, Real(at.data.train, np.array([[128.0]]), Means()))
    assert (plate.images["picked"] == 128).all() and (plate.images["picked_near"] == 99).all()
    assert (plate.images["suspects"] == 25).all() and (plate.images["suspects_near"] == 25).all()
    assert plate.facts["picked"] == [29.0] * 16 and plate.facts["suspects"] == [0.0] * 8
    assert plate.facts["memorised"] == pytest.approx(1 / 3, abs=0.01)  # only 25 is nearer to them than 128 is


@pytest.mark.parametrize(("predicts", "steps", "point", "expected"), [
    ("x0", 15, None, None), ("x0", 1000, None, MOST_CALLS), ("x0", 1000, 10, 10), ("v", 1000, 100, MOST_CALLS),
    ("mu-tilde", 1000, None, None),
])  # fmt: skip
def test_calls_are_few_where_the_sampler_may_do_with_few(predicts, steps, point, expected) -> None:
    assert studio_of(steps, predicts, point_steps=point).steps == expected


def test_a_thousand_steps_cost_few_calls_and_say_so() -> None:
    at = studio_of(1000, speed=1.0)
    data = at.data
    assert data is not None
    found = sittings.plates(at, Real(data.train, None, Means()))
    assert found["neighbours"].facts["drawn"] == sittings.FEWEST_DRAWN
    network = at.denoiser.network
    assert isinstance(network, Counting)
    assert max(len(network.calls), 1) <= MOST_CALLS * 9 and sum(network.calls) <= MOST_CALLS * (3 + 32 + 36 + 12)
    captions = [drawn.caption for drawn in plates.figures(Album("run", found))]
    assert "by ancestral (25 network calls each instead of 1000)" in captions[0]
