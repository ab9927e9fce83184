"""Metrics: torch-fidelity's numbers, scipy's numbers, and what no number may be given for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
import torch
import torch_fidelity
from scipy.spatial.distance import cdist

from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.records import Score
from diffsearch.scoring.features import (
    Outputs,
    extractor,
    frechet_distance,
    kernel_distance,
    moments,
    precision_recall,
    split_score,
)
from diffsearch.scoring.metrics import measure, score, score_outputs
from diffsearch.scoring.reference import Reference, from_features
from diffsearch.space.metric_names import parse


@pytest.fixture(scope="module")
def blurred(digits: ImageData) -> np.ndarray:
    """1,200 digits, each a little darker and noisier than it was: drawn images that aren't perfect."""
    rng = np.random.default_rng(1)
    images = digits.train[::4][:1200] * 0.7 + rng.normal(0, 20, (1200, 1, 28, 28))
    return images.clip(0, 255).astype(np.uint8)


# --- numbers ------------------------------------------------------------------------------------------------------


class _DigitsForTorchFidelity(torch_fidelity.FeatureExtractorBase):
    """Our classifier under torch-fidelity's own pipeline."""

    def __init__(self, name: str, features_list: list[str], **_: object) -> None:
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "embedding", "classes"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "classes" if metric == "isc" else "embedding"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made = dict(zip(("embedding", "classes"), extractor("digits").classify(images), strict=True))
        return tuple(torch.from_numpy(made[layer]) for layer in self.features_list)


class _Images(torch.utils.data.Dataset):
    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self.images[row])


