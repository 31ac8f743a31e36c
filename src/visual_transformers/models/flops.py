"""Parameters and multiply-adds (MACs) of a model's modules."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

STEM = ("conv1", "bn1", "relu", "maxpool")
"""Modules before the first stage of torchvision's ResNet."""
REST = "rest"
"""Name of what belongs to no module."""


@dataclass(frozen=True)
class ModuleCost:
    """Number of parameters of a module, and its multiply-adds (MACs) for one image."""

    name: str
    parameters: int
    macs: int


def count_costs(model: nn.Module, image_size: Sequence[int]) -> list[ModuleCost]:
    """Count parameters and MACs of a model's modules for one image of (H, W) pixels in evaluation mode.

    torch's FlopCounterMode counts convolutions and matrix products, as 2 FLOPs per MAC. It omits biases, norms,
    activations, softmax, pooling and interpolation. The model runs on the meta device, without memory or arithmetic.
    """
    meta_model = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta_model(torch.empty(1, 3, *image_size, device="meta"))
    flops = {path: sum(counts.values()) for path, counts in counter.get_flop_counts().items()}
    groups, root = name_groups(model), type(model).__name__
    macs: Counter[str] = Counter()
    for path, group in groups.items():
        macs[group] += flops.get(f"{root}.{path}", 0) // 2
    macs[REST] = flops.get("Global", 0) // 2 - macs.total()
    parameters: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        group = next((group for path, group in groups.items() if name.startswith(f"{path}.")), REST)
        parameters[group] += parameter.numel()
    names = dict.fromkeys([*groups.values(), REST])
    return [ModuleCost(name, parameters[name], macs[name]) for name in names if parameters[name] or macs[name]]


def name_groups(model: nn.Module) -> dict[str, str]:
    """Map the path of each counted submodule to the name under which its cost is reported.

    These are the children of the model. `backbone` and lists of modules are replaced by their children, e.g. `layer1`
    and `vt.0`; the modules before a ResNet's stages are `stem`.
    """
    names = {}
    for path, child in model.named_children():
        if path != "backbone" and not isinstance(child, nn.ModuleList):
            names[path] = "stem" if path in STEM else path
            continue
        for name, _ in child.named_children():
            inner = name if path == "backbone" else f"{path}.{name}"
            names[f"{path}.{name}"] = "stem" if inner in STEM else inner
    return names
