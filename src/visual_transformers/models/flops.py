"""Parameters and multiply-adds of a model's parts."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

STEM = ("conv1", "bn1", "relu", "maxpool")
"""What stands before the first stage of a ResNet, in torchvision's names."""


REST = "rest"
"""What a model has or computes in none of its parts."""


@dataclass(frozen=True)
class Part:
    """A part of a model: how many numbers it holds, and its multiply-adds (MACs) for one image."""

    name: str
    parameters: int
    macs: int


def count(model: nn.Module, image_size: Sequence[int]) -> list[Part]:
    """The parts of a model, which add up to the whole, for one image of (H, W) pixels in evaluation mode.

    Convolutions and matrix products are counted, by torch's FlopCounterMode, whose FLOPs are 2 x MACs. Biases, norms,
    activations, softmax, pooling and interpolation are not. Nothing is computed: the tensors have shapes alone.
    """
    hollow = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hollow(torch.empty(1, 3, *image_size, device="meta"))
    flops = {path: sum(counts.values()) for path, counts in counter.get_flop_counts().items()}
    parts, root = part_names(model), type(model).__name__
    macs: Counter[str] = Counter()
    for path, part in parts.items():
        macs[part] += flops.get(f"{root}.{path}", 0) // 2
    macs[REST] = flops.get("Global", 0) // 2 - macs.total()
    parameters: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parameters[next((part for path, part in parts.items() if name.startswith(f"{path}.")), REST)] += (
            parameter.numel()
        )
    names = dict.fromkeys([*parts.values(), REST])
    return [Part(name, parameters[name], macs[name]) for name in names if parameters[name] or macs[name]]


def part_names(model: nn.Module) -> dict[str, str]:
    """The path of each submodule that is a part of its own, or belongs to one, and the part's name.

    These are the children of the model. In place of `backbone` and of lists of modules stand their children, as
    `layer1` and `vt.0`; what comes before a ResNet's stages is `stem`.
    """
    names = {}
    for path, child in model.named_children():
        if path != "backbone" and not isinstance(child, nn.ModuleList):
            names[path] = "stem" if path in STEM else path
            continue
        for name, _ in child.named_children():
            within = name if path == "backbone" else f"{path}.{name}"
            names[f"{path}.{name}"] = "stem" if within in STEM else within
    return names
