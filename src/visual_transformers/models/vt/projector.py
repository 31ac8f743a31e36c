"""Projector of a visual transformer module: tokens back to pixels (equation 5 of the paper)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from visual_transformers.models.vt.layers import PointwiseConv, VTDesign, softmax
from visual_transformers.models.vt.transformer import (
    check_heads,
    merge_heads,
    split_heads,
)


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
