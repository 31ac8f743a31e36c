"""Model builders with keyword arguments; each returns a `torch.nn.Module`.

`resnet18` to `vt_resnet101` are the published sizes; they take all keywords of `ResNetClassifier` or `VTResNet`, e.g.
`resnet18(num_classes=10)`.
"""

from functools import partial

from visual_transformers.models.fpn import panoptic_fpn, vt_fpn
from visual_transformers.models.resnet import ResNetClassifier
from visual_transformers.models.vt_resnet import VTResNet

resnet18 = partial(ResNetClassifier, backbone="resnet18")
resnet34 = partial(ResNetClassifier, backbone="resnet34")
resnet50 = partial(ResNetClassifier, backbone="resnet50")
resnet101 = partial(ResNetClassifier, backbone="resnet101")
vt_resnet18 = partial(VTResNet, backbone="resnet18", channels=512, modules=2)
vt_resnet34 = partial(VTResNet, backbone="resnet34", channels=512, modules=3)
vt_resnet50 = partial(VTResNet, backbone="resnet50", channels=1024, modules=3)
vt_resnet101 = partial(VTResNet, backbone="resnet101", channels=1024, modules=3)

__all__ = [
    "ResNetClassifier",
    "VTResNet",
    "panoptic_fpn",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vt_fpn",
    "vt_resnet18",
    "vt_resnet34",
    "vt_resnet50",
    "vt_resnet101",
]
