import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from diffsearch import registry
from diffsearch.data.datasets import ImageData, load
from diffsearch.diffusion import noise_batch
from diffsearch.errors import Diverged, StoreError
from diffsearch.space.settings import Choice
from diffsearch.training.checkpoint import digest, save, state_tensors
from diffsearch.training.loop import determinism, learning_rate, start, train
from diffsearch.training.prior import mean_image
from diffsearch.training.randomness import generator, seed, seeded

CPU = torch.device("cpu")


def weights(state) -> str:
    return digest(dict(state_tensors(state)))


def test_the_learning_rate_is_torchs_warm_up_and_cosine(settings):
    training = settings({"schedule": "cosine", "warmup": 30, "learning_rate": 2e-3, "horizon": 4}).training
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2e-3)
    warm_up = LinearLR(optimizer, start_factor=1e-12, total_iters=30)  # torch refuses to start at 0
    theirs = SequentialLR(optimizer, [warm_up, CosineAnnealingLR(optimizer, T_max=130)], milestones=[30])
    for images in range(160):
        # torch computes by recurrence, so its rounding adds up over the 160 steps
        assert learning_rate(training, images, 160) == pytest.approx(theirs.get_last_lr()[0], rel=1e-8, abs=1e-12)
        optimizer.step()
        theirs.step()
    assert learning_rate(training, 160, 160) == pytest.approx(0, abs=1e-18)


def test_a_constant_rate_stays_after_its_warm_up(settings):
    training = settings({"warmup": 100, "learning_rate": 1e-3}).training
    assert [learning_rate(training, images, None) for images in (0, 50, 100, 10**9)] == [0, 5e-4, 1e-3, 1e-3]


