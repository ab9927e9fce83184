"""Reference statistics are shipped where they fit and else computed once; floor and ceiling hold the scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.scoring.bounds import bounds
from diffsearch.scoring.features import extractor, moments
from diffsearch.scoring.reference import reference


def without_family(data: ImageData, train: int, test: int) -> ImageData:
    """Digits as somebody's own data: nothing shipped fits."""
    rows = np.random.default_rng(0).permutation(len(data.train))
    images = np.array(data.train)
    held_out = images[rows[train : train + test]] if test else None
    return ImageData.of("own", images[rows[:train]], held_out)


def test_the_test_reference_of_the_5000_digits_is_shipped(digits: ImageData, tmp_path: Path) -> None:
    found = reference(digits, "test", extractor("digits"), tmp_path)
    assert found.count == 10_000 and not list(tmp_path.iterdir())


def test_the_training_reference_is_of_the_images_trained_on_and_computed_once(
    digits: ImageData, tmp_path: Path
) -> None:
    found = reference(digits, "train", extractor("digits"), tmp_path)
    assert found.count == 5000 and found.data == digits.content
    mean, cov = moments(extractor("digits").extract(digits.train))
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.cov, cov)
    (path,) = tmp_path.glob("*.safetensors")
    stamp = path.stat().st_mtime_ns
    assert reference(digits, "train", extractor("digits"), tmp_path) is found
    assert path.stat().st_mtime_ns == stamp and not list(tmp_path.glob(".*"))


def test_other_images_have_another_reference(digits: ImageData, tmp_path: Path) -> None:
    own = without_family(digits, 300, 200)
    for which, count in (("train", 300), ("test", 200)):
        assert reference(own, which, extractor("digits"), tmp_path).count == count
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_data_without_test_images_is_told_what_to_write(digits: ImageData, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="reference: train"):
        reference(without_family(digits, 300, 0), "test", extractor("digits"), tmp_path)


def test_a_broken_reference_file_is_named(digits: ImageData, tmp_path: Path) -> None:
    own = without_family(digits, 250, 0)
    digits_extractor = extractor("digits")
    path = tmp_path / f"digits-{digits_extractor.content}-{own.content}-train-250.safetensors"
    path.write_bytes(b"cut short")
    with pytest.raises(MetricError, match=path.name):
        reference(own, "train", digits_extractor, tmp_path)


@pytest.mark.parametrize("metric", ["fd-digits", "kd-digits", "fd-digits-train", "kd-digits-train"])
def test_the_floor_lies_far_below_the_ceiling(digits: ImageData, tmp_path: Path, metric: str) -> None:
    found = bounds(metric, digits, 1000, tmp_path)
    assert found.samples == 1000 and 20 * abs(found.floor) < found.ceiling
    (path,) = tmp_path.glob("bounds-*.json")
    stamp = path.stat().st_mtime_ns
    assert bounds(metric, digits, 1000, tmp_path) == found and path.stat().st_mtime_ns == stamp


def test_without_a_reference_real_images_still_score_above_noise(digits: ImageData, tmp_path: Path) -> None:
    found = bounds("is-digits", digits, 1000, tmp_path)
    assert found.samples == 1000 and 9 < found.floor < 10 and found.ceiling < 2
    assert bounds("is-digits", digits, 1000, tmp_path) == found and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("train", "test", "used"), [(900, 600, "test"), (900, 300, "train"), (300, 400, "test")])
def test_without_a_reference_the_floor_is_of_test_images_where_they_suffice(
    digits: ImageData, tmp_path: Path, train: int, test: int, used: str
) -> None:
    """The images of one split are all of one digit: they score 1, the others more."""
    both = {"train": digits.train, "test": digits.train}
    both[used] = digits.train[digits.train_labels == 1].repeat(2, axis=0)
    found = bounds("is-digits", ImageData.of("own", both["train"][:train], both["test"][:test]), 500, tmp_path)
    assert found.samples == (400 if train == 300 else 500) and found.floor < 1.2


def test_the_floor_falls_with_the_number_of_images(digits: ImageData, tmp_path: Path) -> None:
    floors = [bounds("fd-digits", digits, count, tmp_path).floor for count in (200, 1000, 4000)]
    assert floors == sorted(floors, reverse=True)


@pytest.mark.parametrize(("train", "test", "used"), [(900, 600, 500), (900, 300, 450), (900, 0, 450)])
def test_the_floor_against_training_images_never_uses_those_in_the_reference(
    digits: ImageData, tmp_path: Path, train: int, test: int, used: int
) -> None:
    found = bounds("fd-digits-train", without_family(digits, train, test), 500, tmp_path)
    assert found.samples == used
    assert found.floor > 0.5, "images that are in the reference would lie at a distance near 0"


def test_too_few_real_images_are_refused(digits: ImageData, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="has 50 to spare"):
        bounds("fd-digits-train", without_family(digits, 100, 0), 90, tmp_path)
