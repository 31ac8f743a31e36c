"""A tiny model, and weight files made of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visual_transformers.checkpoints.weights import WeightFile

CLASSES = ["cat", "dog", "fox"]


class Tiny(nn.Module):
    head: ClassVar[tuple[str, ...]] = ("fc.",)

    def __init__(self, classes: int = 3):
        super().__init__()
        self.body = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.fc = nn.Linear(5, classes)


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Copy a state dict, so that neither training nor loading changes it."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


def make_file(module: nn.Module, **metadata: Any) -> WeightFile:
    return WeightFile(Path("given.pt"), copy_state(module), metadata)


def make_config(**model: object) -> dict[str, Any]:
    """Make a run's configuration with the keys that weight files need."""
    return {"name": "run", "task": {"_target_": "t"}, "model": {"_target_": "m", **model}, "data": {"_target_": "d"}}
