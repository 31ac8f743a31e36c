"""torchvision's ResNet as a classifier and as a backbone, with options for small images and regularisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet
from torchvision.ops import StochasticDepth

from visual_transformers.errors import DataError

STEM_STRIDES = (1, 2, 4)
BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101"]


class StochasticDepthBlock:
    """Mixin for torchvision's blocks that adds stochastic depth to the residual branch."""

    residual_branch: Callable[[Tensor], Tensor]
    downsample: nn.Module | None
    relu: nn.Module

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.drop: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.drop(self.residual_branch(x)) + skip)


class BasicBlock(StochasticDepthBlock, torchvision_resnet.BasicBlock):
    """torchvision's basic block with stochastic depth."""

    def residual_branch(self, x: Tensor) -> Tensor:
        """Apply both convolutions."""
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(StochasticDepthBlock, torchvision_resnet.Bottleneck):
    """torchvision's bottleneck with stochastic depth."""

    def residual_branch(self, x: Tensor) -> Tensor:
        """Apply all three convolutions."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


BACKBONES: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}


def get_backbone(name: str) -> tuple[type[BasicBlock | Bottleneck], list[int]]:
    """Return the block of a ResNet and the number of blocks of each stage.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


class ResNet(torchvision_resnet.ResNet):
    """torchvision's ResNet by name, with the same keys in its state dict.

    Args:
        name: key of `BACKBONES`.
        num_classes: outputs of the linear layer.
        stages: 5 for all, 4 to omit `layer4`.
        stem_stride: 4 for the published stem (convolution and max pooling, each of stride 2), 2 without the pooling,
            1 without the convolution's stride too, for small images.
        stride_in_1x1: whether a bottleneck strides in its first 1x1 convolution, as in He et al. 2016 and Detectron2,
            instead of the 3x3 convolution, as in torchvision.
        stochastic_depth: probability of dropping the last residual branch for an image in training; it grows linearly
            from the first to the last branch.
        zero_init: whether every residual branch starts at zero.

    Raises:
        ValueError: if the name is unknown or a number out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        num_classes: int = 1000,
        stages: int = 5,
        stem_stride: int = 4,
        stride_in_1x1: bool = False,
        stochastic_depth: float = 0.0,
        zero_init: bool = False,
    ):
        block, layers = get_backbone(name)
        if stem_stride not in STEM_STRIDES:
            raise ValueError(f"stem_stride={stem_stride} is not one of {STEM_STRIDES}")
        super().__init__(block, layers, num_classes=num_classes, zero_init_residual=zero_init)
        self.stage_channels = [64 * block.expansion * 2**i for i in range(4)]
        self.stage_strides = [stem_stride * 2**i for i in range(4)]
        self.stride_in_1x1 = stride_in_1x1
        if stages < 5:
            del self.layer4
        self.stages = [f"layer{i}" for i in range(1, stages)]
        if stem_stride < 4:
            self.maxpool = nn.Identity()
        if stem_stride < 2:
            self.conv1.stride = (1, 1)
        blocks = [b for stage in self.stages for b in self.get_submodule(stage).children()]
        for b, rate in zip(blocks, compute_drop_rates(stochastic_depth, len(blocks)), strict=True):
            b.drop = StochasticDepth(rate, "row")
            if stride_in_1x1 and isinstance(b, Bottleneck):
                b.conv1.stride, b.conv2.stride = b.conv2.stride, (1, 1)

    def extract_features(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> feature map of each stage, `c2` to `c4` or `c5`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = {}
        for number, name in enumerate(self.stages, start=2):
            x = features[f"c{number}"] = self.get_submodule(name)(x)
        return features


def compute_drop_rates(last: float, branches: int) -> list[float]:
    """Return the stochastic-depth rates of residual branches, which grow linearly to the rate of the last one.

    Raises:
        ValueError: if that rate is not in [0, 1).
    """
    if not 0 <= last < 1:
        raise ValueError(f"stochastic_depth={last}: must be at least 0 and below 1")
    return [last * (i + 1) / branches for i in range(branches)]


def check_images(images: Tensor, stride: int) -> None:
    """Check the shape of a batch of images.

    Raises:
        DataError: unless `images` are (B, 3, H, W) with H and W at least `stride`, that of the coarsest feature map.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise DataError(f"expected images of shape (batch, 3, height, width), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height < stride or width < stride:  # their minimum would tie both dynamic sizes together in an export
        raise DataError(
            f"images of {height} x {width} pixels are smaller than the backbone's stride of {stride}; "
            f"resize them so that both sides have at least {stride} pixels"
        )


class ResNetClassifier(ResNet):
    """ResNet with dropout before its linear layer and a check of its input."""

    task: ClassVar[str] = "classification"
    head: ClassVar[tuple[str, ...]] = ("fc.",)

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        backbone: BackboneName = "resnet18",
        stem_stride: int = 4,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        zero_init: bool = False,
    ):
        super().__init__(
            backbone,
            num_classes=num_classes,
            stem_stride=stem_stride,
            stochastic_depth=stochastic_depth,
            zero_init=zero_init,
        )
        self.stride = self.stage_strides[3]
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        check_images(images, self.stride)
        return self.fc(self.dropout(self.avgpool(self.extract_features(images)["c5"]).flatten(1)))


class ResNetStages(ResNet):
    """Stages of a ResNet without its head, as a backbone; takes the options of `ResNet`.

    torchvision's `create_feature_extractor` is no alternative: copies of its result in evaluation mode are in training
    mode, so that averaged or exported copies would normalise by batch statistics.
    """

    def __init__(self, name: str, **options: Any):
        super().__init__(name, **options)
        del self.avgpool, self.fc

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> feature map of each stage, `c2` to `c4` or `c5`."""
        return self.extract_features(images)
