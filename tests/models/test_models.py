"""Every network keeps the image's shape, knows the time, starts at zero and can be built without memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffsearch.registry import model

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in model.names()} | {
    f"unet {said}": ("unet", {"channels": (8, 12, 16), **options})
    for said, options in {
        "residual": {"residual": True, "blocks": 2},
        "batch norm": {"norm": "batch"},
        "no norm": {"norm": "none", "context": "add"},
        "dropout": {"dropout": 0.1},
        "convolutions": {"down": "conv", "up": "transposed"},
        "maxima": {"down": "max", "up": "nearest-conv"},
        "bounded": {"output": "tanh"},
    }.items()
}
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 5, 7), (3, 1, 1)]


def seeded(name: str, shape: tuple[int, int, int], seed: int = 0, steps: int = 15) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind, options = CASES[name]
        network = model.build(kind, shape, steps, **options)
    assert isinstance(network, nn.Module)
    return network.eval()


def awake(network: nn.Module) -> nn.Module:
    """The network with its last layer, which starts at zero, filled."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.add_(0.1)
    return network


def inputs(shape: tuple[int, int, int], count: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(1)), torch.tensor([1, 7, 15])[:count]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_every_network_keeps_the_shape_and_starts_at_zero(name: str, shape: tuple[int, int, int]) -> None:
    network = seeded(name, shape)
    x, t = inputs(shape)
    assert torch.equal(network(x, t), torch.zeros_like(x))
    output = awake(network)(x, t)
    assert output.shape == x.shape and output.isfinite().all()
    assert awake(network)(x[:1], t[:1]).isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_every_network_tells_the_steps_apart_at_any_T(name: str) -> None:
    for steps in (1, 2, 1000):
        network = awake(seeded(name, (1, 8, 8), steps=steps))
        x, _ = inputs((1, 8, 8), 1)
        first, last = network(x, torch.tensor([1])), network(x, torch.tensor([steps]))
        assert first.isfinite().all() and torch.equal(first, last) == (steps == 1)


@pytest.mark.parametrize("name", CASES)
def test_images_do_not_reach_each_other(name: str) -> None:
    """Tolerance: float32 products are summed in another order for another batch."""
    network = awake(seeded(name, (1, 8, 8)))
    x, t = inputs((1, 8, 8))
    torch.testing.assert_close(network(x, t)[1:2], network(x[1:2], t[1:2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_weights_come_from_the_global_generator_alone(name: str) -> None:
    first, again, other = (seeded(name, (1, 8, 8), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", CASES)
def test_every_network_is_built_and_run_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        kind, options = CASES[name]
        network = model.build(kind, (1, 28, 28), 15, **options).eval()
        assert all(parameter.is_meta for parameter in network.parameters())
        assert network(torch.empty(2, 1, 28, 28), torch.ones(2, dtype=torch.int64)).shape == (2, 1, 28, 28)
    assert network.state_dict().keys() == seeded(name, (1, 28, 28)).state_dict().keys()


@pytest.mark.parametrize("name", CASES)
def test_every_network_learns_from_every_parameter(name: str) -> None:
    """One image, 60 Adam steps: the loss falls by half, and no parameter is left without a gradient."""
    network = seeded(name, (1, 8, 8)).train()
    x, t = inputs((1, 8, 8))
    target = x.sign()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x, t) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("name", CASES)
def test_every_network_runs_in_bfloat16(name: str) -> None:
    network = awake(seeded(name, (1, 8, 8)))
    x, t = inputs((1, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(x, t)
    torch.testing.assert_close(low.float(), network(x, t), rtol=0.1, atol=0.1)
