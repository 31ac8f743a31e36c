"""VT-ResNet: a ResNet whose last stage is visual transformer modules (table 1 of the paper)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from visual_transformers.models.resnet import BackboneName, ResNetStages, block_and_layers, check_images, drop_rates
from visual_transformers.models.vt.layers import Initialisation
from visual_transformers.models.vt.modules import (
    NormName,
    TokenizerName,
    TokenModuleName,
    VTDesign,
    VTModule,
    to_pixels,
)


class VTResNet(nn.Module):
    """ResNet stages 1 to 4 (torchvision's `layer3` is the last), then VT modules in place of stage 5.

    The first module's projector raises the channels to `channels`; the last module has no projector, and the mean of
    its tokens goes to the linear head.

    Args:
        num_classes: outputs of the head.
        backbone: a key of `resnet.BACKBONES`.
        stem_stride: 4, or less for small images.
        channels: channels C of the feature map between the modules.
        modules: VT modules that stand in for stage 5.
        recurrent: whether the tokens of a module decide where the next one looks; otherwise each has its own filters.
        projector: whether the modules but the last bring their tokens back to the pixels. Without it and without
            `recurrent` no module would hear of the ones before, so there is but one.
        dropout: chance of a token channel to be zeroed before the head in training.
        stochastic_depth: chance that the last residual branch is dropped for an image in training; it grows
            linearly from the first block of the backbone to the last module.
        tokens, token_channels, group_width, token_groups, pixel_convs, tokenizer, token_module, heads, norm,
            scale_logits, init, unit_filters, zero_init, reassociate: see `tokens.VTDesign`.

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
        blocks = sum(block_and_layers(backbone)[1][:3])
        rates = drop_rates(stochastic_depth, blocks + modules)
        self.backbone = ResNetStages(
            backbone, stages=4, stem_stride=stem_stride, stochastic_depth=rates[blocks - 1], zero_init=zero_init
        )
        in_channels, self.stride = self.backbone.stage_channels[2], self.backbone.stage_strides[2]
        if not projector:
            channels = in_channels
            modules = modules if recurrent else 1  # nothing else would reach the head
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
