from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from visual_transformers.config.instantiate import build
from visual_transformers.config.validation import validate
from visual_transformers.errors import ConfigError

RATE, ALPHA, EPS, MOMENTUM, DECAY = 0.16, 0.9, 1e-3, 0.9, 0.01
GRADIENTS = [torch.tensor([1e-3, -0.2, 30.0]).double() * factor for factor in (1.0, -0.5, 2.0)]


def by_hand(start: Tensor) -> Tensor:
    """Take three steps of TensorFlow's RMSProp with momentum."""
    weight, mean_square, update = start.clone(), torch.ones_like(start), torch.zeros_like(start)
    for step, gradient in enumerate(GRADIENTS):
        gradient = gradient + DECAY * weight
        mean_square = ALPHA * mean_square + (1 - ALPHA) * gradient**2
        update = MOMENTUM * update + RATE / (step + 1) * gradient / (mean_square + EPS).sqrt()
        weight = weight - update
    return weight


def by_optimizer(composed, option: str, start: Tensor) -> Tensor:
    """Take them with an optimizer of the configuration, whose learning rate falls alike."""
    settings = (f"optimizer={option}", f"optimizer.lr={RATE}", f"optimizer.weight_decay={DECAY}")
    weight = torch.nn.Parameter(start.clone())
    optimizer = build(validate(composed(*settings)).optimizer, "optimizer", params=[weight])
    for step, gradient in enumerate(GRADIENTS):
        optimizer.param_groups[0]["lr"] = RATE / (step + 1)
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


START = torch.tensor([1.0, -2.0, 0.5]).double()


def test_rmsprop_is_tensorflow_s(composed):
    torch.testing.assert_close(by_optimizer(composed, "rmsprop", START), by_hand(START), rtol=1e-12, atol=0)


def test_torch_s_rmsprop_differs(composed):
    differences = (by_optimizer(composed, "rmsprop_torch", START) - by_hand(START)).abs()
    assert (differences > 0.1).all()


def test_without_timm_the_error_says_how_to_get_it(composed, monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'timm'")

    monkeypatch.setattr("visual_transformers.config.instantiate.get_object", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optimizer\._target_=timm\.optim\.RMSpropTF: .*visual-transformers\[timm\]"):
        validate(composed("optimizer=rmsprop"))
    with pytest.raises(ConfigError) as other:
        build({"_target_": "torch.optim.Missing"}, "optimizer")
    assert "timm]" not in str(other.value)


def test_a_name_that_timm_does_not_have_needs_no_installation():
    with pytest.raises(ConfigError) as refused:
        build({"_target_": "timm.optim.Missing"}, "optimizer")
    assert "pip install" not in str(refused.value)
