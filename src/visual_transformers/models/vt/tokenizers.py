"""From pixels to visual tokens: the tokenizers of section 3.1 of the paper and of its ablations (table 3).

Shapes: X is (B, HW, C), a feature map with its pixels in a row, of size (H, W); T is (B, L, C_T), the visual tokens.
The 1x1 convolutions run over the L tokens instead of the HW pixels, for (W X) A^T = W (X A^T): same weights, same
function. `reassociate=False` computes the equations as they are written.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_transformers.models.vt.layers import PointwiseConv, softmax

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """What every tokenizer can have.

    Args:
        groups: of the convolutions on pixels.
        pixel_convs: whether there are convolutions on pixels (value, and key where there is one); the reference
            implementation has none.
        norm: whether a LayerNorm follows the projections to tokens.
        scale_logits: whether attention logits are divided by sqrt(C), as the reference implementation does; the
            paper's equations do not.
        reassociate: whether to pool first and convolve then.
    """

    groups: int = 1
    pixel_convs: bool = True
    norm: bool = False
    scale_logits: bool = True
    reassociate: bool = True


DEFAULTS = TokenizerOptions()


class Tokenizer(nn.Module):
    """What all tokenizers share: pool the C channels of the pixels under their attention, then embed them as tokens.

    T = A^T (X W_V) W_E, where W_V is a grouped convolution on pixels and W_E raises C to C_T.
    """

    def __init__(self, channels: int, token_channels: int, options: TokenizerOptions):
        super().__init__()
        self.reassociate = options.reassociate
        self.scale = math.sqrt(channels) if options.scale_logits else 1.0
        self.value = PointwiseConv(channels, channels, options.groups) if options.pixel_convs else None
        self.embed = PointwiseConv(channels, token_channels, norm=options.norm)

    @abstractmethod
    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """How much each token looks at each pixel: (B, HW, C) -> (B, HW, L), summing to 1 over the pixels."""

    def forward(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """Pixels (B, HW, C) of a map of `size`, and the tokens of the module before -> tokens (B, L, C_T)."""
        attention = self.attention(pixels, size, tokens).transpose(1, 2)
        if self.reassociate:
            pooled = attention @ pixels
            return self.embed(pooled if self.value is None else self.value(pooled))
        if self.value is None:
            return self.embed.norm(attention @ self.embed.convolve(pixels))
        return self.embed(attention @ self.value(pixels))


class FilterTokenizer(Tokenizer):
    """Filter-based tokenizer (equation 1): each token has its own fixed filter, a column of W_A.

    A = softmax_HW(X W_A / s), where s is sqrt(C) with `scale_logits`.
    """

    def __init__(self, channels: int, tokens: int, token_channels: int, options: TokenizerOptions = DEFAULTS):
        super().__init__(channels, token_channels, options)
        self.filters = PointwiseConv(channels, tokens)

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """By the filters alone."""
        return softmax(self.filters(pixels) / self.scale, dim=1)


class RecurrentTokenizer(Tokenizer):
    """Recurrent tokenizer (equation 2): the tokens of the module before decide where to look.

    W_R = T_in W_{T->R}; A = softmax_HW(X W_K W_R^T / s), where s is sqrt(C) with `scale_logits`.
    """

    def __init__(self, channels: int, token_channels: int, options: TokenizerOptions = DEFAULTS):
        super().__init__(channels, token_channels, options)
        self.token_to_filter = PointwiseConv(token_channels, channels, norm=options.norm)
        self.key = PointwiseConv(channels, channels, options.groups) if options.pixel_convs else None

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """By filters made of the tokens (B, L, C_T) of the module before."""
        assert tokens is not None
        filters = self.token_to_filter(tokens)
        if self.key is not None and self.reassociate:
            filters = self.key.transposed(filters)  # (X W_K) W_R^T = X (W_R W_K^T)^T
        elif self.key is not None:
            pixels = self.key(pixels)
        return softmax(pixels @ filters.transpose(1, 2) / self.scale, dim=1)


class GridTokenizer(Tokenizer):
    """Base of the ablation's tokenizers, whose tokens start from a grid of cells over the image.

    L tokens make the most square grid of r x c = L cells: 16 are 4 x 4, 32 are 4 x 8.
    """

    def __init__(self, channels: int, tokens: int, token_channels: int, options: TokenizerOptions = DEFAULTS):
        super().__init__(channels, token_channels, options)
        rows = max(r for r in range(1, math.isqrt(tokens) + 1) if tokens % r == 0)
        self.grid = (rows, tokens // rows)

    def cells(self, pixels: Tensor, size: Size) -> Tensor:
        """Weights (HW, L) with which bilinear interpolation to the grid takes each pixel."""
        exact = torch.promote_types(pixels.dtype, torch.float32)
        eyes = (torch.eye(n, device=pixels.device, dtype=exact)[:, None] for n in size)
        rows, columns = (
            F.interpolate(eye, cells, mode="linear", align_corners=False)[:, 0]
            for eye, cells in zip(eyes, self.grid, strict=True)
        )
        return torch.einsum("hr,wc->hwrc", rows, columns).flatten(2).flatten(0, 1).to(pixels.dtype)


class PoolingTokenizer(GridTokenizer):
    """Pooling tokenizer (ablation): the feature map resized bilinearly to L cells."""

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """The same for every image."""
        return self.cells(pixels, size).expand(pixels.shape[0], -1, -1)


class ClusteringTokenizer(GridTokenizer):
    """Clustering tokenizer (ablation): filters are the image's own k-means centroids, W_A = kmeans(X).

    Pixels and centroids are L2-normalised; the centroids start from the feature map resized to L cells, and are
    normalised anew after each Lloyd step. No gradient runs through them. A = softmax_HW(X W_A).
    """

    steps = 10

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """By the image's centroids."""
        return softmax(pixels @ self.centroids(pixels, size).transpose(1, 2), dim=1)

    @torch.no_grad()
    def centroids(self, pixels: Tensor, size: Size) -> Tensor:
        """Unit vectors (B, L, C); a cluster that loses all its pixels keeps its centroid."""
        points = F.normalize(pixels, dim=2)
        centroids = F.normalize(self.cells(pixels, size).T @ pixels, dim=2)
        for _ in range(self.steps):
            nearest = (points @ centroids.transpose(1, 2)).argmax(dim=2)
            members = F.one_hot(nearest, centroids.shape[1]).to(points.dtype)
            sums = members.transpose(1, 2) @ points
            occupied = members.sum(dim=1)[..., None] > 0
            centroids = torch.where(occupied, F.normalize(sums, dim=2), centroids)
        return centroids
