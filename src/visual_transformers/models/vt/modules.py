"""Visual transformer modules: tokenizer, transformer, projector (section 3 of the paper, arXiv 2006.03677 v4).

Shapes: X is (B, HW, C), the flattened pixels of a feature map of size (H, W); T is (B, L, C_T), the visual tokens.
No convolution has a bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from visual_transformers.models.vt.layers import PointwiseConv, VTDesign, softmax
from visual_transformers.models.vt.tokenizers import (
    ClusteringTokenizer,
    FilterTokenizer,
    PoolingTokenizer,
    RecurrentTokenizer,
    Size,
    Tokenizer,
)
from visual_transformers.models.vt.transformer import (
    GraphConvolution,
    TokenTransformer,
    check_heads,
    merge_heads,
    split_heads,
)

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "filter": FilterTokenizer,
    "pooling": PoolingTokenizer,
    "clustering": ClusteringTokenizer,
}
"""Tokenizers that need no tokens of a previous module."""


def to_pixels(feature_map: Tensor) -> Tensor:
    """Flatten a feature map: (B, C, H, W) -> (B, HW, C)."""
    return feature_map.flatten(2).transpose(1, 2)


class Projector(nn.Module):
    """Projector (equation 5), from tokens back to pixels.

    X_out = X_in W_S + softmax_L((X_in W_Q)(T W_K)^T / s) T W_V, where s is sqrt(C_out / heads) with `scale_logits`,
    else 1; the skip W_S is an identity unless the number of channels changes. With `reassociate`, W_Q is applied to the
    L keys, because (W_Q X)^T K = X^T (W_Q^T K).

    Args:
        design: shared options.
        in_channels, out_channels: channels of the pixels.
        drop: probability of dropping the attention branch for an image in training.

    Raises:
        ValueError: if the heads do not divide the output channels.
    """

    def __init__(self, design: VTDesign, in_channels: int, out_channels: int, drop: float = 0.0):
        super().__init__()
        check_heads(design.heads, out_channels, "the projector")
        self.heads, self.reassociate = design.heads, design.reassociate
        self.scale = math.sqrt(out_channels // design.heads) if design.scale_logits else 1.0
        self.query = PointwiseConv(in_channels, out_channels, design.count_groups(in_channels))
        self.key = design.build_conv(design.token_channels, out_channels)
        self.value = design.build_conv(design.token_channels, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else PointwiseConv(in_channels, out_channels)
        self.norm = design.build_norm()
        self.drop = StochasticDepth(drop, "row")

    def attention(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Attention (B, heads, HW, L) of each pixel to the tokens; sums to 1 over the tokens."""
        return self._attention(pixels, self.norm(tokens))

    def _attention(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        keys = split_heads(self.key(tokens), self.heads)
        if not self.reassociate:
            return softmax(split_heads(self.query(pixels), self.heads) @ keys.transpose(2, 3) / self.scale, dim=3)
        same_head = torch.eye(self.heads, device=keys.device, dtype=keys.dtype)[:, None, :, None]
        padded = (keys[:, :, :, None] * same_head).flatten(3)  # (B, heads, L, C_out), zero in other heads' channels
        folded = self.query.convolve_transposed(padded.flatten(1, 2))
        logits = (pixels @ folded.transpose(1, 2)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return softmax(logits / self.scale, dim=3)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """(B, HW, C_in) and (B, L, C_T) -> (B, HW, C_out)."""
        tokens = self.norm(tokens)
        projected = self._attention(pixels, tokens) @ split_heads(self.value(tokens), self.heads)
        return self.skip(pixels) + self.drop(merge_heads(projected))


def build_token_module(design: VTDesign, tokens: int, drop: float) -> nn.Module:
    """Build the module that mixes `tokens` tokens."""
    if design.token_module == "none":
        return nn.Identity()
    return GraphConvolution(design, tokens, drop) if design.token_module == "graph" else TokenTransformer(design, drop)


def initialise(design: VTDesign, model: nn.Module) -> None:
    """Draw the weights of all visual token modules in `model`."""
    for module in model.modules():
        if isinstance(module, PointwiseConv):
            module.initialise(design.init)
    for module in model.modules():
        if design.unit_filters and isinstance(module, FilterTokenizer):
            nn.init.normal_(module.filters.weight, std=module.scale / math.sqrt(module.filters.weight.shape[1]))
        if design.zero_init and isinstance(module, TokenTransformer | GraphConvolution):
            for convolution in module.last_convs:
                convolution.zero_output()
        if design.zero_init and isinstance(module, Projector):
            module.value.zero_output()


class VTModule(nn.Module):
    """Visual transformer module: tokenizer, transformer, projector (figure 2 of the paper).

    Args:
        design: shared options.
        in_channels: channels of the input pixels.
        out_channels: channels of the output pixels; None omits the projector and returns the input pixels.
        tokenizer: `recurrent` for a module that gets the tokens of another one, `filter`, or `first` for the tokenizer
            of the design.
        drop: probability of dropping a residual branch for an image in training.
    """

    def __init__(
        self,
        design: VTDesign,
        *,
        in_channels: int,
        out_channels: int | None,
        tokenizer: Literal["first", "recurrent", "filter"],
        drop: float = 0.0,
    ):
        super().__init__()
        tokenizers = TOKENIZERS | {"first": TOKENIZERS[design.tokenizer], "recurrent": RecurrentTokenizer}
        self.tokenizer = tokenizers[tokenizer](design, in_channels)
        self.transformer = build_token_module(design, design.tokens, drop)
        self.projector = None if out_channels is None else Projector(design, in_channels, out_channels, drop)
        initialise(design, self)

    def forward(self, pixels: Tensor, size: Size, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pixels (B, HW, C_in), previous tokens or None -> pixels (B, HW, C_out), tokens (B, L, C_T)."""
        tokens = self.transformer(self.tokenizer(pixels, size, tokens))
        assert tokens is not None
        return pixels if self.projector is None else self.projector(pixels, tokens), tokens


class VTPyramid(nn.Module):
    """VT modules of VT-FPN: a tokenizer and a projector per level, and one transformer for the tokens of all levels.

    Each level is projected from its own tokens. With 32 groups on 256 channels this costs about the 1.0 GMACs at
    800 x 1216 that the paper's table leaves for it.

    Args:
        design: shared options.
        channels: channels of the pixels of each level.
        drop: probability of dropping a residual branch for an image in training.
    """

    def __init__(self, design: VTDesign, channels: Sequence[int], drop: float = 0.0):
        super().__init__()
        self.tokenizers = nn.ModuleList(TOKENIZERS[design.tokenizer](design, c) for c in channels)
        self.transformer = build_token_module(design, design.tokens * len(channels), drop)
        self.projectors = nn.ModuleList(Projector(design, c, c, drop) for c in channels)
        initialise(design, self)

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """(B, C_i, H_i, W_i) per level -> the same shapes, projected from the mixed tokens of all levels."""
        pixels = [to_pixels(feature_map) for feature_map in feature_maps]
        sizes = [(feature_map.shape[2], feature_map.shape[3]) for feature_map in feature_maps]
        tokens = [tokenizer(x, size, None) for tokenizer, x, size in zip(self.tokenizers, pixels, sizes, strict=True)]
        mixed = self.transformer(torch.cat(tokens, dim=1)).chunk(len(tokens), dim=1)
        projected = [project(x, t) for project, x, t in zip(self.projectors, pixels, mixed, strict=True)]
        return [y.transpose(1, 2).unflatten(2, size) for y, size in zip(projected, sizes, strict=True)]
