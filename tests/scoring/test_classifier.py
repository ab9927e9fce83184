"""The digits classifier is what it claims, and one trained on any labelled images becomes an extractor of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.errors import DiffsearchError, MetricError
from diffsearch.scoring.classifier import DIM, SHIPPED_DIGITS, ClassifierExtractor, ClassifierNet
from diffsearch.scoring.classifier_training import folded, labelled, temperature, train_classifier
from diffsearch.scoring.features import extractor, frechet_distance, moments
from diffsearch.scoring.metrics import measure, score
from diffsearch.scoring.named import SHIPPED, stem_of, write_named
from diffsearch.scoring.reference import reference, ship
from diffsearch.space.metric_names import parse

# --- digits -------------------------------------------------------------------------------------------------------


def test_the_classifier_is_right_on_99_percent_of_the_test_digits(mnist: ImageData) -> None:
    _, logits = extractor("digits").classify(mnist.test)
    assert (logits.argmax(axis=1) == mnist.test_labels).mean() >= 0.99
    assert temperature(logits, mnist.test_labels) == pytest.approx(1, abs=0.01), "calibrated"


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


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.name[:20])
def test_shipped_files_are_named_after_their_content(path: Path) -> None:
    assert path.stem.endswith("-" + hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    assert path.stat().st_size < 2_000_000


def test_shipped_files_are_small_together() -> None:
    assert SHIPPED_DIGITS.stat().st_size < 1_000_000
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 4_000_000


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


def test_weights_load_without_pickle() -> None:
    tensors = safetensors.torch.load(SHIPPED_DIGITS.read_bytes())
    assert set(tensors) >= {"embed.weight", "scale", "classes.bias"}


# --- files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """The shipped weights as a user's own file, which makes them another extractor."""
    return Path(shutil.copy(SHIPPED_DIGITS, tmp_path / SHIPPED_DIGITS.name.replace("digits", "my-net")))


def test_a_changed_weights_file_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / SHIPPED_DIGITS.name
    content = bytearray(SHIPPED_DIGITS.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(bytes(content))
    with pytest.raises(MetricError, match="isn't what its name says"):
        ClassifierExtractor(copy)
    with pytest.raises(MetricError, match="can't be read"):
        ClassifierExtractor(tmp_path / "absent.safetensors")


def test_a_file_becomes_an_extractor_named_after_it(renamed: Path, digits: ImageData, tmp_path: Path) -> None:
    digest = registry.use(renamed)
    assert digest == registry.use(renamed) and stem_of(renamed) == "my-net"
    member, name = registry.extractor.member("my-net"), parse("is-my-net")
    assert member.origin == digest and member.traits == {"dim": 64, "image_shape": (1, 28, 28), "classes": 10}
    assert measure(name) == digest == extractor("my-net").content
    images = np.array(digits.train[::25])
    ours, theirs = (score(images, [f"fd-{x}"], digits, tmp_path)[f"fd-{x}"] for x in ("my-net", "digits"))
    assert ours == theirs, "MNIST's shipped statistics serve the same weights under another name"


def test_a_file_and_a_copy_under_another_name_are_two_extractors(renamed: Path) -> None:
    other = Path(shutil.copy(renamed, renamed.with_name(renamed.name.replace("my", "your"))))
    for path in (renamed, other, renamed):
        registry.use(path)
    assert {"my-net", "your-net"} <= set(registry.extractor.names())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-train", "no '-train' at its end"),
        ("my net", "can't be called 'my net'"),
        ("digits", "feature extractor 'digits' is registered already"),
    ],
)
def test_names_that_metrics_could_not_have_are_refused(renamed: Path, name: str, said: str) -> None:
    with pytest.raises(DiffsearchError, match=said):
        registry.use(renamed.rename(renamed.with_name(renamed.name.replace("my-net", name))))


def test_other_weights_are_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="does not hold the weights of a classifier"):
        registry.use(write_named(tmp_path, "other", {"network.weight": torch.zeros(3)}))


# --- training -----------------------------------------------------------------------------------------------------


