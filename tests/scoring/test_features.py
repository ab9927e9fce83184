"""Extractors: the digits classifier is what it claims, and absent Inception weights are told of at once."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from diffsearch import registry
from diffsearch.data.datasets import ImageData, load
from diffsearch.errors import MetricError
from diffsearch.scoring import features as features_room
from diffsearch.scoring.digits import DIM, WEIGHTS, DigitsExtractor, train_digits
from diffsearch.scoring.features import (
    SHIPPED_DIGITS,
    Extractor,
    extractor,
    frechet_distance,
    inception_weights,
    install_inception,
    moments,
)
from diffsearch.scoring.reference import reference, ship, shipped
from diffsearch.space.settings import Choice


@pytest.fixture(scope="module")
def mnist(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return load(Choice.of("mnist", root=str(shared_data)), tmp_path_factory.mktemp("cache"))


def test_the_classifier_is_right_on_99_percent_of_the_test_digits(mnist: ImageData) -> None:
    digits = DigitsExtractor(SHIPPED_DIGITS)
    assert (digits.classify(mnist.test) == mnist.test_labels).mean() >= 0.99


def test_the_scale_makes_distances_readable(mnist: ImageData) -> None:
    features = extractor("digits").extract(mnist.test).astype(np.float64)
    assert features.shape == (10_000, DIM)
    assert np.trace(np.cov(features, rowvar=False)) == pytest.approx(100, rel=1e-4)
    assert np.linalg.matrix_rank(np.cov(features, rowvar=False)) == DIM, "a dead feature would make it singular"


def test_the_same_images_have_the_same_bits_wherever_they_stand(mnist: ImageData) -> None:
    digits = extractor("digits")
    whole = digits.extract(mnist.test[:1234])
    assert np.array_equal(whole, digits.extract(torch.from_numpy(np.array(mnist.test[:1234]))))
    assert np.array_equal(whole[:7], digits.extract(mnist.test[:7]))
    assert np.array_equal(whole[700:1234], digits.extract(mnist.test[700:1234]))


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda path: path.name[:20])
def test_shipped_files_are_named_after_their_content(path: Path) -> None:
    assert path.stem.endswith("-" + hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    assert path.stat().st_size < 2_000_000


def test_shipped_files_are_small_together() -> None:
    assert SHIPPED_DIGITS.stat().st_size < 1_000_000
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 4_000_000


@pytest.mark.parametrize("which", ["train", "test"])
def test_shipped_statistics_are_those_of_the_images(mnist: ImageData, which: str, tmp_path: Path) -> None:
    digits = extractor("digits")
    ready = reference(mnist, which, digits, tmp_path)
    assert not list(tmp_path.iterdir()), "the shipped file is used, nothing is computed"
    images = mnist.train if which == "train" else mnist.test
    assert ready.count == len(images) and ready.extractor == digits.content and len(ready.features) == 10_000
    assert ready.data == (mnist.content if which == "train" else mnist.test_content)
    if which == "train":  # a look at 2,000 of the 60,000: the rows kept are those of a fixed draw
        rows = np.sort(np.random.default_rng(0).permutation(60_000)[:10_000])[:2000]
        np.testing.assert_allclose(ready.features[:2000], digits.extract(images[rows]), rtol=1e-3, atol=1e-3)
        assert frechet_distance(*moments(ready.features), ready.mean, ready.cov) < 0.2
        return
    features = digits.extract(images).astype(np.float64)
    np.testing.assert_allclose(ready.mean, features.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(ready.cov, np.cov(features, rowvar=False), atol=1e-3)
    np.testing.assert_allclose(ready.features, features, rtol=1e-3, atol=1e-3)  # kept in half precision


def test_a_changed_weights_file_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / SHIPPED_DIGITS.name
    content = bytearray(SHIPPED_DIGITS.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(bytes(content))
    with pytest.raises(MetricError, match="isn't what its name says"):
        registry.extractor.build("digits", weights=str(copy))
    with pytest.raises(MetricError, match="can't be read"):
        registry.extractor.build("digits", weights=str(tmp_path / "absent.safetensors"))


def test_training_writes_a_classifier_that_scores(mnist: ImageData, tmp_path: Path) -> None:
    """Few digits and steps: the way from images to a named file, not the accuracy."""
    few = ImageData.of(
        "few",
        np.array(mnist.train[:1536]),
        np.array(mnist.test[:500]),
        train_labels=np.array(mnist.train_labels[:1536]),
        test_labels=np.array(mnist.test_labels[:500]),
        reference_family="mnist",
    )
    epochs = list(train_digits(few, tmp_path, epochs=5, seed=1))
    assert [progress.path is None for progress in epochs] == [True] * 4 + [False]
    made = DigitsExtractor(epochs[-1].path)
    assert (made.classify(few.test) == few.test_labels).mean() == epochs[-1].accuracy > 0.5
    assert np.cov(made.extract(few.test), rowvar=False).trace() == pytest.approx(100, rel=1e-3)
    twice = [next(train_digits(few, tmp_path / "again", epochs=1, seed=1)).path.name for _ in range(2)]
    assert twice[0] == twice[1], "the same seed on the same machine gives the same bytes"
    train_file, test_file = ship(few, made, tmp_path)
    assert f"mnist-train-{made.content}" in train_file.name and f"mnist-test-{made.content}" in test_file.name


def test_every_extractor_says_its_dimension_without_its_weights() -> None:
    for name in registry.extractor.names():
        assert registry.extractor.member(name).traits["dim"] > 0
    assert isinstance(extractor("digits"), Extractor)
    assert shipped("mnist", "test", extractor("digits").content) is not None


# --- Inception ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty torch cache, and a name that no resolver answers where the download is."""
    from torch_fidelity import feature_extractor_inceptionv3

    url = "https://absent.invalid/weights-inception-2015-12-05-6726825d.pth"
    monkeypatch.setattr(feature_extractor_inceptionv3, "URL_INCEPTION_V3", url)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return tmp_path


