"""How a cluster is shared out."""

from __future__ import annotations

import json
import math

import pytest

from diffsearch.errors import ConfigError
from diffsearch.space.settings import Resources
from diffsearch.study.host import memory_mb
from diffsearch.study.resources import (
    CUDA_CONTEXT_MB,
    MEMORY_SHARE,
    SAFETY,
    gpu_fraction,
    largest_run,
    measure_peak,
    memory_limit_mb,
    share_out,
)
from diffsearch.training.memory import describe

CPU = {"CPU": 4.0, "memory": 1e9}
GPU = {"CPU": 8.0, "GPU": 2.0}


def test_without_gpus_each_run_has_one_thread():
    share = share_out(Resources(), [CPU], 0.0, None)
    assert (share.cpu, share.gpu, share.workers) == (1.0, 0.0, 4) and share.bundle() == {"cpu": 1.0}


def test_runs_share_the_memory_of_their_own_node_and_one_alone_has_it_all():
    """A cluster's nodes differ: nine runs on the large one, four on the small, which has the same memory here."""
    large = {"CPU": 9.0}
    alone = memory_limit_mb(large, 1.0, 0.0, alone=True)
    assert alone == pytest.approx(MEMORY_SHARE * memory_mb())
    assert memory_limit_mb(large, 1.0, 0.0, alone=False) == pytest.approx(alone / 9)
    assert memory_limit_mb(CPU, 1.0, 0.0, alone=False) == pytest.approx(alone / 4)
    assert memory_limit_mb(GPU, 1.0, 0.5, alone=False) == pytest.approx(alone / 4)
    assert memory_limit_mb({}, 1.0, 0.0, alone=False) == pytest.approx(alone)


@pytest.mark.parametrize(
    ("asked", "nodes", "workers"),
    [
        (Resources(cpu=2), [CPU], 2),
        (Resources(cpu=3), [CPU, CPU], 2),
        (Resources(cpu=0.5), [CPU], 8),
        (Resources(gpu=0), [GPU], 8),
        (Resources(gpu=1), [GPU, GPU], 4),
        (Resources(gpu=2), [GPU, GPU], 2),
        (Resources(gpu=0.5), [GPU, CPU], 4),
        (Resources(gpu=0.4), [GPU], 4),  # a run has its part of one GPU: 0.4 of each is left over
        (Resources(cpu=4, gpu=0.5), [GPU], 2),
    ],
)
def test_by_hand(asked, nodes, workers):
    share = share_out(asked, nodes, 0.0, None)
    assert share.workers == workers


@pytest.mark.parametrize("fits", range(1, 41))
def test_as_many_runs_share_a_gpu_as_its_memory_holds(fits):
    """Ray counts GPUs in ten-thousandths; a fraction rounded up would lose a run: 6 x 0.1667 is more than one."""
    peak_mb = 1000.0
    gpu_mb = fits * (peak_mb * SAFETY + CUDA_CONTEXT_MB) + 1
    fraction = gpu_fraction(peak_mb, gpu_mb)
    assert round(fraction * 10_000) * fits <= 10_000
    share = share_out(Resources(), [{"CPU": 64.0, "GPU": 1.0}], peak_mb, gpu_mb)
    assert share.workers == fits and share.gpu == fraction


def test_a_run_larger_than_a_gpu_has_one_whole():
    assert gpu_fraction(1e6, 1000.0) == 1.0 and gpu_fraction(10.0, None) == 1.0


def test_two_gpu_nodes_are_shared_by_the_measured_peak():
    share = share_out(Resources(), [GPU, GPU], 4000.0, 24_000.0)
    each = math.floor(24_000 / (4000 * SAFETY + CUDA_CONTEXT_MB))
    assert share.workers == 4 * each == 16 and share.bundle() == {"cpu": 1.0, "gpu": 0.25}


@pytest.mark.parametrize("asked", [Resources(gpu=3), Resources(cpu=9), Resources(cpu=8, gpu=2.5)])
def test_what_no_node_has_is_refused(asked):
    with pytest.raises(ConfigError, match="which no node has") as error:
        share_out(asked, [GPU, GPU], 0.0, None)
    assert "the largest node offers 8 CPU and 2 GPU" in str(error.value)


def test_the_largest_run_of_a_space_is_found(laboratory):
    spec = laboratory.spec({"model.channels": [[4], [4, 8], [16, 32]], "training.batch_size": [50, 100]})
    largest = largest_run(spec, (1, 28, 28))
    assert largest.training.batch_size == 100 and largest.model.kwargs["channels"] == (16, 32)


def test_the_peak_of_a_pretended_gpu_is_what_the_shapes_say(laboratory):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a real one")
    settings = largest_run(laboratory.spec(), (1, 28, 28))
    expected = describe(settings, (1, 28, 28)).memory_mb
    assert measure_peak(json.dumps(settings.to_json()), []) == (expected, None)
