"""Tokenizers, from pixels to visual tokens: section 3.1 of the paper and its ablations (table 3).

Shapes: X is (B, HW, C), the flattened pixels of a feature map of size (H, W); T is (B, L, C_T), the visual tokens.
By default 1x1 convolutions are applied to the L tokens instead of the HW pixels, because (W X) A^T = W (X A^T): same
weights, same function, less work. `reassociate=False` computes the equations literally.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_transformers.models.vt.layers import PointwiseConv, VTDesign, softmax

Size = tuple[int, int]


class Tokenizer(nn.Module):
    """Base of all tokenizers: pool the C channels of the pixels with an attention A, then embed them as tokens.

    T = A^T (X W_V) W_E, where W_V is a grouped convolution on pixels and W_E maps C to C_T channels.
    """

    def __init__(self, design: VTDesign, channels: int):
        super().__init__()
        self.reassociate = design.reassociate
        self.scale = math.sqrt(channels) if design.scale_logits else 1.0
        groups = design.count_groups(channels)
        self.value = PointwiseConv(channels, channels, groups) if design.pixel_convs else None
        self.embed = design.build_conv(channels, design.token_channels)

    @abstractmethod
    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """Attention (B, HW, L) of each token to pixels (B, HW, C); sums to 1 over the pixels."""

    def forward(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """Pixels (B, HW, C) of a map of `size`, and the tokens of the previous module -> tokens (B, L, C_T)."""
        attention = self.attention(pixels, size, tokens).transpose(1, 2)
        if self.reassociate:
            pooled = attention @ pixels
            return self.embed(pooled if self.value is None else self.value(pooled))
        if self.value is None:
            return self.embed.norm(attention @ self.embed.convolve(pixels))
        return self.embed(attention @ self.value(pixels))


class FilterTokenizer(Tokenizer):
    """Filter-based tokenizer (equation 1): each token has its own filter, a column of W_A.

    A = softmax_HW(X W_A / s), where s is sqrt(C) with `scale_logits`, else 1.
    """

    def __init__(self, design: VTDesign, channels: int):
        super().__init__(design, channels)
        self.filters = PointwiseConv(channels, design.tokens)

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """Attention from the filters; ignores the tokens of the previous module."""
        return softmax(self.filters(pixels) / self.scale, dim=1)


class RecurrentTokenizer(Tokenizer):
    """Recurrent tokenizer (equation 2): the tokens of the previous module are turned into filters.

    W_R = T_in W_{T->R}; A = softmax_HW(X W_K W_R^T / s), where s is sqrt(C) with `scale_logits`, else 1.
    """

    def __init__(self, design: VTDesign, channels: int):
        super().__init__(design, channels)
        self.token_to_filter = design.build_conv(design.token_channels, channels)
        groups = design.count_groups(channels)
        self.key = PointwiseConv(channels, channels, groups) if design.pixel_convs else None

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """Attention from the tokens (B, L, C_T) of the previous module."""
        assert tokens is not None
        filters = self.token_to_filter(tokens)
        if self.key is not None and self.reassociate:
            filters = self.key.convolve_transposed(filters)  # (X W_K) W_R^T = X (W_R W_K^T)^T
        elif self.key is not None:
            pixels = self.key(pixels)
        return softmax(pixels @ filters.transpose(1, 2) / self.scale, dim=1)


class GridTokenizer(Tokenizer):
    """Base of the ablation's tokenizers, which start from a grid of L = r x c cells, as square as L allows."""

    def __init__(self, design: VTDesign, channels: int):
        super().__init__(design, channels)
        rows = max(r for r in range(1, math.isqrt(design.tokens) + 1) if design.tokens % r == 0)
        self.grid = (rows, design.tokens // rows)

    def cells(self, pixels: Tensor, size: Size) -> Tensor:
        """Weights (HW, L) of the pixels in a bilinear interpolation to the grid."""
        exact = torch.promote_types(pixels.dtype, torch.float32)
        eyes = (torch.eye(n, device=pixels.device, dtype=exact)[:, None] for n in size)
        rows, columns = (
            F.interpolate(eye, cells, mode="linear", align_corners=False)[:, 0]
            for eye, cells in zip(eyes, self.grid, strict=True)
        )
        return torch.einsum("hr,wc->hwrc", rows, columns).flatten(2).flatten(0, 1).to(pixels.dtype)


class PoolingTokenizer(GridTokenizer):
    """Pooling tokenizer (ablation): the feature map, resized bilinearly to L cells."""

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """Attention that is the same for every image."""
        return self.cells(pixels, size).expand(pixels.shape[0], -1, -1)


class ClusteringTokenizer(GridTokenizer):
    """Clustering tokenizer (ablation): the filters are the image's k-means centroids, W_A = kmeans(X).

    Pixels and centroids are L2-normalised. The centroids start from the feature map resized to L cells and are
    normalised after each Lloyd step; they have no gradient. A = softmax_HW(X W_A).
    """

    steps = 10

    def attention(self, pixels: Tensor, size: Size, tokens: Tensor | None = None) -> Tensor:
        """Attention from the centroids of the image."""
        return softmax(pixels @ self.centroids(pixels, size).transpose(1, 2), dim=1)

    @torch.no_grad()
    def centroids(self, pixels: Tensor, size: Size) -> Tensor:
        """Compute the centroids, unit vectors (B, L, C); a cluster that loses all its pixels keeps its centroid."""
        points = F.normalize(pixels, dim=2)
        centroids = F.normalize(self.cells(pixels, size).T @ pixels, dim=2)
        for _ in range(self.steps):
            nearest = (points @ centroids.transpose(1, 2)).argmax(dim=2)
            members = F.one_hot(nearest, centroids.shape[1]).to(points.dtype)
            sums = members.transpose(1, 2) @ points
            occupied = members.sum(dim=1)[..., None] > 0
            centroids = torch.where(occupied, F.normalize(sums, dim=2), centroids)
        return centroids
