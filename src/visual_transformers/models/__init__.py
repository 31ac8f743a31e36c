"""The models as a library: plain builders with keyword arguments, each returning a `torch.nn.Module`."""

from visual_transformers.models.fpn import panoptic_fpn, vt_fpn
from visual_transformers.models.resnet import resnet18, vt_resnet18

__all__ = ["panoptic_fpn", "resnet18", "vt_fpn", "vt_resnet18"]
