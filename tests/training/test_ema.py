import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffsearch.errors import StoreError
from diffsearch.training.ema import EmaTracks, decay

LATE = 10**9  # so many steps taken that the warm-up is over


def walk(network: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_a_track_equals_torchs_averaged_model():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    tracks = EmaTracks(network, (0, 100))
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5 ** (7 / 100)))
    theirs.update_parameters(network)  # its first update copies
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        walk(network, generator)
        tracks.update(images=7, steps=LATE)
        theirs.update_parameters(network)
    ours = tracks.network(network, 100)
    for mine, other in zip(ours.parameters(), theirs.module.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("batch_size", [1, 25, 100, 200])
def test_after_a_half_life_of_images_half_of_the_old_value_is_left_at_every_batch_size(batch_size):
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    tracks = EmaTracks(network, (200,))
    nn.init.zeros_(network.weight)
    for _ in range(200 // batch_size):
        tracks.update(images=batch_size, steps=LATE)
    assert tracks.network(network, 200).weight.item() == pytest.approx(0.5, rel=2e-5)  # 200 roundings in fp32


def test_the_warm_up_lets_go_of_the_initial_weights():
    assert decay(10**6, images=10, steps=1) == 2 / 11
    assert decay(10**6, images=10, steps=90) == 91 / 100
    assert decay(10**6, images=10, steps=LATE) == 0.5 ** (10 / 10**6)
    assert decay(5, images=10, steps=LATE) == 0.25


def test_tracks_live_side_by_side_and_the_raw_one_is_the_network_itself():
    network = nn.Linear(2, 2)
    tracks = EmaTracks(network, (100, 0, 10, 10))
    before = network.weight.detach().clone()
    walk(network, torch.Generator().manual_seed(0))
    tracks.update(images=10, steps=LATE)
    assert tracks.half_lives == (10, 100)
    assert tracks.network(network, 0) is network
    near, far = tracks.network(network, 10).weight, tracks.network(network, 100).weight
    torch.testing.assert_close(near, before.lerp(network.weight, 0.5))
    torch.testing.assert_close(far, before.lerp(network.weight, 1 - 0.5**0.1))


def test_a_tracks_network_is_a_copy_with_running_statistics_of_its_own():
    network = nn.BatchNorm1d(3)
    tracks = EmaTracks(network, (10,))
    network(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    tracks.update(images=10, steps=LATE)
    averaged = tracks.network(network, 10)
    torch.testing.assert_close(averaged.running_mean, network.running_mean / 2)  # half of the way from 0
    torch.testing.assert_close(averaged.running_var, (1 + network.running_var) / 2)
    assert averaged.running_mean.any() and averaged.num_batches_tracked == 1
    assert not averaged.training and not any(p.requires_grad for p in averaged.parameters())
    nn.init.zeros_(network.weight)
    assert averaged.weight.all()


def test_a_track_that_was_not_kept_is_refused_with_what_it_would_take():
    network = nn.Linear(2, 2)
    with pytest.raises(StoreError, match=r"half-life 8k .*kept: 0, 2k\. .*training again"):
        EmaTracks(network, (0, 2000)).network(network, 8000)
