"""Image classifiers: torchvision's ResNet, and VT-ResNet, whose last stage is visual transformer modules."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet
from torchvision.models.resnet import BasicBlock, Bottleneck

from visual_transformers.errors import DataError
from visual_transformers.models.tokens import VTModule, to_pixels

STEM_STRIDES = (1, 2, 4)
BACKBONES: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}


class ResNet(torchvision_resnet.ResNet):
    """torchvision's ResNet, by name, with a stem that can be thinned out for small images.

    `stem_stride` 4 is the published stem (a convolution and a max pooling, each of stride 2); 2 leaves the
    pooling out; 1 takes the convolution's stride away too. The state dict is torchvision's, key for key.

    Raises:
        ValueError: on an unknown name or stride.
    """

    def __init__(self, name: str, *, num_classes: int = 1000, stem_stride: int = 4):
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
        if stem_stride not in STEM_STRIDES:
            raise ValueError(f"stem_stride={stem_stride} is not one of {STEM_STRIDES}")
        block, layers = BACKBONES[name]
        super().__init__(block, layers, num_classes=num_classes)
        self.stage_channels = [64 * block.expansion * 2**i for i in range(4)]
        self.stage_strides = [stem_stride * 2**i for i in range(4)]
        if stem_stride < 4:
            self.maxpool = nn.Identity()
        if stem_stride < 2:
            self.conv1.stride = (1, 1)


def check_images(images: Tensor, stride: int) -> None:
    """Refuse what the backbone cannot take.

    Raises:
        DataError: unless `images` are (B, 3, H, W) and both sides at least the `stride` of the coarsest map.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise DataError(f"expected images of shape (batch, 3, height, width), got {tuple(images.shape)}")
    if min(images.shape[2:]) < stride:
        height, width = images.shape[2:]
        raise DataError(
            f"images of {height} x {width} pixels are smaller than the backbone's stride of {stride}; "
            f"resize them so that both sides have at least {stride} pixels"
        )


class ResNetClassifier(ResNet):
    """A ResNet that refuses images it cannot take."""

    task: ClassVar[str] = "classification"
    head: ClassVar[tuple[str, ...]] = ("fc.",)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        check_images(images, self.stage_strides[3])
        return super().forward(images)


class ResNetStages(ResNet):
    """The stages of a ResNet up to C4 or C5, without its head: a backbone for other models.

    Not torchvision's `create_feature_extractor`: a copy of what that makes of a model in evaluation mode is in
    training mode, so that averaged or exported copies would normalise by batch.
    """

    def __init__(self, name: str, *, stages: int, stem_stride: int):
        super().__init__(name, stem_stride=stem_stride)
        del self.avgpool, self.fc
        if stages < 5:
            del self.layer4
        self.names = [f"layer{i}" for i in range(1, stages)]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> the feature map of each stage, `c2` to `c4` or `c5`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        feature_maps = {}
        for number, name in enumerate(self.names, start=2):
            x = feature_maps[f"c{number}"] = self.get_submodule(name)(x)
        return feature_maps


class VTResNet(nn.Module):
    """ResNet stages 1 to 4 (torchvision's `layer3` is the last), then VT modules in place of stage 5 (table 1).

    The first module has a filter-based tokenizer and its projector raises the channels to `channels`; the others
    are recurrent; the last has no projector, and the mean of its tokens goes to the linear head.
    """

    task: ClassVar[str] = "classification"
    head: ClassVar[tuple[str, ...]] = ("vt.", "fc.")

    def __init__(
        self,
        *,
        backbone: str,
        num_classes: int,
        channels: int,
        modules: int,
        tokens: int,
        token_channels: int,
        group_width: int,
        token_groups: int,
        stem_stride: int,
    ):
        super().__init__()
        if modules < 1:
            raise ValueError(f"modules={modules}: a VT-ResNet has at least one VT module")
        self.backbone = ResNetStages(backbone, stages=4, stem_stride=stem_stride)
        in_channels, self.stride = self.backbone.stage_channels[2], self.backbone.stage_strides[2]
        self.vt = nn.ModuleList(
            VTModule(
                in_channels=in_channels if i == 0 else channels,
                out_channels=None if i == modules - 1 else channels,
                tokens=tokens,
                token_channels=token_channels,
                recurrent=i > 0,
                group_width=group_width,
                token_groups=token_groups,
            )
            for i in range(modules)
        )
        self.fc = nn.Linear(token_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        check_images(images, self.stride)
        pixels: Tensor | None = to_pixels(self.backbone(images)["c4"])
        tokens: Tensor | None = None
        for module in self.vt:
            pixels, tokens = module(pixels, tokens)
        assert tokens is not None
        return self.fc(tokens.mean(dim=1))


def resnet18(*, num_classes: int = 1000, stem_stride: int = 4) -> ResNetClassifier:
    """ResNet-18 for (B, 3, H, W) images: 11.7 M parameters, 1.81 GMACs at 224 pixels and 1000 classes."""
    return ResNetClassifier("resnet18", num_classes=num_classes, stem_stride=stem_stride)


def vt_resnet18(
    *,
    num_classes: int = 1000,
    tokens: int = 16,
    token_channels: int = 1024,
    channels: int = 512,
    modules: int = 2,
    group_width: int = 64,
    token_groups: int = 4,
    stem_stride: int = 4,
) -> VTResNet:
    """VT-ResNet-18 (VT-C512-L16-CT1024 x 2): 11.66 M parameters, as the paper's 11.6 M at 1000 classes.

    Args:
        num_classes: outputs of the head.
        tokens: visual tokens L of every module.
        token_channels: channels C_T of a token.
        channels: channels C of the feature map between the modules.
        modules: VT modules that stand in for stage 5.
        group_width: channels in each group of the 1x1 convolutions on pixels.
        token_groups: groups of the transformer's key, query and value.
        stem_stride: 4, or less for small images.
    """
    return VTResNet(
        backbone="resnet18",
        num_classes=num_classes,
        channels=channels,
        modules=modules,
        tokens=tokens,
        token_channels=token_channels,
        group_width=group_width,
        token_groups=token_groups,
        stem_stride=stem_stride,
    )
