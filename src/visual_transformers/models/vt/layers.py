"""The one layer that the token stage is made of: a grouped 1x1 convolution, and its initialisations."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Initialisation = Literal["torch", "lecun", "xavier", "kaiming"]


def softmax(logits: Tensor, dim: int) -> Tensor:
    """Softmax in at least float32: under autocast the logits may come in half precision."""
    return logits.softmax(dim, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)


class PointwiseConv(nn.Module):
    """A 1x1 convolution without bias on (B, N, C_in) positions, in `groups`; weight (C_out, C_in / groups).

    `norm` puts a LayerNorm over the output channels behind it.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1, *, norm: bool = False):
        super().__init__()
        if min(in_channels, out_channels, groups) < 1:
            raise ValueError(
                f"{in_channels} input and {out_channels} output channels in {groups} groups: at least 1 each"
            )
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{groups} groups do not divide {in_channels} input and {out_channels} output channels; "
                f"use a divisor of {math.gcd(in_channels, out_channels)}"
            )
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups))
        self.norm = nn.LayerNorm(out_channels) if norm else nn.Identity()
        self.initialise("torch")

    def initialise(self, how: Initialisation) -> None:
        """Draw the weights anew.

        `torch` is what PyTorch gives its own convolutions, U(-a, a) with a = 1 / sqrt(fan_in); `lecun` keeps the
        variance, N(0, 1 / fan_in); `xavier` is U(-a, a) with a = sqrt(6 / (fan_in + fan_out)); `kaiming` is
        N(0, 2 / fan_in), the reference implementation's.
        """
        if how == "torch":
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        elif how == "lecun":
            nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        elif how == "xavier":
            nn.init.xavier_uniform_(self.weight)
        else:
            nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def zero(self) -> None:
        """Make the output zero, in a way that still learns: by the norm's weight where there is a norm."""
        nn.init.zeros_(self.norm.weight if isinstance(self.norm, nn.LayerNorm) else self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """W x at every position, then the norm: (B, N, C_in) -> (B, N, C_out)."""
        return self.norm(self.convolve(x))

    def convolve(self, x: Tensor) -> Tensor:
        """W x at every position, without the norm."""
        return self._multiply(x, self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2))

    def transposed(self, y: Tensor) -> Tensor:
        """W^T y at every position, (B, N, C_out) -> (B, N, C_in): folds the weights into the other factor."""
        return self._multiply(y, self.weight.unflatten(0, (self.groups, -1)))

    def _multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.groups == 1:
            return x @ weight[0]
        return torch.einsum("bngi,gio->bngo", x.unflatten(2, (self.groups, -1)), weight).flatten(2)

    def extra_repr(self) -> str:
        """Sizes shown by `print(module)`."""
        return f"{self.weight.shape[1] * self.groups}, {self.weight.shape[0]}, groups={self.groups}"


def pixel_groups(channels: int, group_width: int | None) -> int:
    """How many groups of `group_width` channels there are; one where the width is None.

    Raises:
        ValueError: if the width does not divide the channels.
    """
    if group_width is None:
        return 1
    if group_width < 1 or channels % group_width:
        raise ValueError(f"group_width={group_width} does not divide {channels} channels")
    return channels // group_width
