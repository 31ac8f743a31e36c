"""Visual tokens: section 3 of the paper (arXiv 2006.03677 v4), in its words and symbols.

Shapes: X is (B, HW, C), a feature map with its pixels in a row; T is (B, L, C_T), the visual tokens.
No layer has a bias. Every product with HW pixels is re-associated so that the 1x1 convolutions run over
the L tokens instead: (W X) A^T = W (X A^T), and (W X)^T K = X^T (W^T K). Same weights, same function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def softmax(logits: Tensor, dim: int) -> Tensor:
    """Softmax in at least float32: under autocast the logits may come in half precision."""
    return logits.softmax(dim, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)


def to_pixels(feature_map: Tensor) -> Tensor:
    """Lay the pixels of a feature map in a row: (B, C, H, W) -> (B, HW, C)."""
    return feature_map.flatten(2).transpose(1, 2)


class PointwiseConv(nn.Module):
    """A 1x1 convolution without bias on (B, N, C_in) positions, in `groups`; weight (C_out, C_in / groups)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1):
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
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # what torch gives its own convolutions

    def forward(self, x: Tensor) -> Tensor:
        """W x at every position: (B, N, C_in) -> (B, N, C_out)."""
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


class Tokenizer(nn.Module):
    """What both tokenizers share: pool the pixels under their attention, then embed them as tokens.

    T = softmax_HW(logits)^T (X W_V) W_E, where W_V is a grouped convolution on pixels and W_E raises C to C_T.
    """

    def __init__(self, channels: int, token_channels: int, groups: int):
        super().__init__()
        self.channels = channels
        self.value = PointwiseConv(channels, channels, groups)
        self.embed = PointwiseConv(channels, token_channels)

    def pool(self, pixels: Tensor, attention: Tensor) -> Tensor:
        """Tokens (B, L, C_T) from pixels (B, HW, C) and their attention (B, HW, L)."""
        return self.embed(self.value(attention.transpose(1, 2) @ pixels))