def test_an_epoch_is_what_a_loop_written_by_hand_does(settings, blobs):
    training = {"gradient_clip": 0.01, "schedule": "cosine", "warmup": 24, "horizon": 3, "ema_half_life": (20,)}
    run = settings(training, model=Choice.of("tiny", dropout=0.3))
    state = start(run, "key", blobs, CPU)
    list(train(state, blobs, until_epoch=2))

    with seeded(CPU, seed("key", 0, "init")):
        network = registry.model.build("tiny", (1, 8, 8), 5, dropout=0.3)
    average = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01, fused=True)
    images, seen, steps = torch.from_numpy(blobs.train.copy()).float() / 127.5 - 1, 0, 0
    for epoch in (1, 2):
        order = torch.randperm(40, generator=generator("key", epoch, "order"))
        noise = generator("key", epoch, "noise")
        torch.manual_seed(seed("key", epoch, "dropout"))
        for chosen in (order[:16], order[16:32], order[32:]):
            batch = noise_batch(state.schedule, images[chosen], noise)
            optimizer.zero_grad()
            ((network(batch.x_t, batch.t) - batch.x_0) ** 2).mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.01)
            middle = seen + len(chosen) / 2
            cosine = 0.5 + 0.5 * math.cos(math.pi * (middle - 24) / (120 - 24))
            optimizer.param_groups[0]["lr"] = 1e-3 * (middle / 24 if middle < 24 else cosine)
            optimizer.step()
            seen, steps = seen + len(chosen), steps + 1
            kept = min(0.5 ** (len(chosen) / 20), (1 + steps) / (10 + steps))
            for mean, parameter in zip(average, network.parameters(), strict=True):
                mean.mul_(kept).add_(parameter.detach(), alpha=1 - kept)
    for ours, theirs in zip(state.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)  # x / 127.5 - 1 rounds otherwise than encode
    for ours, theirs in zip(state.network_for(20).parameters(), average, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_records_count_epochs_and_images(settings, blobs):
    state = start(settings(), "key", blobs, CPU)
    first, second = train(state, blobs, until_epoch=2)
    assert (first.epoch, first.images_seen, second.epoch, second.images_seen) == (1, 40, 2, 80)
    assert (state.epoch, state.images_seen, state.steps) == (2, 80, 6)  # 16 + 16 + 8 images an epoch
    assert first.images_per_s == pytest.approx(40 / first.wall_s, rel=0.05) and first.peak_memory_mb > 50
    assert list(train(state, blobs, until_epoch=2)) == []


def test_a_batch_beyond_the_data_set_is_one_batch_of_all(settings, blobs):
    state = start(settings({"batch_size": 1000}), "key", blobs, CPU)
    (record,) = train(state, blobs, until_epoch=1)
    assert state.steps == 1 and record.images_seen == 40


def test_weights_depend_on_the_run_key_alone(settings, blobs):
    run, found = settings(model=Choice.of("tiny", dropout=0.5)), {}
    for attempt, key in (("first", "key"), ("again", "key"), ("other", "other key")):
        torch.manual_seed(len(found))
        state = start(run, key, blobs, CPU)
        list(train(state, blobs, until_epoch=1))
        found[attempt] = weights(state)
    assert found["first"] == found["again"] != found["other"]


def test_sampling_between_epochs_and_other_randomness_change_nothing(settings, blobs):
    run, found = settings(model=Choice.of("tiny", dropout=0.5)), []
    for disturbed in (False, True):
        state = start(run, "key", blobs, CPU)
        for _ in train(state, blobs, until_epoch=2):
            if disturbed:
                for track in (0, 20):
                    state.denoiser(track).network(torch.randn(3, 1, 8, 8), torch.ones(3, dtype=torch.int64))
        found.append(weights(state))
    assert found[0] == found[1]


def test_training_leaves_the_global_generators_as_they_were(settings, blobs):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    state = start(settings(model=Choice.of("tiny", dropout=0.5)), "key", blobs, CPU)
    for _ in train(state, blobs, until_epoch=1):
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("damage", ["learning rate", "NaN weight", "infinite weight"])
def test_a_run_that_diverges_stops_at_once_and_can_not_be_saved(damage, settings, blobs, tmp_path):
    state = start(settings({"learning_rate": 1e30 if damage == "learning rate" else 1e-3}), "key", blobs, CPU)
    if damage != "learning rate":
        with torch.no_grad():
            state.network.leave.bias.fill_(math.nan if damage == "NaN weight" else math.inf)
    records = []
    with pytest.raises(Diverged, match=r"loss is (NaN|infinite) at epoch 1, step [123]$") as caught:
        records.extend(train(state, blobs, until_epoch=5))
    assert records == [] and caught.value.epoch == 1
    assert (caught.value.step == 1) == (damage != "learning rate")
    with pytest.raises(StoreError, match="broken off"):
        save(state, tmp_path / "latest.safetensors", with_optimizer=True)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_last_step_ruined_are_found_before_the_epoch_counts(settings, blobs):
    state = start(settings({"batch_size": 1000, "learning_rate": math.inf}), "key", blobs, CPU)
    with pytest.raises(Diverged, match="weights are not finite at epoch 1, step 1"):
        list(train(state, blobs, until_epoch=1))
    assert state.epoch == 0


def test_an_epoch_that_was_broken_off_is_not_gone_on_with(settings, blobs):
    state = start(settings({"learning_rate": 1e30}), "key", blobs, CPU)
    with pytest.raises(Diverged):
        list(train(state, blobs, until_epoch=1))
    with pytest.raises(AssertionError, match="broken off"):
        list(train(state, blobs, until_epoch=1))


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_ends_with_its_context(wanted):
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    with pytest.raises(KeyError), determinism(wanted, CPU):
        assert torch.are_deterministic_algorithms_enabled() == wanted
        raise KeyError
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic) == before


def test_the_mean_image_is_the_mean_of_the_normalised_images(settings, blobs):
    state = start(settings(), "key", blobs, CPU)
    expected = blobs.train.astype(np.float64).mean(axis=0) / 127.5 - 1
    np.testing.assert_allclose(state.prior.mean.numpy(), expected, atol=1e-6)
    assert torch.equal(state.prior.mean, mean_image(blobs.train, state.normalization, chunk=1024))


def test_the_loss_falls_on_real_digits(settings, tmp_path):
    digits = load(Choice.of("mnist-5k"), tmp_path).train[::40]
    data = ImageData.of("some digits", np.asarray(digits))
    run = settings(
        {"learning_rate": 3e-3, "batch_size": 32},
        model=Choice.of("unet", channels=(8, 16)),
        noise_process=Choice("cosine"),
    )
    losses = [record.loss for record in train(start(run, "key", data, CPU), data, until_epoch=12)]
    assert losses[-1] < 0.35 * losses[0]
