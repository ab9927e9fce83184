"""Conditional runs, learned variances, weighted losses, validation and augmentation: what training makes of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from diffsearch.data.augment import augment
from diffsearch.data.datasets import ImageData
from diffsearch.diffusion import noise_batch, sample
from diffsearch.diffusion.guidance import one_hot
from diffsearch.errors import DataError
from diffsearch.space.settings import Choice
from diffsearch.training.checkpoint import Checkpoint, save
from diffsearch.training.loop import learning_rate, start, train
from diffsearch.training.prior import Prior
from diffsearch.training.randomness import generator

CPU = torch.device("cpu")
NET = Choice.of("unet", channels=(8, 16))
CLASS = {"conditioning": "class", "label_dropout": 0.2}


@pytest.fixture(scope="module")
def halves() -> ImageData:
    """40 images of (1, 8, 8): class 0 is bright at the left, class 1 (a quarter of them) at the right."""
    rng = np.random.default_rng(0)
    labels = (np.arange(40) % 4 == 0).astype(np.int64)
    images = rng.integers(0, 40, (40, 1, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, :, 4 * label : 4 * label + 4] += 200
    return ImageData.of("halves", images, train_labels=labels, classes=("left", "right"))


@pytest.fixture(scope="module")
def learned(settings, halves):
    run = settings({**CLASS, "loss": "v-l2", "learning_rate": 5e-3}, model=NET, steps=8)
    state = start(run, "learned", halves, CPU)
    list(train(state, halves, until_epoch=30))
    return state


def test_a_conditional_network_draws_the_class_that_it_is_told(learned):
    rows = one_hot(torch.arange(40) % 2, 2)
    images = next(sample(learned.denoiser(0), Choice("ddim"), None, (40, 1, 8, 8), 0, 40, labels=rows, guidance=1.0))
    side = images[:, 0, :, 4:].mean((1, 2)) > images[:, 0, :, :4].mean((1, 2))
    assert (side == (torch.arange(40) % 2 == 1)).double().mean() > 0.9


def test_a_conditional_checkpoint_samples_as_its_run_did(learned, tmp_path):
    save(learned, tmp_path / "epoch.safetensors", with_optimizer=False)
    read = Checkpoint.read(tmp_path / "epoch.safetensors")
    assert read.classes == ("left", "right")
    asked = (Choice("ddim"), None, (4, 1, 8, 8), 3, 4)
    for guidance in (0.0, 2.0, -1.0):
        drawn = [next(sample(one.denoiser(20), *asked, guidance=guidance)) for one in (read, learned)]
        assert torch.equal(*drawn)


def test_the_prior_is_each_class_mean_and_share(halves, learned):
    encoded = learned.normalization.encode(torch.from_numpy(halves.train))
    for label in (0, 1):
        expected = encoded[torch.from_numpy(halves.train_labels) == label].mean(0)
        torch.testing.assert_close(learned.prior.class_means[label], expected)
    assert learned.prior.class_shares.tolist() == [0.75, 0.25]


def test_a_class_without_images_has_the_overall_mean_and_no_share(halves, learned):
    more = dataclasses.replace(halves, classes=("left", "right", "none"))
    prior = Prior.of(more, learned.normalization, "class")
    assert prior.class_shares.tolist() == [0.75, 0.25, 0.0]
    torch.testing.assert_close(prior.class_means[2], prior.mean)


def test_data_without_labels_are_refused(settings, blobs):
    with pytest.raises(DataError, match=r"blobs has no class labels, and training\.conditioning"):
        start(settings(CLASS, model=NET), "key", blobs, CPU)


def test_only_the_share_of_hidden_labels_tells_two_conditional_runs_apart(settings, halves):
    losses = {}
    for share in (0.0, 0.5, 0.0):
        state = start(settings({**CLASS, "label_dropout": share}, model=NET), "key", halves, CPU)
        losses.setdefault(share, []).append(list(train(state, halves, 2))[-1].loss)
    assert losses[0.0][0] == losses[0.0][1] != losses[0.5][0]


def test_a_learned_variance_moves_from_its_middle_and_is_sampled(settings, halves):
    run = settings({"loss": "epsilon-l2", "learned_variance": True, "learning_rate": 5e-3}, model=NET, steps=8)
    state = start(run, "key", halves, CPU)
    records = list(train(state, halves, 10))
    assert records[-1].loss < records[0].loss
    denoiser, x = state.denoiser(0), torch.randn(4, 1, 8, 8)
    _, variance = denoiser.mean_and_variance(x, 4, 3)
    step = denoiser.schedule.transition(4, 3)
    assert not torch.allclose(variance, torch.full_like(variance, math.sqrt(step.beta * step.beta_tilde)), rtol=1e-3)
    drawn = next(sample(denoiser, Choice.of("ancestral", variance="learned"), None, (4, 1, 8, 8), 0, 4))
    assert drawn.isfinite().all() and drawn.shape == (4, 1, 8, 8)


def test_min_snr_weighs_the_loss(settings, blobs):
    """One epoch of one batch: an untrained x0 network says 0, so that the loss is a closed form."""
    plain, weighed = (
        start(settings({"loss": "x0-l2", "batch_size": 40, "min_snr_gamma": gamma}, model=NET), "key", blobs, CPU)
        for gamma in (None, 5.0)
    )
    noise = generator("key", 1, "noise")
    order = torch.randperm(40, generator=generator("key", 1, "order"))
    x_0 = plain.normalization.encode(torch.from_numpy(blobs.train[order.numpy()]))
    batch = noise_batch(plain.schedule, x_0, noise)
    each = x_0.square().flatten(1).mean(1)
    snr = (batch.signal / batch.sigma).flatten().square()
    assert next(iter(train(plain, blobs, 1))).loss == pytest.approx(each.mean().item(), rel=1e-5)
    assert next(iter(train(weighed, blobs, 1))).loss == pytest.approx((each * snr.clamp(max=5)).mean().item(), rel=1e-5)
    assert weighed.denoiser(0).blind_at_end and not plain.denoiser(0).blind_at_end


def test_continuous_time_trains_and_samples(settings, blobs):
    run = settings({"loss": "v-l2"}, model=NET, noise_process=Choice("signal-rate"), time="continuous", steps=6)
    state = start(run, "key", blobs, CPU)
    records = list(train(state, blobs, 5))
    assert records[-1].loss < records[0].loss
    assert next(sample(state.denoiser(0), Choice("ddim"), 3, (2, 1, 8, 8), 0, 2)).isfinite().all()


def test_a_validation_loss_is_watched_and_changes_nothing(settings, blobs):
    held = dataclasses.replace(blobs, validation=blobs.train[:10], content="other")
    watched, alone = (start(settings({"loss": "v-l2"}, model=NET), "key", data, CPU) for data in (held, blobs))
    seen, unseen = list(train(watched, held, 3)), list(train(alone, blobs, 3))
    assert [record.loss for record in seen] == [record.loss for record in unseen]
    assert unseen[0].validation_loss is None and seen[2].validation_loss < seen[0].validation_loss
    again = start(settings({"loss": "v-l2", "batch_size": 7}, model=NET), "key", held, CPU)
    assert next(iter(train(again, held, 1))).validation_loss > 0


def test_the_rate_falls_to_its_floor(settings):
    training = settings({"schedule": "cosine", "horizon": 2, "learning_rate_floor": 0.01}).training
    rates = [learning_rate(training, images, 1000.0) for images in (0, 500, 1000)]
    assert rates == pytest.approx([1e-3, 1e-3 * (0.01 + 0.99 / 2), 1e-5])


@pytest.mark.parametrize("how", ["flip", "crop", "flip-crop"])
def test_augmentation_moves_pixels_and_mixes_none(how):
    images = torch.arange(6 * 3 * 16 * 16, dtype=torch.int32).reshape(6, 3, 16, 16).repeat(20, 1, 1, 1)
    varied = augment(images, how, torch.Generator().manual_seed(0))
    assert varied.shape == images.shape and not torch.equal(varied, images)
    for before, after in zip(images, varied, strict=True):
        assert set(after[0].flatten().tolist()) <= set(before[0].flatten().tolist())  # no channel takes another's
    flipped = (varied == images.flip(3)).flatten(1).all(1).double().mean()
    assert (0.35 < flipped < 0.65) if how == "flip" else flipped < 0.05


def test_a_crop_moves_an_image_by_up_to_an_eighth_with_its_border_reflected():
    image = torch.arange(16)[None, None, None, :].expand(200, 1, 16, 16)
    varied = augment(image, "crop", torch.Generator().manual_seed(0))
    rows = {tuple(row) for row in varied[:, 0, 0].tolist()}
    padded = [2, 1, *range(16), 14, 13]
    assert rows == {tuple(padded[start : start + 16]) for start in range(5)}