def test_offline_inception_says_at_once_what_it_needs(no_inception: Path) -> None:
    began = time.monotonic()
    with pytest.raises(MetricError) as caught:
        registry.extractor.build("inception")
    assert time.monotonic() - began < 10
    message = str(caught.value)
    assert str(no_inception / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth") in message
    assert "diffsearch features install" in message and "\n" not in message


def test_weights_that_are_absent_or_something_else_are_refused(no_inception: Path, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="no weights file at"):
        inception_weights(str(tmp_path / "absent.pth"))
    other = tmp_path / "other.pth"
    shutil.copy(SHIPPED_DIGITS, other)
    with pytest.raises(MetricError, match="does not hold"):
        registry.extractor.build("inception", weights=str(other))
    with pytest.raises(MetricError, match="its sha256 begins with"):
        install_inception(other)


def test_inception_reads_grey_as_its_threefold_and_gives_torch_fidelitys_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights stand in for the file: this is about the images' way through torch-fidelity's network."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    with monkeypatch.context() as patched, torch.device("meta"):
        patched.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patched.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda net, state: None)
        net = theirs.FeatureExtractorInceptionV3("random", ["2048"])
    net = net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.05, generator=generator).add_(1.0 if name.endswith("running_var") else 0.0)
    torch.save(net.state_dict(), tmp_path / "random.pth")
    monkeypatch.setattr(features_room, "_INCEPTION_BATCH", 2)
    found = registry.extractor.build("inception", weights=str(tmp_path / "random.pth"))
    grey = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), np.uint8)
    features = found.extract(grey)
    (expected,) = net(torch.from_numpy(grey.repeat(3, axis=1)))
    assert features.shape == (2, 2048) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-3, atol=1e-5)


def test_weights_load_without_pickle() -> None:
    tensors = safetensors.torch.load(SHIPPED_DIGITS.read_bytes())
    assert set(tensors) >= {"embed.weight", "scale", "classes.bias"}
