"""Semantic segmentation: Panoptic FPN without its instance branch, and VT-FPN, with visual tokens in its pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from visual_transformers.models.resnet import BackboneName, ResNetStages, check_images, compute_drop_rates, get_backbone
from visual_transformers.models.vt.layers import Initialisation, NormName, TokenizerName, TokenModuleName, VTDesign
from visual_transformers.models.vt.modules import VTPyramid

LEVELS = ("c2", "c3", "c4", "c5")


def resize(feature_map: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (B, C, h, w) bilinearly to `size` (H, W)."""
    return F.interpolate(feature_map, size=tuple(size), mode="bilinear", align_corners=False)


class ConvPyramid(nn.Module):
    """torchvision's feature pyramid: 1x1 laterals, top-down sum, 3x3 output convolutions.

    `output_convs=False` omits the 3x3 convolutions, as the reference implementation does.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, output_convs: bool = True):
        super().__init__()
        self.channels = [channels] * len(in_channels)
        self.fpn = FeaturePyramidNetwork(list(in_channels), channels)
        if not output_convs:
            self.fpn.layer_blocks = nn.ModuleList(nn.Identity() for _ in in_channels)

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """C2 to C5 with their own channels -> P2 to P5 with `channels`."""
        return list(self.fpn(OrderedDict(zip(LEVELS, feature_maps, strict=True))).values())


class TokenPyramid(nn.Module):
    """VT-FPN's pyramid: 1x1 laterals, VT modules instead of the 3x3 convolutions, top-down sum (section 3.5).

    Args:
        in_channels: channels of each level, the finest first.
        channels: channels after the laterals; None omits laterals and sum, as the reference implementation does.
        design: options of the VT modules.
        drop: probability of dropping a residual branch of the VT modules for an image in training.
    """

    def __init__(self, in_channels: Sequence[int], channels: int | None, design: VTDesign, drop: float = 0.0):
        super().__init__()
        self.laterals = None if channels is None else nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.channels = list(in_channels) if channels is None else [channels] * len(in_channels)
        self.vt = VTPyramid(design, self.channels, drop)

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """C2 to C5 with their own channels -> P2 to P5."""
        if self.laterals is None:
            return self.vt(feature_maps)
        levels = self.vt([lateral(c) for lateral, c in zip(self.laterals, feature_maps, strict=True)])
        for fine in reversed(range(len(levels) - 1)):
            levels[fine] = levels[fine] + resize(levels[fine + 1], levels[fine].shape[2:])
        return levels


class SemanticBranch(nn.Module):
    """Panoptic FPN's semantic branch (Kirillov et al. 2019, figure 3): upsample, sum and classify all levels.

    A stage is a 3x3 convolution, GroupNorm, ReLU and bilinear interpolation to the next finer level; the finest
    level has one stage without interpolation.

    Args:
        in_channels: channels of each level, the finest first.
        channels: channels of every stage, a multiple of 32.
        num_classes: outputs.
        finest_norm: whether the finest level's stage has GroupNorm and ReLU; not in the reference implementation.
        bias: whether the 3x3 convolutions have biases, as in the reference implementation.
        dropout: dropout rate of whole channels before the classifier.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        *,
        finest_norm: bool = True,
        bias: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()

        def stage(c: int, norm: bool) -> nn.Sequential:
            after = [nn.GroupNorm(32, channels), nn.ReLU()] if norm else []
            return nn.Sequential(nn.Conv2d(c, channels, 3, padding=1, bias=bias), *after)

        self.stages = nn.ModuleList(
            nn.ModuleList(stage(channels if i else c, norm=level > 0 or finest_norm) for i in range(max(1, level)))
            for level, c in enumerate(in_channels)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """P2 to P5 -> logits (B, classes, H, W) at the size of P2."""
        summands = []
        for level, (stages, x) in enumerate(zip(self.stages, levels, strict=True)):
            assert isinstance(stages, nn.ModuleList)
            for step, stage in enumerate(stages, start=1):
                x = stage(x)
                if level:
                    x = resize(x, levels[level - step].shape[2:])
            summands.append(x)
        return self.classifier(self.dropout(torch.stack(summands).sum(dim=0)))


class SemanticFPN(nn.Module):
    """ResNet, feature pyramid and semantic branch; returns logits at the size of the images."""

    task: ClassVar[str] = "segmentation"
    head: ClassVar[tuple[str, ...]] = ("pyramid.", "branch.")

    def __init__(self, backbone: ResNetStages, pyramid: ConvPyramid | TokenPyramid, branch: SemanticBranch):
        super().__init__()
        self.backbone, self.pyramid, self.branch = backbone, pyramid, branch
        self.stride = backbone.stage_strides[3]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes, H, W)."""
        check_images(images, self.stride)
        features = self.backbone(images)
        return resize(self.branch(self.pyramid([features[level] for level in LEVELS])), images.shape[2:])


def panoptic_fpn(
    *,
    num_classes: int,
    backbone: BackboneName = "resnet50",
    stem_stride: int = 4,
    stride_in_1x1: bool = False,
    pyramid_channels: int = 256,
    output_convs: bool = True,
    branch_channels: int = 128,
    finest_norm: bool = True,
    branch_bias: bool = False,
    zero_init: bool = False,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> SemanticFPN:
    """Build Panoptic FPN for semantic segmentation (Kirillov et al. 2019); its pyramid costs 55.1 GMACs at 800 x 1216.

    Args:
        num_classes: outputs of the branch.
        backbone: key of `resnet.BACKBONES`.
        stem_stride, zero_init, stochastic_depth: see `resnet.ResNet`.
        stride_in_1x1: see `resnet.ResNet`; true in the paper, but torchvision's weights need false.
        pyramid_channels: channels of every level of the pyramid.
        output_convs: whether the pyramid ends in 3x3 convolutions.
        branch_channels, finest_norm, branch_bias, dropout: see `SemanticBranch`.

    Raises:
        ValueError: on sizes that do not divide or rates out of range.
    """
    stages = ResNetStages(
        backbone,
        stem_stride=stem_stride,
        stride_in_1x1=stride_in_1x1,
        stochastic_depth=stochastic_depth,
        zero_init=zero_init,
    )
    pyramid = ConvPyramid(stages.stage_channels, pyramid_channels, output_convs=output_convs)
    branch = SemanticBranch(
        pyramid.channels, branch_channels, num_classes, finest_norm=finest_norm, bias=branch_bias, dropout=dropout
    )
    return SemanticFPN(stages, pyramid, branch)


def vt_fpn(
    *,
    num_classes: int,
    backbone: BackboneName = "resnet50",
    stem_stride: int = 4,
    stride_in_1x1: bool = False,
    pyramid_channels: int | None = 256,
    tokens: int = 8,
    token_channels: int = 1024,
    group_width: int | None = 8,
    token_groups: int = 4,
    pixel_convs: bool = True,
    tokenizer: TokenizerName = "filter",
    token_module: TokenModuleName = "transformer",
    heads: int = 1,
    norm: NormName = "none",
    scale_logits: bool = True,
    init: Initialisation = "xavier",
    unit_filters: bool = True,
    zero_init: bool = False,
    reassociate: bool = True,
    branch_channels: int = 128,
    finest_norm: bool = True,
    branch_bias: bool = False,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> SemanticFPN:
    """Build VT-FPN (section 3.5 of the paper); its pyramid costs 8.5 GMACs at 800 x 1216, mostly in the laterals.

    The options from `tokens` to `reassociate` are those of `vt.layers.VTDesign`, with L tokens per level; all others
    that are not listed are those of `panoptic_fpn`.

    Args:
        num_classes: outputs of the branch.
        backbone: key of `resnet.BACKBONES`.
        pyramid_channels: channels of every level of the pyramid; None keeps those of the backbone, see `TokenPyramid`.
        stochastic_depth: probability of dropping a residual branch of the VT modules for an image in training; it grows
            linearly from the first block of the backbone.

    Raises:
        ValueError: on sizes that do not divide or rates out of range.
    """
    blocks = sum(get_backbone(backbone)[1])
    rates = compute_drop_rates(stochastic_depth, blocks + 1)
    stages = ResNetStages(
        backbone,
        stem_stride=stem_stride,
        stride_in_1x1=stride_in_1x1,
        stochastic_depth=rates[blocks - 1],
        zero_init=zero_init,
    )
    design = VTDesign(
        tokens=tokens,
        token_channels=token_channels,
        group_width=group_width,
        token_groups=token_groups,
        pixel_convs=pixel_convs,
        tokenizer=tokenizer,
        token_module=token_module,
        heads=heads,
        norm=norm,
        scale_logits=scale_logits,
        init=init,
        unit_filters=unit_filters,
        zero_init=zero_init,
        reassociate=reassociate,
    )
    pyramid = TokenPyramid(stages.stage_channels, pyramid_channels, design, drop=rates[blocks])
    branch = SemanticBranch(
        pyramid.channels, branch_channels, num_classes, finest_norm=finest_norm, bias=branch_bias, dropout=dropout
    )
    return SemanticFPN(stages, pyramid, branch)
