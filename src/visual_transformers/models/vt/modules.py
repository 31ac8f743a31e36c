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

from visual_transformers.models.vt.layers import PointwiseConv, VTDesign
from visual_transformers.models.vt.projector import Projector
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
