"""Parts of the networks."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from diffsearch.errors import DiffsearchError

LARGEST_GROUPS = 8

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def group_count(channels: int, groups: int | None) -> int:
    """Groups of a GroupNorm: what was asked for, or the largest divisor of `channels` up to 8.

    Raises:
        DiffsearchError: `groups` doesn't divide `channels`; names both.
    """
    if groups is None:
        return max(count for count in range(1, LARGEST_GROUPS + 1) if channels % count == 0)
    if groups < 1 or channels % groups:
        fits = group_count(channels, None)
        raise DiffsearchError(
            f"model.groups: {groups} groups don't divide {channels} channels."
            f" Leave groups out ({fits} would be taken there), or change model.channels"
        )
    return groups


def zeroed(layer: Layer) -> Layer:
    """The layer with weight and bias zero, for a network's last one.

    The untrained network then says 0 everywhere, the best constant for a target of zero mean, and its first gradients
    come from the data instead of from what a random last layer happens to say.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class GroupNorm(nn.GroupNorm):
    """GroupNorm that takes a single value a group too (one image of one pixel), where torch's module refuses."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


Norm: TypeAlias = Literal["group", "batch", "none"]
How: TypeAlias = Literal["scale-shift", "add", "concat", "multiply"]


def norm_layer(kind: Norm, channels: int, groups: int | None) -> nn.Module:
    """GroupNorm (Wu & He 2018), BatchNorm (Ioffe & Szegedy 2015) or nothing."""
    if kind == "group":
        return GroupNorm(group_count(channels, groups), channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


class Block(nn.Module):
    """Two 3×3 convolutions at one resolution, each with a norm and SiLU; the context acts on the first.

    Args:
        inputs: channels in.
        outputs: channels out.
        context_dim: length of the context: the time's embedding, and the label's after it where there is one.
        groups: of each GroupNorm; None adapts to the channels.
        norm: after each convolution.
        dropout: share of the features between the convolutions that training sets to zero.
        residual: add the input, through a 1×1 convolution where the channels differ (He et al. 2016).
        context: how the first convolution's features h take the context, a and b linear maps of it.
            "scale-shift": (1 + a) · h + b (Perez et al. 2018); "add" and "concat": h + b (Ho et al. 2020), which is
            h + time + label where both are told; "multiply": label · h + time, and h + time without a label.
        label_dim: length of the label's part at the context's end; only "multiply" tells the two apart.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        context_dim: int,
        groups: int | None,
        *,
        norm: Norm = "group",
        dropout: float = 0.0,
        residual: bool = False,
        context: How = "scale-shift",
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = norm_layer(norm, outputs, groups)
        factors = label_dim if context == "multiply" else 0
        self.time = nn.Linear(context_dim - factors, 2 * outputs if context == "scale-shift" else outputs)
        self.label = nn.Linear(factors, outputs) if factors else None
        if self.label is not None:
            nn.init.ones_(self.label.bias)  # around 1, not 0: an untrained label must not blot the features out
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = norm_layer(norm, outputs, groups)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.past: nn.Module | None = None
        if residual:
            self.past = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.context = context

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, context_dim) -> (B, outputs, H, W)."""
        h = nn.functional.silu(self._told(self.norm1(self.conv1(x)), told))
        if self.dropout is not None:
            h = self.dropout(h)
        h = nn.functional.silu(self.norm2(self.conv2(h)))
        return h if self.past is None else h + self.past(x)

    def _told(self, h: Tensor, told: Tensor) -> Tensor:
        if self.label is not None:
            time, label = told.tensor_split([self.time.in_features], dim=1)
            return self.label(label)[:, :, None, None] * h + self.time(time)[:, :, None, None]
        said = self.time(told)[:, :, None, None]
        if self.context != "scale-shift":
            return h + said
        scale, shift = said.chunk(2, dim=1)
        return h * (1 + scale) + shift
