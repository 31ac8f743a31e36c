"""Visual transformer modules: tokenizer, transformer, projector (section 3 of the paper, arXiv 2006.03677 v4).

Shapes: X is (B, HW, C), a feature map with its pixels in a row, of size (H, W); T is (B, L, C_T), the visual tokens.
No convolution has a bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from visual_transformers.models.vt.layers import Initialisation, PointwiseConv, pixel_groups, softmax
from visual_transformers.models.vt.tokenizers import (
    ClusteringTokenizer,
    FilterTokenizer,
    PoolingTokenizer,
    RecurrentTokenizer,
    Size,
    Tokenizer,
    TokenizerOptions,
)
from visual_transformers.models.vt.transformer import (
    GraphConvolution,
    TokenTransformer,
    check_heads,
    merge_heads,
    split_heads,
)

TokenizerName = Literal["filter", "pooling", "clustering"]
TokenModuleName = Literal["transformer", "graph", "none"]
NormName = Literal["none", "pre", "post"]
FIRST_TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
    "filter": FilterTokenizer,
    "pooling": PoolingTokenizer,
    "clustering": ClusteringTokenizer,
}


def to_pixels(feature_map: Tensor) -> Tensor:
    """Lay the pixels of a feature map in a row: (B, C, H, W) -> (B, HW, C)."""
    return feature_map.flatten(2).transpose(1, 2)


class Projector(nn.Module):
    """Projector (equation 5): brings what the tokens hold back to the pixels.

    X_out = X_in W_S + softmax_L((X_in W_Q)(T W_K)^T / s) T W_V, where s is sqrt(C_out / heads) with `scale_logits`,
    and the skip W_S is there only when the number of channels changes. W_Q is folded into the L keys, for
    (W_Q X)^T K = X^T (W_Q^T K), unless `reassociate` is off.

    Args:
        in_channels, out_channels: of the pixels.
        token_channels: channels C_T of a token.
        groups: of the query convolution on pixels.
        heads: of the attention.
        pre_norm: whether a LayerNorm stands before the tokens' convolutions.
        post_norm: whether a LayerNorm follows each of them.
        scale_logits: whether attention logits are divided by the root of their channels; not so in the paper.
        drop: chance that nothing is brought back to the pixels of an image in training.
        reassociate: whether the query is folded into the keys.

    Raises:
        ValueError: if the heads do not divide the channels that go out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        token_channels: int,
        groups: int = 1,
        *,
        heads: int = 1,
        pre_norm: bool = False,
        post_norm: bool = False,
        scale_logits: bool = True,
        drop: float = 0.0,
        reassociate: bool = True,
    ):
        super().__init__()
        check_heads(heads, out_channels, "the projector")
        self.heads, self.reassociate = heads, reassociate
        self.scale = math.sqrt(out_channels // heads) if scale_logits else 1.0
        self.query = PointwiseConv(in_channels, out_channels, groups)
        self.key = PointwiseConv(token_channels, out_channels, norm=post_norm)
        self.value = PointwiseConv(token_channels, out_channels, norm=post_norm)
        self.skip = nn.Identity() if in_channels == out_channels else PointwiseConv(in_channels, out_channels)
        self.norm = nn.LayerNorm(token_channels) if pre_norm else nn.Identity()
        self.drop = StochasticDepth(drop, "row")

    def attention(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """How much each pixel takes from each token (dim 3, summing to 1): (B, heads, HW, L)."""
        return self._attention(pixels, self.norm(tokens))

    def _attention(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        keys = split_heads(self.key(tokens), self.heads)
        if not self.reassociate:
            return softmax(split_heads(self.query(pixels), self.heads) @ keys.transpose(2, 3) / self.scale, dim=3)
        own = torch.eye(self.heads, device=keys.device, dtype=keys.dtype)[:, None, :, None]
        padded = (keys[:, :, :, None] * own).flatten(3)  # (B, heads, L, C_out), zero but for the head's own channels
        folded = self.query.transposed(padded.flatten(1, 2))
        logits = (pixels @ folded.transpose(1, 2)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return softmax(logits / self.scale, dim=3)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """(B, HW, C_in) and (B, L, C_T) -> (B, HW, C_out)."""
        tokens = self.norm(tokens)
        brought = self._attention(pixels, tokens) @ split_heads(self.value(tokens), self.heads)
        return self.skip(pixels) + self.drop(merge_heads(brought))


@dataclass(frozen=True, kw_only=True)
class VTDesign:
    """What all visual transformer modules of a model have in common, and how their parts are made.

    Args:
        tokens: visual tokens L of a module.
        token_channels: channels C_T of a token.
        group_width: channels in each group of the convolutions on pixels; None for one group.
        token_groups: groups of the transformer's key, query and value.
        pixel_convs: whether the tokenizers have convolutions on pixels.
        tokenizer: of a first module: `filter` (equation 1), `pooling` or `clustering`.
        token_module: `transformer` (equations 3 and 4), `graph` convolution, or `none`.
        heads: of the attention in transformer and projector.
        norm: LayerNorms: `none`; `pre`, before each residual branch on the tokens and before the projector; `post`,
            behind each convolution on tokens (YOGO has one there).
        scale_logits: whether attention logits are divided by the root of their channels, as the reference
            implementation and YOGO do; the paper's equations do not.
        init: initialisation of the convolutions, see `PointwiseConv.initialise`.
        unit_filters: whether the filters of filter-based tokenizers give logits of unit variance to pixels of unit
            variance, so that the tokens differ from the start, whatever `init` is.
        zero_init: whether the last convolution of every residual branch starts at zero.
        reassociate: whether convolutions run over tokens in place of pixels: the same function for less work.

    Raises:
        ValueError: on sizes below 1.
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

    def first_tokenizer(self, channels: int) -> Tokenizer:
        """A tokenizer that needs no tokens of a module before."""
        return FIRST_TOKENIZERS[self.tokenizer](channels, self.tokens, self.token_channels, self._options(channels))

    def filter_tokenizer(self, channels: int) -> FilterTokenizer:
        """A filter-based tokenizer, for later modules that are not recurrent."""
        return FilterTokenizer(channels, self.tokens, self.token_channels, self._options(channels))

    def recurrent_tokenizer(self, channels: int) -> RecurrentTokenizer:
        """A tokenizer that looks where the tokens of the module before say."""
        return RecurrentTokenizer(channels, self.token_channels, self._options(channels))

    def mixer(self, tokens: int, drop: float = 0.0) -> nn.Module:
        """What lets `tokens` tokens work on each other."""
        if self.token_module == "none":
            return nn.Identity()
        norms = {"pre_norm": self.norm == "pre", "post_norm": self.norm == "post"}
        if self.token_module == "graph":
            return GraphConvolution(tokens, self.token_channels, **norms, drop=drop)
        return TokenTransformer(
            self.token_channels,
            self.token_groups,
            heads=self.heads,
            **norms,
            scale_logits=self.scale_logits,
            drop=drop,
        )

    def projector(self, in_channels: int, out_channels: int, drop: float = 0.0) -> Projector:
        """What brings the tokens back to the pixels."""
        return Projector(
            in_channels,
            out_channels,
            self.token_channels,
            pixel_groups(in_channels, self.group_width),
            heads=self.heads,
            pre_norm=self.norm == "pre",
            post_norm=self.norm == "post",
            scale_logits=self.scale_logits,
            drop=drop,
            reassociate=self.reassociate,
        )

    def initialise(self, modules: nn.Module) -> None:
        """Draw the weights of everything in `modules`."""
        for module in modules.modules():
            if isinstance(module, PointwiseConv):
                module.initialise(self.init)
        for module in modules.modules():
            if self.unit_filters and isinstance(module, FilterTokenizer):
                nn.init.normal_(module.filters.weight, std=module.scale / math.sqrt(module.filters.weight.shape[1]))
            if self.zero_init and isinstance(module, TokenTransformer | GraphConvolution):
                for convolution in module.last_convs:
                    convolution.zero()
            if self.zero_init and isinstance(module, Projector):
                module.value.zero()

    def _options(self, channels: int) -> TokenizerOptions:
        return TokenizerOptions(
            groups=pixel_groups(channels, self.group_width),
            pixel_convs=self.pixel_convs,
            norm=self.norm == "post",
            scale_logits=self.scale_logits,
            reassociate=self.reassociate,
        )


class VTModule(nn.Module):
    """One visual transformer module: tokenizer, transformer, projector (figure 2 of the paper).

    Args:
        design: how the parts are made.
        in_channels: channels of the pixels that come in.
        out_channels: of those that go out; None leaves the projector out, and the pixels go out as they came.
        tokenizer: `first`, `recurrent` or `filter`: which tokenizer of the design.
        drop: chance that a residual branch is dropped for an image in training.
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
        self.tokenizer: Tokenizer = getattr(design, f"{tokenizer}_tokenizer")(in_channels)
        self.transformer = design.mixer(design.tokens, drop)
        self.projector = None if out_channels is None else design.projector(in_channels, out_channels, drop)
        design.initialise(self)

    def forward(self, pixels: Tensor, size: Size, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pixels (B, HW, C_in) and the tokens before, or None -> pixels (B, HW, C_out), tokens (B, L, C_T)."""
        tokens = self.transformer(self.tokenizer(pixels, size, tokens))
        assert tokens is not None
        return pixels if self.projector is None else self.projector(pixels, tokens), tokens


class VTPyramid(nn.Module):
    """The VT modules of VT-FPN: a tokenizer and a projector for every level, one transformer for the tokens of all.

    Each level is projected from its own tokens. With 32 groups on 256 channels this costs about the 1.0 GMACs at
    800 x 1216 that the paper's table leaves for it.

    Args:
        design: how the parts are made.
        channels: of each level's pixels.
        drop: chance that a residual branch is dropped for an image in training.
    """

    def __init__(self, design: VTDesign, channels: Sequence[int], drop: float = 0.0):
        super().__init__()
        self.tokenizers = nn.ModuleList(design.first_tokenizer(c) for c in channels)
        self.transformer = design.mixer(design.tokens * len(channels), drop)
        self.projectors = nn.ModuleList(design.projector(c, c, drop) for c in channels)
        design.initialise(self)

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """One (B, C_i, H_i, W_i) a level -> the same shapes, each with what the tokens of all levels brought to it."""
        pixels = [to_pixels(feature_map) for feature_map in feature_maps]
        sizes = [(feature_map.shape[2], feature_map.shape[3]) for feature_map in feature_maps]
        tokens = [tokenizer(x, size, None) for tokenizer, x, size in zip(self.tokenizers, pixels, sizes, strict=True)]
        mixed = self.transformer(torch.cat(tokens, dim=1)).chunk(len(tokens), dim=1)
        projected = [project(x, t) for project, x, t in zip(self.projectors, pixels, mixed, strict=True)]
        return [y.transpose(1, 2).unflatten(2, size) for y, size in zip(projected, sizes, strict=True)]
