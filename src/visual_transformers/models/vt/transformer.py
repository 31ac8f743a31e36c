"""Tokens to tokens: the transformer of section 3.2 of the paper, and the graph convolution of its ablation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from visual_transformers.models.vt.layers import PointwiseConv, softmax


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, C / heads) -> (B, N, C)."""
    return x.transpose(1, 2).flatten(2)


def check_heads(heads: int, channels: int, whose: str) -> None:
    """See that so many heads can share the channels.

    Raises:
        ValueError: if they do not divide them, with the next numbers below and above that do.
    """
    if heads >= 1 and channels % heads == 0:
        return
    divisors = [number for number in range(1, channels + 1) if channels % number == 0]
    near = [*[d for d in divisors if d < heads][-1:], *[d for d in divisors if d > heads][:1]]
    raise ValueError(
        f"heads={heads} do not divide the {channels} channels of {whose}; choose {' or '.join(map(str, near))}"
    )


class TokenTransformer(nn.Module):
    """Transformer over the tokens (equations 3 and 4).

    T' = T + softmax_L((T K)(T Q)^T / s) T V, where s is sqrt(C_T / 2 / heads) with `scale_logits`, and
    T_out = T' + relu(T' F_1) F_2.

    Args:
        token_channels: channels C_T of a token.
        groups: of the key, query and value convolutions.
        heads: of the attention.
        pre_norm: whether a LayerNorm stands before each residual branch.
        post_norm: whether a LayerNorm follows each convolution.
        scale_logits: whether attention logits are divided by the root of their channels; not so in the paper.
        drop: chance that a residual branch is dropped for an image in training.

    Raises:
        ValueError: if the heads do not divide the keys' channels.
    """

    def __init__(
        self,
        token_channels: int,
        groups: int = 1,
        *,
        heads: int = 1,
        pre_norm: bool = False,
        post_norm: bool = False,
        scale_logits: bool = True,
        drop: float = 0.0,
    ):
        super().__init__()
        half = token_channels // 2
        check_heads(heads, half, "the transformer's keys (half of token_channels)")
        self.heads = heads
        self.scale = math.sqrt(half // heads) if scale_logits else 1.0
        self.key = PointwiseConv(token_channels, half, groups, norm=post_norm)
        self.query = PointwiseConv(token_channels, half, groups, norm=post_norm)
        self.value = PointwiseConv(token_channels, token_channels, groups, norm=post_norm)
        self.feed_1 = PointwiseConv(token_channels, token_channels, norm=post_norm)
        self.feed_2 = PointwiseConv(token_channels, token_channels, norm=post_norm)
        self.norm_1 = nn.LayerNorm(token_channels) if pre_norm else nn.Identity()
        self.norm_2 = nn.LayerNorm(token_channels) if pre_norm else nn.Identity()
        self.drop = StochasticDepth(drop, "row")

    @property
    def last_convs(self) -> list[PointwiseConv]:
        """The last convolution of each residual branch."""
        return [self.value, self.feed_2]

    def attention(self, tokens: Tensor) -> Tensor:
        """How much each token (dim 2) takes from each other token (dim 3, summing to 1): (B, heads, L, L)."""
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
    """Graph convolution over the tokens (ablation), as Chen et al. 2019 (GloRe) define it: T_out = T + relu(T + A T) W.

    The adjacency A (L, L) is learned and the same for every image, so the number of tokens is fixed.

    Args:
        tokens: number of tokens L.
        token_channels: channels C_T of a token.
        pre_norm: whether a LayerNorm stands before the residual branch.
        post_norm: whether a LayerNorm follows the convolution W.
        drop: chance that the residual branch is dropped for an image in training.
    """

    def __init__(
        self, tokens: int, token_channels: int, *, pre_norm: bool = False, post_norm: bool = False, drop: float = 0.0
    ):
        super().__init__()
        self.adjacency = nn.Parameter(torch.empty(tokens, tokens))
        nn.init.kaiming_uniform_(self.adjacency, a=math.sqrt(5))
        self.weight = PointwiseConv(token_channels, token_channels, norm=post_norm)
        self.norm = nn.LayerNorm(token_channels) if pre_norm else nn.Identity()
        self.drop = StochasticDepth(drop, "row")

    @property
    def last_convs(self) -> list[PointwiseConv]:
        """The last convolution of the residual branch."""
        return [self.weight]

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C_T) -> (B, L, C_T)."""
        x = self.norm(tokens)
        return tokens + self.drop(self.weight(F.relu(x + self.adjacency @ x)))
