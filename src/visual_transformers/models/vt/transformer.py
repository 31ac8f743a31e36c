"""Modules from tokens to tokens: the transformer of section 3.2 of the paper, and the graph convolution (ablation)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from visual_transformers.models.vt.layers import PointwiseConv, VTDesign, softmax


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, C / heads) -> (B, N, C)."""
    return x.transpose(1, 2).flatten(2)


def check_heads(heads: int, channels: int, owner: str) -> None:
    """Check that the heads divide the channels of `owner`, which is named in the message.

    Raises:
        ValueError: if they do not; the message names the nearest numbers that do.
    """
    if heads >= 1 and channels % heads == 0:
        return
    divisors = [number for number in range(1, channels + 1) if channels % number == 0]
    near = [*[d for d in divisors if d < heads][-1:], *[d for d in divisors if d > heads][:1]]
    raise ValueError(
        f"heads={heads} do not divide the {channels} channels of {owner}; choose {' or '.join(map(str, near))}"
    )


class TokenTransformer(nn.Module):
    """Transformer over the tokens (equations 3 and 4).

    T' = T + softmax_L((T K)(T Q)^T / s) T V, where s is sqrt(C_T / 2 / heads) with `scale_logits`, else 1, and
    T_out = T' + relu(T' F_1) F_2. `drop` is the probability of dropping a residual branch for an image in training.

    Raises:
        ValueError: if the heads do not divide the channels of the keys.
    """

    def __init__(self, design: VTDesign, drop: float = 0.0):
        super().__init__()
        channels, half = design.token_channels, design.token_channels // 2
        check_heads(design.heads, half, "the transformer's keys (half of token_channels)")
        self.heads = design.heads
        self.scale = math.sqrt(half // design.heads) if design.scale_logits else 1.0
        self.key = design.build_conv(channels, half, design.token_groups)
        self.query = design.build_conv(channels, half, design.token_groups)
        self.value = design.build_conv(channels, channels, design.token_groups)
        self.feed_1 = design.build_conv(channels, channels)
        self.feed_2 = design.build_conv(channels, channels)
        self.norm_1 = design.build_norm()
        self.norm_2 = design.build_norm()
        self.drop = StochasticDepth(drop, "row")

    @property
    def last_convs(self) -> list[PointwiseConv]:
        """Last convolution of each residual branch."""
        return [self.value, self.feed_2]

    def attention(self, tokens: Tensor) -> Tensor:
        """Attention (B, heads, L, L) of each token (dim 2) to the tokens (dim 3); sums to 1 over dim 3."""
        return self._attention(self.norm_1(tokens))

    def _attention(self, tokens: Tensor) -> Tensor:
        queries, keys = (split_heads(convolution(tokens), self.heads) for convolution in (self.query, self.key))
        return softmax(queries @ keys.transpose(2, 3) / self.scale, dim=3)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C_T) -> (B, L, C_T)."""
        x = self.norm_1(tokens)
        tokens = tokens + self.drop(merge_heads(self._attention(x) @ split_heads(self.value(x), self.heads)))
        return tokens + self.drop(self.feed_2(F.relu(self.feed_1(self.norm_2(tokens)))))


class GraphConvolution(nn.Module):
    """Graph convolution over the tokens (ablation; GloRe, Chen et al. 2019): T_out = T + relu(T + A T) W.

    The adjacency A (L, L) is learned and shared by all images, so the number of tokens is fixed. `drop` is the
    probability of dropping the residual branch for an image in training.
    """

    def __init__(self, design: VTDesign, tokens: int, drop: float = 0.0):
        super().__init__()
        self.adjacency = nn.Parameter(torch.empty(tokens, tokens))
        nn.init.kaiming_uniform_(self.adjacency, a=math.sqrt(5))
        self.weight = design.build_conv(design.token_channels, design.token_channels)
        self.norm = design.build_norm()
        self.drop = StochasticDepth(drop, "row")

    @property
    def last_convs(self) -> list[PointwiseConv]:
        """Last convolution of the residual branch."""
        return [self.weight]

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C_T) -> (B, L, C_T)."""
        x = self.norm(tokens)
        return tokens + self.drop(self.weight(F.relu(x + self.adjacency @ x)))
