import sys

import pytest
import torch

from diffsearch import registry
from diffsearch.space.settings import Choice
from diffsearch.training.loop import start, train
from diffsearch.training.memory import MB, describe, parameters_of, peak_mb, reset_peak

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "model", [Choice.of("unet", channels=(8, 16)), Choice("conv"), Choice("dense"), Choice("tiny")]
)
def test_a_run_is_described_without_allocating_it(model, settings):
    run = settings(model=model)
    network = registry.model.build(model.name, (1, 8, 8), 5, **model.kwargs)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    found = describe(run, (1, 8, 8))
    assert parameters_of(run, (1, 8, 8)) == parameters_of(run, (1, 8, 8)) == found.parameters
    assert found.parameters == parameters
    assert found.state_mb == parameters * 4 * (4 + 2) / MB  # weights, gradients, two moments; two averaged tracks
    assert found.flops > 0 and found.memory_mb > found.state_mb


def test_network_calls_are_counted_in_multiply_adds(settings):
    kernel = 3 * 3 * 8 * 8  # pixels x taps of the 3x3 convolutions of `tiny`: 2 -> 4 -> 4 -> 4 -> 1 channels
    assert describe(settings(), (1, 8, 8)).flops == 2 * kernel * (2 * 4 + 4 * 4 + 4 * 4 + 4 * 1)


def test_activations_grow_with_the_batch_and_are_what_autograd_keeps(settings):
    run = settings(model=Choice.of("unet", channels=(8, 16)))
    small, large = (describe(settings({"batch_size": size}, model=run.model), (1, 28, 28)) for size in (50, 100))
    assert 1.9 < large.activation_mb / small.activation_mb < 2.1
    # Two convolutions each at 28x28 down, 14x14 and 28x28 up keep at least their inputs and outputs.
    assert small.activation_mb > 50 * 4 * (4 * 8 * 28 * 28 + 2 * 16 * 14 * 14) / MB


def test_a_shape_that_a_network_can_not_take_is_found_before_training(settings):
    with pytest.raises(Exception, match="groups"):
        describe(settings(model=Choice.of("unet", channels=(62,), groups=8)), (1, 28, 28))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is the process's and can't be reset")
def test_the_peak_is_the_epochs_and_not_an_earlier_ones():
    block = torch.ones(300 * MB // 4)
    before = peak_mb(CPU)
    del block
    reset_peak(CPU)
    after = peak_mb(CPU)
    if after > before - 200:
        pytest.skip("this container can't reset its peak")
    torch.ones(300 * MB // 4)
    assert peak_mb(CPU) > after + 250


def test_records_tell_the_memory_of_their_epoch(settings, blobs):
    state = start(settings(), "key", blobs, CPU)
    (record,) = train(state, blobs, until_epoch=1)
    assert record.peak_memory_mb > 50
