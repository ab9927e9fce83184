"""Self-attention is torch's own multi-head attention over the pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffsearch.errors import DiffsearchError
from diffsearch.models.attention import SelfAttention


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_it_is_torchs_multi_head_attention(heads: int) -> None:
    ours, theirs = SelfAttention(8, heads), nn.MultiheadAttention(8, heads, batch_first=True)
    nn.init.normal_(ours.write.weight)
    nn.init.normal_(ours.read.bias)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.read.weight[:, :, 0, 0])
        theirs.in_proj_bias.copy_(ours.read.bias)
        theirs.out_proj.weight.copy_(ours.write.weight[:, :, 0, 0])
        theirs.out_proj.bias.copy_(ours.write.bias)
    x = torch.randn(3, 8, 5, 4)
    pixels = ours.norm(x).flatten(2).transpose(1, 2)
    expected = theirs(pixels, pixels, pixels)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(ours(x) - x, expected, rtol=1e-4, atol=1e-5)


def test_untrained_it_passes_its_input_on_and_heads_must_divide() -> None:
    x = torch.randn(2, 6, 3, 3)
    assert torch.equal(SelfAttention(6, 3)(x), x)
    with pytest.raises(DiffsearchError, match="4 heads don't divide 6 channels"):
        SelfAttention(6, 4)
