"""ImageNet's 1000 classes: the words for their WordNet ids, which name its folders."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from torchvision.models import ResNet18_Weights


@cache
def words() -> dict[str, str]:
    """What torchvision calls the class of each id, in the order of the ids, which is that of its models' outputs."""
    ids = (files("visual_transformers.data") / "imagenet_wnids.txt").read_text(encoding="ascii").split()
    return dict(zip(ids, ResNet18_Weights.IMAGENET1K_V1.meta["categories"], strict=True))


def readable(classes: list[str]) -> list[str]:
    """The same classes with words in place of ids; other names stay, and all of them where two would become one."""
    named = [words().get(name, name) for name in classes]
    return named if len(set(named)) == len(set(classes)) else list(classes)
