from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from visual_transformers.distributed.batch_norm import freeze_batch_norms
from visual_transformers.models import panoptic_fpn, resnet18, vt_fpn, vt_resnet18
from visual_transformers.training.ema import ExponentialMovingAverage

DECAY = 0.9
SMALL = {"num_classes": 3, "token_channels": 32}
MODELS = {
    "resnet18": lambda: resnet18(num_classes=3),
    "vt_resnet18": lambda: vt_resnet18(**SMALL, norm="post"),
    "panoptic_fpn": lambda: panoptic_fpn(num_classes=3, backbone="resnet18"),
    "vt_fpn": lambda: vt_fpn(**SMALL, backbone="resnet18"),
}


def train(model: nn.Module, steps: int) -> Iterator[None]:
    """Train, yielding after each step."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
        yield


@pytest.mark.parametrize("name", MODELS)
def test_the_average_is_that_computed_by_hand(name):
    model = MODELS[name]()
    by_hand, average = copy.deepcopy(model), ExponentialMovingAverage(model, DECAY)
    expected: dict[str, torch.Tensor] = {}
    for _ in train(model, 3):
        average.update_parameters(model)
        for key, value in model.state_dict().items():
            old = expected.get(key, value.double())
            expected[key] = DECAY * old + (1 - DECAY) * value if value.is_floating_point() else value.clone()
    by_hand.load_state_dict({key: value.float() for key, value in expected.items()})
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(average.eval()(images), by_hand.eval()(images), rtol=1e-4, atol=1e-5)


def test_counts_of_batches_are_the_model_s():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    average = ExponentialMovingAverage(model, 0.999)
    for step, _ in enumerate(train(model, 4), start=1):
        average.update_parameters(model)
        assert average.module[1].num_batches_tracked == step


def test_the_first_update_copies_the_model():
    model = resnet18(num_classes=3)
    average = ExponentialMovingAverage(model, DECAY)
    for _ in train(model, 1):
        average.update_parameters(model)
    assert all(torch.equal(value, average.module.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_restored_average_continues_bit_for_bit():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    other = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    average, resumed = ExponentialMovingAverage(model, DECAY), ExponentialMovingAverage(other, DECAY)
    for step, _ in enumerate(train(model, 4)):
        average.update_parameters(model)
        if step == 1:
            resumed.load_state_dict(copy.deepcopy(average.state_dict()))
        if step > 1:
            resumed.update_parameters(model)
    assert list(resumed.state_dict()) == ["n_averaged", *(f"module.{key}" for key in model.state_dict())]
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in average.state_dict().items())


def test_frozen_parts_stay_bit_for_bit():
    model = resnet18(num_classes=3)
    freeze_batch_norms(model, ["layer1"])
    model.conv1.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    average = ExponentialMovingAverage(model, DECAY)
    for _ in train(model, 3):
        average.update_parameters(model)
    frozen = [key for key in before if key.startswith(("conv1.", "layer1.0.bn", "layer1.1.bn"))]
    assert len(frozen) == 1 + 4 * 5
    assert all(torch.equal(average.module.state_dict()[key], before[key]) for key in frozen)


def test_no_update_reads_from_the_device():
    """Reading a value of a tensor on the meta device fails."""
    with torch.device("meta"):
        model = vt_resnet18(**SMALL)
    average = ExponentialMovingAverage(model, DECAY)
    for _ in range(3):
        average.update_parameters(model)
    assert average.n_averaged.device.type == "cpu"
    assert average.n_averaged == 3


def test_a_trained_model_can_be_copied():
    """Copying a module that holds a tensor with a gradient history fails."""
    for make in MODELS.values():
        model = make()
        list(train(model, 1))
        ExponentialMovingAverage(model, DECAY)


def test_a_compiled_model_s_weights_are_averaged_by_their_own_names():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    average = ExponentialMovingAverage(model, DECAY)
    forward = torch.compile(model, backend="eager")
    forward(torch.randn(2, 3, 4, 4))
    average.update_parameters(model)
    assert list(average.module.state_dict()) == list(model.state_dict())
    assert average.module[1].num_batches_tracked == 1