def test_scores_are_those_of_torch_fidelitys_own_pipeline(
    digits: ImageData, blurred: np.ndarray, tmp_path: Path
) -> None:
    """To 1e-3: torch-fidelity takes the mean in float32, we in float64."""
    if "digits-for-test" not in torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor("digits-for-test", _DigitsForTorchFidelity)
    theirs = torch_fidelity.calculate_metrics(
        input1=_Images(blurred),
        input2=_Images(np.array(digits.train)),
        feature_extractor="digits-for-test",
        fid=True,
        kid=True,
        isc=True,
        kid_subsets=100,
        kid_subset_size=len(blurred) // 2,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        batch_size=500,
    )
    ours = score(blurred, ["fd-digits-train", "kd-digits-train", "is-digits"], digits, tmp_path)
    assert ours["is-digits"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours["is-digits"].spread == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    assert ours["fd-digits-train"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours["kd-digits-train"].value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert ours["kd-digits-train"].spread == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)
    assert ours["fd-digits-train"].samples == 1200 and ours["fd-digits-train"].extractor == extractor("digits").content


def test_frechet_distance_is_torch_fidelitys_to_the_bit(digits: ImageData, blurred: np.ndarray) -> None:
    from torch_fidelity import metric_fid as theirs

    a, b = (extractor("digits").extract(images) for images in (blurred, digits.train[:2000]))
    stats = [theirs.fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (a, b)]
    found = [moments(x) for x in (a, b)]
    assert all(
        np.array_equal(m, s["mu"]) and np.array_equal(c, s["sigma"]) for (m, c), s in zip(found, stats, strict=True)
    )
    expected = theirs.fid_statistics_to_metric(*stats, verbose=False)[theirs.KEY_METRIC_FID]
    assert frechet_distance(*found[0], *found[1]) == expected


def test_frechet_distance_is_scipys(digits: ImageData, blurred: np.ndarray) -> None:
    a, b = (moments(extractor("digits").extract(images)) for images in (blurred, digits.train[:2000]))
    root = scipy.linalg.sqrtm(a[1] @ b[1]).real
    expected = np.sum((a[0] - b[0]) ** 2) + np.trace(a[1] + b[1] - 2 * root)
    assert frechet_distance(*a, *b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_in_closed_form() -> None:
    """Diagonal covariances: |Δm|² + Σ (σ − σ')²."""
    rng = np.random.default_rng(0)
    means, deviations = rng.normal(size=(2, 12)), rng.uniform(0.1, 3, (2, 12))
    found = frechet_distance(means[0], np.diag(deviations[0] ** 2), means[1], np.diag(deviations[1] ** 2))
    assert found == pytest.approx(np.sum((means[0] - means[1]) ** 2) + np.sum((deviations[0] - deviations[1]) ** 2))


def test_kernel_distance_is_the_unbiased_estimate_of_its_definition() -> None:
    """Subsets of the full size are the whole sets, so the mean is the one estimate, summed here pair by pair."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.normal(0.5, 1.0, size=(60, 5))
    kernel = lambda a, b: (a @ b / 5 + 1) ** 3  # noqa: E731
    same = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(60) for j in range(60) if i != j) / (60 * 59)
    cross = sum(kernel(a, b) for a in x for b in y) / 60**2
    mean, spread = kernel_distance(x, y, subset_size=60, subsets=3)
    assert mean == pytest.approx(same - 2 * cross, rel=1e-9) and spread == pytest.approx(0, abs=1e-12)


def test_the_spread_of_a_kernel_distance_is_that_of_fresh_draws(digits: ImageData, tmp_path: Path) -> None:
    """Of few images too: subsets that were the whole set would all say the same."""
    order = np.random.default_rng(0).permutation(len(digits.train))[:4000].reshape(40, 100)
    found = [score(digits.train[np.sort(rows)], ["kd-digits"], digits, tmp_path)["kd-digits"] for rows in order]
    estimates = np.std([each.value for each in found])  # of twice as many images as a subset has
    assert 1 < np.median([each.spread for each in found]) / estimates < 4


def test_inception_score_is_its_definition() -> None:
    """exp of the mean divergence of each image's class shares from those of its split, split by split."""
    logits = np.random.default_rng(0).normal(0, 3, (60, 7)).astype(np.float32)
    order = np.random.RandomState(2020).permutation(60)
    shares = scipy.special.softmax(logits[order].astype(np.float64), axis=1).reshape(3, 20, 7)
    of_split = [
        np.exp(np.mean([scipy.stats.entropy(image, split.mean(axis=0)) for image in split])) for split in shares
    ]
    assert split_score(logits, splits=3) == pytest.approx((np.mean(of_split), np.std(of_split)), rel=1e-12)


def test_inception_score_lies_between_1_and_the_number_of_classes() -> None:
    sure = np.tile(50 * np.eye(4, dtype=np.float32), (100, 1))
    assert split_score(np.zeros((400, 4), np.float32), splits=10) == pytest.approx((1, 0))
    assert split_score(sure[:1].repeat(400, axis=0), splits=10) == pytest.approx((1, 0)), "one class alone"
    value, spread = split_score(sure, splits=10)
    assert 3.8 < value <= 4 and 0 < spread < 0.2, "the shuffled splits don't hold each class equally often"


def test_precision_and_recall_are_their_definition() -> None:
    """Every ball and every point, distance by distance, with scipy's."""
    rng = np.random.default_rng(0)
    drawn, real = (rng.normal(shift, 1, (count, 4)).astype(np.float32) for shift, count in ((0.8, 70), (0.0, 90)))

    def share(points: np.ndarray, among: np.ndarray) -> float:
        radii = np.sort(cdist(among, among), axis=1)[:, 3]  # the first is the point itself
        return float((cdist(points, among) <= radii).any(axis=1).mean())

    assert precision_recall(drawn, real) == pytest.approx((share(drawn, real), share(real, drawn)), abs=1e-6)


def test_precision_sees_what_is_no_digit_and_recall_what_is_missing(digits: ImageData, tmp_path: Path) -> None:
    real = np.array(digits.train[::5])
    noise = np.random.default_rng(0).integers(0, 256, real.shape).astype(np.uint8)
    ones = np.array(digits.train[digits.train_labels == 1][:500])
    found = {
        name: [
            score(images, [f"{name}-digits"], digits, tmp_path)[f"{name}-digits"].value
            for images in (real, ones, noise)
        ]
        for name in ("precision", "recall")
    }
    of_real, of_ones, of_noise = found["precision"]
    assert of_real > 0.7 and of_ones > 0.7 and of_noise < 0.05
    of_real, of_ones, of_noise = found["recall"]
    assert of_real > 0.7 and of_ones < 0.2 and of_noise < 0.05


def test_a_set_is_at_distance_zero_from_itself(digits: ImageData, tmp_path: Path) -> None:
    found = score(digits.train, ["fd-digits-train", "kd-digits-train"], digits, tmp_path)
    assert abs(found["fd-digits-train"].value) < 1e-6
    assert abs(found["kd-digits-train"].value) < 3 * found["kd-digits-train"].spread


def test_worse_images_score_worse(digits: ImageData, tmp_path: Path) -> None:
    real = np.array(digits.train[::5])
    rng = np.random.default_rng(0)
    noisy = [real + rng.normal(0, level, real.shape) for level in (0, 20, 60, 120)]
    paler = [real * share for share in (0.75, 0.5, 0.25)]
    for worse in (noisy, [real, *paler]):
        images = [step.clip(0, 255).astype(np.uint8) for step in worse]
        values = [score(step, ["fd-digits"], digits, tmp_path)["fd-digits"].value for step in images]
        assert values == sorted(values) and values[-1] > 5 * values[0]
    lost = np.array(digits.train[digits.train_labels != 3][::4])
    assert score(lost, ["fd-digits"], digits, tmp_path)["fd-digits"].value > 1.2 * values[0], "a class is missing"


def test_images_pass_once_through_an_extractor_for_all_of_its_metrics(digits: ImageData, tmp_path: Path) -> None:
    images, metrics = np.array(digits.train[:250]), ["fd-digits", "kd-digits", "precision-digits", "is-digits"]
    calls: list[int] = []
    hook = extractor("digits")._net.register_forward_hook(lambda net, given, made: calls.append(len(given[0])))
    try:
        assert set(score(images, metrics, digits, tmp_path)) == set(metrics)
    finally:
        hook.remove()
    assert calls == [100, 100, 100], "batches of 100 for 250 images, and none for the shipped reference"


def test_a_metric_of_features_alone_needs_no_reference(digits: ImageData, tmp_path: Path) -> None:
    @registry.metric.register("breadth", direction="max", minimum_samples=lambda dim: 2, reference=False)
    def breadth(features: np.ndarray) -> Score:
        return Score(float(features.var()), len(features), "")

    found = score(np.array(digits.train[:20]), ["breadth-digits"], digits, tmp_path)["breadth-digits"]
    assert found.value > 0 and found.extractor == extractor("digits").content


def test_scoring_is_silent(digits: ImageData, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    score(np.array(digits.train[:300]), ["fd-digits", "kd-digits", "is-digits"], digits, tmp_path)
    assert capfd.readouterr() == ("", "")


# --- refusals -----------------------------------------------------------------------------------------------------


def test_outputs_that_are_not_finite_have_no_score() -> None:
    digits = extractor("digits")
    features = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    against = from_features(features, digits, "0" * 16)
    for wrong in (np.nan, np.inf):
        broken = features.copy()
        broken[17, 3] = wrong
        for name in ("fd-digits", "kd-digits"):
            with pytest.raises(MetricError, match="NaN or infinity"):
                score_outputs(parse(name), Outputs(broken), against)
        with pytest.raises(MetricError, match="NaN or infinity"):
            score_outputs(parse("is-digits"), Outputs(features, broken), None)
    huge = (features * np.float32(1e30)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(MetricError):
        score_outputs(parse("kd-digits"), Outputs(huge), against)


def test_an_extractor_that_promised_classes_must_give_logits() -> None:
    with pytest.raises(MetricError, match="'digits' says that it has classes but gave no logits"):
        score_outputs(parse("is-digits"), Outputs(np.zeros((200, 64), np.float32)), None)


def test_too_few_images_have_no_score(digits: ImageData, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="fd-digits needs at least 65 images, got 64"):
        score(np.array(digits.train[:64]), ["fd-digits"], digits, tmp_path)


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    colour = ImageData.of("colour", np.zeros((100, 3, 32, 32), np.uint8))
    with pytest.raises(MetricError, match=r"'digits' reads images of \(1, 28, 28\) only"):
        score(np.zeros((100, 3, 32, 32), np.uint8), ["fd-digits"], colour, tmp_path)
    with pytest.raises(MetricError, match="don't match colour"):
        score(np.zeros((100, 1, 28, 28), np.uint8), ["fd-digits"], colour, tmp_path)


# --- every metric -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", registry.metric.names())
def test_every_metric_ranks_real_images_above_noise(kind: str, digits: ImageData, tmp_path: Path) -> None:
    """On `digits`; the score is a number of the right count and measure, the same at each call, silent of how."""
    name, real = parse(f"{kind}-digits"), np.array(digits.train[::10])
    assert name.direction in ("min", "max") and 2 <= name.minimum_samples <= len(real)
    noise = np.random.default_rng(0).integers(0, 256, real.shape).astype(np.uint8)
    good, bad, again = (score(x, [str(name)], digits, tmp_path)[str(name)] for x in (real, noise, real))
    assert good == again and good.samples == len(real) and good.extractor == measure(name)
    assert good.value < bad.value if name.direction == "min" else good.value > bad.value


@pytest.mark.parametrize("kind", registry.metric.names())
def test_every_metric_refuses_what_is_not_finite(kind: str) -> None:
    broken = Outputs(*(np.full((200, width), np.nan, np.float32) for width in (64, 10)))
    against = Reference(np.zeros(64), np.eye(64), np.zeros((200, 64), np.float32), 200, "0" * 16, "0" * 16)
    name = parse(f"{kind}-digits")
    with pytest.raises(MetricError, match=f"{kind}-digits: the network's outputs hold NaN"):
        score_outputs(name, broken, None if name.reference is None else against)
