"""Semantic segmenters: Panoptic FPN's semantic half, and VT-FPN, whose pyramid talks through visual tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from visual_transformers.models.resnet import ResNetStages, check_images
from visual_transformers.models.tokens import VTPyramid

LEVELS = ("c2", "c3", "c4", "c5")


def resize(feature_map: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation of (B, C, h, w) to `size` (H, W)."""
    return F.interpolate(feature_map, size=tuple(size), mode="bilinear", align_corners=False)


class ConvPyramid(nn.Module):
    """The published feature pyramid: 1x1 laterals, top-down sum, 3x3 output convolutions (torchvision's)."""

    def __init__(self, in_channels: Sequence[int], channels: int):
        super().__init__()
        self.fpn = FeaturePyramidNetwork(list(in_channels), channels)

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """C2 to C5, each with its own channels -> P2 to P5, all with `channels`."""
        return list(self.fpn(OrderedDict(zip(LEVELS, feature_maps, strict=True))).values())


class TokenPyramid(nn.Module):
    """VT-FPN's pyramid: 1x1 laterals, VT modules in place of the 3x3 convolutions, top-down sum (section 3.5)."""

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        tokens: int,
        token_channels: int,
        group_width: int,
        token_groups: int,
    ):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.vt = VTPyramid(
            channels=channels,
            levels=len(in_channels),
            tokens=tokens,
            token_channels=token_channels,
            group_width=group_width,
            token_groups=token_groups,
        )

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """C2 to C5, each with its own channels -> P2 to P5, all with `channels`."""
        levels = self.vt([lateral(c) for lateral, c in zip(self.laterals, feature_maps, strict=True)])
        for fine in reversed(range(len(levels) - 1)):
            levels[fine] = levels[fine] + resize(levels[fine + 1], levels[fine].shape[2:])
        return levels


class SemanticBranch(nn.Module):
    """Panoptic FPN's semantic branch (Kirillov et al. 2019, figure 3): every level up to stride 4, summed, classified.

    A stage is a 3x3 convolution, GroupNorm, ReLU and bilinear interpolation to the next finer level; the finest
    level has one stage without interpolation.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, levels: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(self._stage(in_channels if i == 0 else channels, channels) for i in range(max(1, level)))
            for level in range(levels)
        )
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    @staticmethod
    def _stage(in_channels: int, channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.GroupNorm(32, channels), nn.ReLU()
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """P2 to P5 -> logits (B, classes, H, W) at P2's size."""
        summands = []
        for level, (stages, x) in enumerate(zip(self.stages, levels, strict=True)):
            assert isinstance(stages, nn.ModuleList)
            for step, stage in enumerate(stages, start=1):
                x = stage(x)
                if level:
                    x = resize(x, levels[level - step].shape[2:])
            summands.append(x)
        return self.classifier(torch.stack(summands).sum(dim=0))


class SemanticFPN(nn.Module):
    """ResNet, a feature pyramid, the semantic branch: logits, never probabilities, at the input's own size."""

    task: ClassVar[str] = "segmentation"
    head: ClassVar[tuple[str, ...]] = ("pyramid.", "branch.")

    def __init__(
        self,
        *,
        backbone: str,
        pyramid: Callable[[Sequence[int]], nn.Module],
        pyramid_channels: int,
        branch_channels: int,
        num_classes: int,
        stem_stride: int,
    ):
        super().__init__()
        self.backbone = ResNetStages(backbone, stages=5, stem_stride=stem_stride)
        self.stride = self.backbone.stage_strides[3]
        self.pyramid = pyramid(self.backbone.stage_channels)
        self.branch = SemanticBranch(pyramid_channels, branch_channels, num_classes, levels=len(LEVELS))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes, H, W)."""
        check_images(images, self.stride)
        features = self.backbone(images)
        return resize(self.branch(self.pyramid([features[level] for level in LEVELS])), images.shape[2:])


def panoptic_fpn(
    *,
    num_classes: int,
    backbone: str = "resnet50",
    pyramid_channels: int = 256,
    branch_channels: int = 128,
    stem_stride: int = 4,
) -> SemanticFPN:
    """Panoptic FPN's semantic half (Kirillov et al. 2019), the baseline: its pyramid costs 55.1 GMACs at 800 x 1216.

    Args:
        num_classes: outputs of the branch.
        backbone: a key of `resnet.BACKBONES`.
        pyramid_channels: channels of every level of the pyramid.
        branch_channels: channels of the semantic branch, a multiple of 32.
        stem_stride: 4, or less for small images.
    """
    return SemanticFPN(
        backbone=backbone,
        pyramid=lambda in_channels: ConvPyramid(in_channels, pyramid_channels),
        pyramid_channels=pyramid_channels,
        branch_channels=branch_channels,
        num_classes=num_classes,
        stem_stride=stem_stride,
    )


def vt_fpn(
    *,
    num_classes: int,
    backbone: str = "resnet50",
    tokens: int = 8,
    token_channels: int = 1024,
    group_width: int = 8,
    token_groups: int = 4,
    pyramid_channels: int = 256,
    branch_channels: int = 128,
    stem_stride: int = 4,
) -> SemanticFPN:
    """VT-FPN (section 3.5 of the paper): its pyramid costs 8.5 GMACs at 800 x 1216, mostly the laterals.

    Args:
        num_classes: outputs of the branch.
        backbone: a key of `resnet.BACKBONES`.
        tokens: visual tokens L of every level.
        token_channels: channels C_T of a token.
        group_width: channels in each group of the 1x1 convolutions on pixels.
        token_groups: groups of the transformer's key, query and value.
        pyramid_channels: channels of every level of the pyramid.
        branch_channels: channels of the semantic branch, a multiple of 32.
        stem_stride: 4, or less for small images.
    """
    return SemanticFPN(
        backbone=backbone,
        pyramid=lambda in_channels: TokenPyramid(
            in_channels,
            pyramid_channels,
            tokens=tokens,
            token_channels=token_channels,
            group_width=group_width,
            token_groups=token_groups,
        ),
        pyramid_channels=pyramid_channels,
        branch_channels=branch_channels,
        num_classes=num_classes,
        stem_stride=stem_stride,
    )
