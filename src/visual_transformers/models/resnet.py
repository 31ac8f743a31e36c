"""torchvision's ResNet as a classifier and as a backbone, with the options that recipes need."""

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
    """Adds stochastic depth on the residual branch to one of torchvision's blocks, which stands behind it as a base."""

    branch: Callable[[Tensor], Tensor]
    downsample: nn.Module | None
    relu: nn.Module

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.drop: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.drop(self.branch(x)) + skip)


class BasicBlock(StochasticDepthBlock, torchvision_resnet.BasicBlock):
    """torchvision's basic block, with stochastic depth."""

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch."""
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(StochasticDepthBlock, torchvision_resnet.Bottleneck):
    """torchvision's bottleneck, with stochastic depth."""

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


BACKBONES: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}


def block_and_layers(name: str) -> tuple[type[BasicBlock | Bottleneck], list[int]]:
    """The block of a ResNet, and how many of it each stage has.

    Raises:
        ValueError: on an unknown name.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


class ResNet(torchvision_resnet.ResNet):
    """torchvision's ResNet, by name. The state dict is torchvision's, key for key.

    Args:
        name: a key of `BACKBONES`.
        num_classes: outputs of the linear layer.
        stages: 5 for all; 4 leaves out `layer4`.
        stem_stride: 4 is the published stem (a convolution and a max pooling, each of stride 2); 2 leaves the pooling
            out; 1 takes the convolution's stride away too, for small images.
        stride_in_1x1: whether a bottleneck has its stride in the first 1x1 convolution, as He et al. 2016 and
            Detectron2, or in the 3x3 one, as torchvision.
        stochastic_depth: chance that the last residual branch is dropped for an image in training; it grows
            linearly from the first to the last.
        zero_init: whether every residual branch starts at zero.

    Raises:
        ValueError: on an unknown name or stride.
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
        block, layers = block_and_layers(name)
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
        for b, rate in zip(blocks, drop_rates(stochastic_depth, len(blocks)), strict=True):
            b.drop = StochasticDepth(rate, "row")
            if stride_in_1x1 and isinstance(b, Bottleneck):
                b.conv1.stride, b.conv2.stride = b.conv2.stride, (1, 1)

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> the feature map of each stage, `c2` to `c4` or `c5`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        found = {}
        for number, name in enumerate(self.stages, start=2):
            x = found[f"c{number}"] = self.get_submodule(name)(x)
        return found


def drop_rates(last: float, branches: int) -> list[float]:
    """Chances to drop each of so many residual branches, growing linearly to the `last` one's.

    Raises:
        ValueError: unless it is at least 0 and below 1.
    """
    if not 0 <= last < 1:
        raise ValueError(f"stochastic_depth={last}: must be at least 0 and below 1")
    return [last * (i + 1) / branches for i in range(branches)]


def check_images(images: Tensor, stride: int) -> None:
    """Refuse what the backbone cannot take.

    Raises:
        DataError: unless `images` are (B, 3, H, W) and both sides at least the `stride` of the coarsest map.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise DataError(f"expected images of shape (batch, 3, height, width), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height < stride or width < stride:  # each side alone: their minimum would tie them together in an export
        raise DataError(
            f"images of {height} x {width} pixels are smaller than the backbone's stride of {stride}; "
            f"resize them so that both sides have at least {stride} pixels"
        )


class ResNetClassifier(ResNet):
    """A ResNet with dropout before its linear layer, that refuses images it cannot take."""

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
        return self.fc(self.dropout(self.avgpool(self.feature_maps(images)["c5"]).flatten(1)))


class ResNetStages(ResNet):
    """The stages of a ResNet up to C4 or C5, without its head: a backbone for other models.

    Not torchvision's `create_feature_extractor`: a copy of what that makes of a model in evaluation mode is in
    training mode, so that averaged or exported copies would normalise by batch.
    """

    def __init__(
        self,
        name: str,
        *,
        stages: int,
        stem_stride: int,
        stride_in_1x1: bool = False,
        stochastic_depth: float = 0.0,
        zero_init: bool = False,
    ):
        super().__init__(
            name,
            stages=stages,
            stem_stride=stem_stride,
            stride_in_1x1=stride_in_1x1,
            stochastic_depth=stochastic_depth,
            zero_init=zero_init,
        )
        del self.avgpool, self.fc

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> the feature map of each stage, `c2` to `c4` or `c5`."""
        return self.feature_maps(images)
