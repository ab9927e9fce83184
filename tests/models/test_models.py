"""Every network keeps the image's shape, knows the time, starts at zero and can be built without memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.attention import Gates
from diffsearch.models.blocks import Block
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
        "gates": {"gate": "half"},
        "full gates": {"gate": "full", "context": "multiply"},
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


# --- labels ---------------------------------------------------------------------------------------------------------

CONTEXTS = ("scale-shift", "add", "concat", "multiply")


def told(context: str, outputs: int | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model.build("unet", (1, 8, 8), 15, 3, outputs, channels=(8, 16), context=context)
    assert isinstance(network, nn.Module)
    return awake(network.eval())


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_conditional_network_tells_labels_apart_and_mixes_them(context: str) -> None:
    network, (x, t) = told(context), inputs((1, 8, 8))
    outputs = [network(x, t, row.expand(3, 3)) for row in (*torch.eye(3), torch.zeros(3), torch.full((3,), 1 / 3))]
    assert all(not torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    together = network(x, t, torch.eye(3))
    for image in range(3):
        torch.testing.assert_close(together[image], outputs[image][image], rtol=1e-5, atol=1e-5)
    with pytest.raises(DiffsearchError, match="called without labels"):
        network(x, t)


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_conditional_network_learns_from_every_parameter(context: str) -> None:
    network, (x, t) = told(context, outputs=2).train(), inputs((1, 8, 8))
    output = network(x, t, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]))
    assert output.shape == (3, 2, 8, 8)
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_label_multiplies_and_the_time_adds() -> None:
    """Report 004's a <- c * a + t, with c and t read off the block's own linear maps."""
    block = Block(2, 8, 5, None, norm="none", context="multiply", label_dim=3)
    x, context = torch.randn(4, 2, 6, 6), torch.randn(4, 5)
    c, t = block.label(context[:, 2:]), block.time(context[:, :2])  # type: ignore[misc]
    hidden = nn.functional.silu(c[:, :, None, None] * block.conv1(x) + t[:, :, None, None])
    torch.testing.assert_close(block(x, context), nn.functional.silu(block.conv2(hidden)))


def test_gates_are_those_of_report_000() -> None:
    """Means over pixels through two layers scale channels; mean and maximum over channels scale pixels, in (1/2, 1)."""
    x = torch.randn(3, 8, 5, 5)
    half, full = Gates(8, "half"), Gates(8, "full")
    full.load_state_dict(half.state_dict())
    channels = half.second(nn.functional.silu(half.first(x.flatten(2).mean(2)))).sigmoid()
    scaled = x * channels[:, :, None, None]
    seen = half.pixels(torch.stack([scaled.mean(1), scaled.max(1).values], 1)).sigmoid()
    torch.testing.assert_close(half(x), scaled * (0.5 + seen / 2))
    torch.testing.assert_close(full(x), scaled * seen)
    half.pixels.bias.data.fill_(-1e4)  # type: ignore[union-attr]
    torch.testing.assert_close(half(x), scaled / 2)
