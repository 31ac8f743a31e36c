"""VT-ResNet: a ResNet with visual transformer modules instead of its last stage (table 1 of the paper)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from visual_transformers.models.resnet import BackboneName, ResNetStages, check_images, compute_drop_rates, get_backbone
from visual_transformers.models.vt.layers import Initialisation, NormName, TokenizerName, TokenModuleName, VTDesign
from visual_transformers.models.vt.modules import VTModule, to_pixels


class VTResNet(nn.Module):
    """ResNet stages 1 to 4 (up to torchvision's `layer3`), then VT modules instead of stage 5.

    The first module's projector raises the channels to `channels`. The last module has no projector; the mean of its
    tokens goes to the linear head. All options that are not listed are those of `vt.layers.VTDesign`.

    Args:
        num_classes: outputs of the head.
        backbone: key of `resnet.BACKBONES`.
        stem_stride: see `resnet.ResNet`.
        channels: channels C of the feature map between the modules.
        modules: number of VT modules.
        recurrent: whether the tokenizers after the first are recurrent; otherwise they are filter-based.
        projector: whether all modules except the last project their tokens back to the pixels. Without it and without
            `recurrent` the modules would be independent, so only one is built.
        dropout: dropout rate of the token channels before the head.
        stochastic_depth: probability of dropping the last residual branch for an image in training; it grows linearly
            from the first block of the backbone to the last module.

    Raises:
        ValueError: on sizes that do not divide or rates out of range.
    """

    task: ClassVar[str] = "classification"
    head: ClassVar[tuple[str, ...]] = ("vt.", "fc.")

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        backbone: BackboneName = "resnet18",
        stem_stride: int = 4,
        channels: int = 512,
        modules: int = 2,
        tokens: int = 16,
        token_channels: int = 1024,
        group_width: int | None = 64,
        token_groups: int = 4,
        pixel_convs: bool = True,
        tokenizer: TokenizerName = "filter",
        recurrent: bool = True,
        token_module: TokenModuleName = "transformer",
        projector: bool = True,
        heads: int = 1,
        norm: NormName = "none",
        scale_logits: bool = True,
        init: Initialisation = "xavier",
        unit_filters: bool = True,
        zero_init: bool = False,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        reassociate: bool = True,
    ):
        super().__init__()
        if modules < 1:
            raise ValueError(f"modules={modules}: a VT-ResNet has at least one VT module")
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
        blocks = sum(get_backbone(backbone)[1][:3])
        rates = compute_drop_rates(stochastic_depth, blocks + modules)
        self.backbone = ResNetStages(
            backbone, stages=4, stem_stride=stem_stride, stochastic_depth=rates[blocks - 1], zero_init=zero_init
        )
        in_channels, self.stride = self.backbone.stage_channels[2], self.backbone.stage_strides[2]
        if not projector:
            channels = in_channels
            modules = modules if recurrent else 1  # only the last module reaches the head
        self.vt = nn.ModuleList(
            VTModule(
                design,
                in_channels=in_channels if i == 0 else channels,
                out_channels=channels if projector and i < modules - 1 else None,
                tokenizer="first" if i == 0 else "recurrent" if recurrent else "filter",
                drop=rates[blocks + i],
            )
            for i in range(modules)
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(token_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        check_images(images, self.stride)
        feature_map = self.backbone(images)["c4"]
        pixels, size = to_pixels(feature_map), (feature_map.shape[2], feature_map.shape[3])
        tokens: Tensor | None = None
        for module in self.vt:
            pixels, tokens = module(pixels, size, tokens)
        assert tokens is not None
        return self.fc(self.dropout(tokens.mean(dim=1)))
