"""Options of the visual token modules, and their only layer: a grouped 1x1 convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

TokenizerName = Literal["filter", "pooling", "clustering"]
TokenModuleName = Literal["transformer", "graph", "none"]
NormName = Literal["none", "pre", "post"]
Initialisation = Literal["torch", "lecun", "xavier", "kaiming"]


@dataclass(frozen=True, kw_only=True)
class VTDesign:
    """Options that all visual transformer modules of a model share.

    Args:
        tokens: visual tokens L of a module.
        token_channels: channels C_T of a token.
        group_width: channels in each group of the convolutions on pixels; None for a single group.
        token_groups: groups of the transformer's key, query and value.
        pixel_convs: whether the tokenizers convolve pixels (value, and key if there is one); not in the reference
            implementation.
        tokenizer: tokenizer of a first module: `filter` (equation 1), `pooling` or `clustering`.
        token_module: `transformer` (equations 3 and 4), `graph` convolution, or `none`.
        heads: attention heads of transformer and projector.
        norm: LayerNorms: `none`; `pre`, before each residual branch on the tokens and before the projector; `post`,
            after each convolution on tokens (as YOGO has one).
        scale_logits: whether attention logits are divided by the root of their channels, as in the reference
            implementation and YOGO; not in the paper's equations.
        init: initialisation of the convolutions, see `PointwiseConv.initialise`.
        unit_filters: whether filter-based tokenizers start with logits of unit variance for pixels of unit variance, so
            that tokens differ from the start, whatever `init` is.
        zero_init: whether the last convolution of every residual branch starts at zero.
        reassociate: whether convolutions are applied to tokens instead of pixels: the same function for less work.

    Raises:
        ValueError: if a size is below 1.
    """

    tokens: int = 16
    token_channels: int = 1024
    group_width: int | None = 64
    token_groups: int = 4
    pixel_convs: bool = True
    tokenizer: TokenizerName = "filter"
    token_module: TokenModuleName = "transformer"
    heads: int = 1
    norm: NormName = "none"
    scale_logits: bool = True
    init: Initialisation = "xavier"
    unit_filters: bool = True
    zero_init: bool = False
    reassociate: bool = True

    def __post_init__(self) -> None:
        for key in ("tokens", "token_channels", "token_groups"):
            if (value := getattr(self, key)) < 1:
                raise ValueError(f"{key}={value}: must be at least 1")

    def count_groups(self, channels: int) -> int:
        """Count the groups of a convolution on pixels.

        Raises:
            ValueError: if `group_width` does not divide the channels.
        """
        if self.group_width is None:
            return 1
        if self.group_width < 1 or channels % self.group_width:
            raise ValueError(f"group_width={self.group_width} does not divide {channels} channels")
        return channels // self.group_width

    def build_conv(self, in_channels: int, out_channels: int, groups: int = 1) -> PointwiseConv:
        """Build a convolution on tokens."""
        return PointwiseConv(in_channels, out_channels, groups, norm=self.norm == "post")

    def build_norm(self) -> nn.Module:
        """Build the norm before a residual branch on tokens."""
        return nn.LayerNorm(self.token_channels) if self.norm == "pre" else nn.Identity()


def softmax(logits: Tensor, dim: int) -> Tensor:
    """Softmax in at least float32, because autocast can pass logits in half precision."""
    return logits.softmax(dim, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)


class PointwiseConv(nn.Module):
    """Grouped 1x1 convolution without bias on positions (B, N, C_in); weight (C_out, C_in / groups).

    `norm` adds a LayerNorm over the output channels.
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

    def initialise(self, init: Initialisation) -> None:
        """Draw new weights.

        `torch` is PyTorch's default for convolutions, U(-a, a) with a = 1 / sqrt(fan_in); `lecun` keeps the variance,
        N(0, 1 / fan_in); `xavier` is U(-a, a) with a = sqrt(6 / (fan_in + fan_out)); `kaiming` is N(0, 2 / fan_in), as
        in the reference implementation.
        """
        if init == "torch":
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        elif init == "lecun":
            nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        elif init == "xavier":
            nn.init.xavier_uniform_(self.weight)
        else:
            nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def zero_output(self) -> None:
        """Initialise the output to zero; sets the weight of the norm, if there is one, so that gradients can flow."""
        nn.init.zeros_(self.norm.weight if isinstance(self.norm, nn.LayerNorm) else self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply W, then the norm: (B, N, C_in) -> (B, N, C_out)."""
        return self.norm(self.convolve(x))

    def convolve(self, x: Tensor) -> Tensor:
        """Apply W without the norm."""
        return self._multiply(x, self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2))

    def convolve_transposed(self, y: Tensor) -> Tensor:
        """Apply W^T: (B, N, C_out) -> (B, N, C_in). In a product with W x it replaces the convolution of x."""
        return self._multiply(y, self.weight.unflatten(0, (self.groups, -1)))

    def _multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.groups == 1:
            return x @ weight[0]
        return torch.einsum("bngi,gio->bngo", x.unflatten(2, (self.groups, -1)), weight).flatten(2)

    def extra_repr(self) -> str:
        """Sizes for `print(module)`."""
        return f"{self.weight.shape[1] * self.groups}, {self.weight.shape[0]}, groups={self.groups}"
