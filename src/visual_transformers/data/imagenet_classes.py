"""Names of ImageNet's 1000 classes by WordNet id; the ids name its folders."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from torchvision.models import ResNet18_Weights


@cache
def load_class_names() -> dict[str, str]:
    """Load torchvision's class names by WordNet id, in the order of the ids and of its models' outputs."""
    ids = (files("visual_transformers.data") / "imagenet_wnids.txt").read_text(encoding="ascii").split()
    return dict(zip(ids, ResNet18_Weights.IMAGENET1K_V1.meta["categories"], strict=True))


def replace_wordnet_ids(classes: list[str]) -> list[str]:
    """Replace WordNet ids by class names; keep other names, and keep all if two would become equal."""
    names = [load_class_names().get(name, name) for name in classes]
    return names if len(set(names)) == len(set(classes)) else list(classes)