class FilterTokenizer(Tokenizer):
    """Filter-based tokenizer (equation 1): each token has its own fixed filter, a column of W_A.

    T = softmax_HW(X W_A / sqrt(C))^T X, then embedded. The scale 1/sqrt(C) is the reference implementation's.
    """

    def __init__(self, channels: int, tokens: int, token_channels: int, groups: int = 1):
        super().__init__(channels, token_channels, groups)
        self.filters = PointwiseConv(channels, tokens)

    def attention(self, pixels: Tensor) -> Tensor:
        """How much each token looks at each pixel: (B, HW, C) -> (B, HW, L), summing to 1 over the pixels."""
        return softmax(self.filters(pixels) / math.sqrt(self.channels), dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, HW, C) -> (B, L, C_T)."""
        return self.pool(pixels, self.attention(pixels))


class RecurrentTokenizer(Tokenizer):
    """Recurrent tokenizer (equation 2): the tokens of the module before decide where to look.

    W_R = T_in W_{T->R}; T = softmax_HW(X W_K W_R^T / sqrt(C))^T X, then embedded.
    """

    def __init__(self, channels: int, token_channels: int, groups: int = 1):
        super().__init__(channels, token_channels, groups)
        self.token_to_filter = PointwiseConv(token_channels, channels)
        self.key = PointwiseConv(channels, channels, groups)

    def attention(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """(B, HW, C) and (B, L, C_T) -> (B, HW, L), summing to 1 over the pixels."""
        filters = self.key.transposed(self.token_to_filter(tokens))  # (X W_K) W_R^T = X (W_R W_K^T)^T
        return softmax(pixels @ filters.transpose(1, 2) / math.sqrt(self.channels), dim=1)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """(B, HW, C) and (B, L, C_T) -> (B, L, C_T)."""
        return self.pool(pixels, self.attention(pixels, tokens))


class TokenTransformer(nn.Module):
    """Transformer over the tokens (equations 3 and 4).

    T' = T + softmax_L((T K)(T Q)^T / sqrt(C_T / 2)) T V; T_out = T' + relu(T' F_1) F_2.
    """

    def __init__(self, token_channels: int, groups: int = 1):
        super().__init__()
        half = token_channels // 2
        self.key = PointwiseConv(token_channels, half, groups)
        self.query = PointwiseConv(token_channels, half, groups)
        self.value = PointwiseConv(token_channels, token_channels, groups)
        self.feed_1 = PointwiseConv(token_channels, token_channels)
        self.feed_2 = PointwiseConv(token_channels, token_channels)

    def attention(self, tokens: Tensor) -> Tensor:
        """How much each token (dim 1) takes from each other token (dim 2, summing to 1): (B, L, L)."""
        queries, keys = self.query(tokens), self.key(tokens)
        return softmax(queries @ keys.transpose(1, 2) / math.sqrt(keys.shape[2]), dim=2)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C_T) -> (B, L, C_T)."""
        tokens = tokens + self.attention(tokens) @ self.value(tokens)
        return tokens + self.feed_2(F.relu(self.feed_1(tokens)))


class Projector(nn.Module):
    """Projector (equation 5): brings what the tokens hold back to the pixels.

    X_out = X_in W_S + softmax_L((X_in W_Q)(T W_K)^T / sqrt(C_out)) T W_V, where the skip W_S is there only
    when the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, token_channels: int, groups: int = 1):
        super().__init__()
        self.query = PointwiseConv(in_channels, out_channels, groups)
        self.key = PointwiseConv(token_channels, out_channels)
        self.value = PointwiseConv(token_channels, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else PointwiseConv(in_channels, out_channels)

    def attention(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """How much each pixel takes from each token (dim 2, summing to 1): (B, HW, L)."""
        keys = self.key(tokens)
        folded = self.query.transposed(keys)  # (X W_Q) K^T = X (K W_Q^T)^T: L keys instead of HW queries
        return softmax(pixels @ folded.transpose(1, 2) / math.sqrt(keys.shape[2]), dim=2)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """(B, HW, C_in) and (B, L, C_T) -> (B, HW, C_out)."""
        return self.skip(pixels) + self.attention(pixels, tokens) @ self.value(tokens)


class VTModule(nn.Module):
    """One visual transformer module: tokenizer, transformer, projector (figure 2 of the paper).

    `recurrent` picks the tokenizer; `out_channels=None` leaves the projector out (the last module of a VT-ResNet).
    `group_width` is the number of channels in each group of the convolutions on pixels, `token_groups` the
    number of groups of the transformer's key, query and value.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int | None,
        tokens: int,
        token_channels: int,
        recurrent: bool,
        group_width: int,
        token_groups: int,
    ):
        super().__init__()
        groups = pixel_groups(in_channels, group_width)
        self.tokenizer: FilterTokenizer | RecurrentTokenizer
        if recurrent:
            self.tokenizer = RecurrentTokenizer(in_channels, token_channels, groups)
        else:
            self.tokenizer = FilterTokenizer(in_channels, tokens, token_channels, groups)
        self.transformer = TokenTransformer(token_channels, token_groups)
        self.projector = None if out_channels is None else Projector(in_channels, out_channels, token_channels, groups)

    def forward(self, pixels: Tensor, tokens: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """(B, HW, C_in) and the tokens before, if recurrent -> pixels (B, HW, C_out) or None, tokens (B, L, C_T)."""
        tokens = self.transformer(self.tokenizer(pixels) if tokens is None else self.tokenizer(pixels, tokens))
        return (None if self.projector is None else self.projector(pixels, tokens)), tokens


class VTPyramid(nn.Module):
    """The VT modules of VT-FPN: a filter tokenizer and a projector for every level, one transformer for all tokens.

    Each level is projected from its own tokens. With 32 groups on 256 channels this costs about the 1.0 GMACs at
    800 x 1216 that the paper's table leaves for it.
    """

    def __init__(
        self, *, channels: int, levels: int, tokens: int, token_channels: int, group_width: int, token_groups: int
    ):
        super().__init__()
        groups = pixel_groups(channels, group_width)
        self.tokenizers = nn.ModuleList(
            FilterTokenizer(channels, tokens, token_channels, groups) for _ in range(levels)
        )
        self.transformer = TokenTransformer(token_channels, token_groups)
        self.projectors = nn.ModuleList(Projector(channels, channels, token_channels, groups) for _ in range(levels))

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """One (B, C, H_i, W_i) a level -> the same shapes, each with what the tokens of all levels brought to it."""
        pixels = [to_pixels(feature_map) for feature_map in feature_maps]
        tokens = [tokenizer(x) for tokenizer, x in zip(self.tokenizers, pixels, strict=True)]
        mixed = self.transformer(torch.cat(tokens, dim=1)).chunk(len(tokens), dim=1)
        projected = [project(x, t) for project, x, t in zip(self.projectors, pixels, mixed, strict=True)]
        return [y.transpose(1, 2).unflatten(2, m.shape[2:]) for y, m in zip(projected, feature_maps, strict=True)]


def pixel_groups(channels: int, group_width: int) -> int:
    """How many groups of `group_width` channels there are.

    Raises:
        ValueError: if the width does not divide the channels.
    """
    if group_width < 1 or channels % group_width:
        raise ValueError(f"group_width={group_width} does not divide {channels} channels")
    return channels // group_width