def coloured(count: int, shape: tuple[int, int, int], test: int = 0) -> ImageData:
    """Images of three classes, each brighter in another third of its width, under noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(count + test) % 3
    images = rng.integers(0, 120, (count + test, *shape))
    for image, label in zip(images, labels, strict=True):
        image[:, :, label * shape[2] // 3 : (label + 1) * shape[2] // 3] += 120
    return ImageData.of(
        "thirds",
        images[:count].astype(np.uint8),
        images[count:].astype(np.uint8) if test else None,
        train_labels=labels[:count],
        test_labels=labels[count:] if test else None,
        classes=("left", "middle", "right"),
    )


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
    epochs = list(train_classifier(few, tmp_path, "few", epochs=5, seed=1))
    assert [progress.path is None for progress in epochs] == [True] * 4 + [False]
    made = ClassifierExtractor(epochs[-1].path)
    features, logits = made.classify(few.test)
    assert (logits.argmax(axis=1) == few.test_labels).mean() == epochs[-1].accuracy > 0.5
    assert np.cov(features, rowvar=False).trace() == pytest.approx(100, rel=1e-3)
    assert temperature(logits, few.test_labels) == pytest.approx(1, abs=0.01)
    train_file, test_file = ship(few, made, tmp_path)
    assert f"mnist-train-{made.content}" in train_file.name and f"mnist-test-{made.content}" in test_file.name


def test_colour_images_without_a_test_set_are_learned_and_scored(tmp_path: Path) -> None:
    data = coloured(150, (3, 16, 20))
    *_, last = train_classifier(data, tmp_path, "thirds", epochs=30)
    assert last.path is not None and last.accuracy > 0.8
    registry.use(last.path)
    found = score(data.train, ["is-thirds", "kd-thirds-train"], data, tmp_path)
    assert 1.5 < found["is-thirds"].value <= 3 and abs(found["kd-thirds-train"].value) < 1
    assert found["is-thirds"].extractor == extractor("thirds").content


def test_the_same_seed_on_the_same_machine_gives_the_same_bytes(tmp_path: Path) -> None:
    data = coloured(60, (1, 12, 12), test=30)
    paths = [next(train_classifier(data, tmp_path / str(seed), "x", epochs=1, seed=seed)).path for seed in (1, 1, 2)]
    assert paths[0].name == paths[1].name != paths[2].name


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8), (3, 218, 178), (4, 9, 30)])
def test_a_classifier_fits_any_shape_and_folds_its_norms_away(shape: tuple[int, int, int]) -> None:
    net = ClassifierNet(shape, 5, training=True)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.rand(2, *shape)
    features, logits = net.eval()(x)
    assert features.shape == (2, DIM) and logits.shape == (2, 5)
    plain = folded(net, shape)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())
    for found, expected in zip(plain(x), (features, logits), strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_a_fifth_of_each_class_is_held_out_where_there_is_no_test_set() -> None:
    data = coloured(150, (1, 8, 8))
    train, held_out, classes = labelled(data)
    assert classes == 3 and np.bincount(held_out.labels).tolist() == [10] * 3 and len(train.images) == 120
    both = np.concatenate([train.images, held_out.images]).reshape(150, -1)
    assert len(np.unique(both, axis=0)) == 150, "no image is on both sides"
    train, held_out, _ = labelled(coloured(150, (1, 8, 8), test=30))
    assert len(train.images) == 150 and len(held_out.images) == 30


def test_data_that_cannot_be_learned_is_refused_by_name() -> None:
    data = coloured(30, (1, 8, 8))
    for change, said in (
        ({"train_labels": None}, "thirds has no labels"),
        ({"train_labels": data.train_labels // 2 * 2}, "thirds has no training images of middle"),
        ({"train_labels": data.train_labels * 0, "classes": ("one",)}, "thirds has one class, one"),
        ({"train": data.train[:6], "train_labels": data.train_labels[:6]}, "fewer than 5 images of each class"),
    ):
        with pytest.raises(MetricError, match=said):
            labelled(dataclasses.replace(data, **change))


def test_the_temperature_undoes_what_logits_were_multiplied_by() -> None:
    """Labels drawn from the softmax of the logits: at temperature 1 nothing is more likely, but for chance."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    for factor in (0.2, 1.0, 5.0):
        assert temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)
