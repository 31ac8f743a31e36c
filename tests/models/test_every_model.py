"""Promises of every model: independent images, gradients, logits, image sizes and refused arguments."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from visual_transformers.models import panoptic_fpn, resnet18, vt_fpn, vt_resnet18
from visual_transformers.models.resnet import STEM_STRIDES

CLASSES = 5
TOKENS = {"tokens": 4, "token_channels": 32}
FPN = {"backbone": "resnet18", "pyramid_channels": 32, "branch_channels": 64}
BUILDERS: dict[str, tuple[Callable[..., nn.Module], dict[str, object]]] = {
    "resnet18": (resnet18, {}),
    "vt_resnet18": (vt_resnet18, TOKENS | {"channels": 64, "group_width": 16}),
    "panoptic_fpn": (panoptic_fpn, FPN),
    "vt_fpn": (vt_fpn, FPN | TOKENS | {"group_width": 8}),
}
STRIDES = {"resnet18": 32, "vt_resnet18": 16, "panoptic_fpn": 32, "vt_fpn": 32}
NAMES = pytest.mark.parametrize("name", BUILDERS)


def build(name: str, **changes: object) -> nn.Module:
    builder, options = BUILDERS[name]
    return builder(**{"num_classes": CLASSES} | options | changes)


@pytest.fixture(params=BUILDERS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


# Mistakes seen in other implementations


def test_every_image_of_a_batch_is_processed_independently(model: nn.Module) -> None:
    model.double().eval()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    single = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), single, rtol=1e-10, atol=1e-10)


def test_every_parameter_gets_a_gradient(model: nn.Module) -> None:
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_no_two_parameters_share_memory(model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len({parameter.data_ptr() for parameter in model.parameters()}) == len(names)


def test_heads_bias_shifts_the_logits(model: nn.Module) -> None:
    model.eval()
    images = torch.randn(2, 3, 64, 64)
    before = model(images)
    (model.branch.classifier if hasattr(model, "branch") else model.fc).bias.data += 3
    torch.testing.assert_close(model(images), before + 3)


def test_logits_are_not_probabilities(model: nn.Module) -> None:
    logits = model.eval()(torch.randn(4, 3, 64, 64))
    assert logits.min() < 0
    assert (logits.sum(dim=1) - 1).abs().mean() > 1e-2


def test_cross_entropy_falls_near_zero_on_eight_images(
    model: nn.Module, overfit: Callable[[nn.Module, Tensor, Tensor], float]
) -> None:
    labels = torch.arange(8) % CLASSES
    if hasattr(model, "branch"):
        halves = torch.stack([labels, (torch.arange(8) + 2) % CLASSES], dim=1)
        labels = halves[:, None].repeat_interleave(32, dim=2).expand(8, 64, 64)  # left half, right half
    assert overfit(model, torch.randn(8, 3, 64, 64), labels) < 0.05


def test_a_copy_of_a_model_in_evaluation_mode_computes_the_same(model: nn.Module) -> None:
    model, images = model.eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(copy.deepcopy(model)(images), model(images))


# Sizes of images


@pytest.mark.parametrize("size", [(33, 47), (65, 97), (32, 200)])
def test_any_image_size_is_accepted(model: nn.Module, size: tuple[int, int]) -> None:
    expected = (2, CLASSES, *size) if hasattr(model, "branch") else (2, CLASSES)
    assert model.eval()(torch.randn(2, 3, *size)).shape == expected


@NAMES
def test_an_image_of_one_stride_is_accepted(name: str) -> None:
    side = STRIDES[name]
    assert build(name).eval()(torch.randn(1, 3, side, side)).shape[:2] == (1, CLASSES)


@NAMES
@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_an_image_smaller_than_the_stride_is_refused_with_both_sizes(name: str, stem_stride: int) -> None:
    stride = STRIDES[name] * stem_stride // 4
    model = build(name, stem_stride=stem_stride)
    for height, width in ((stride - 1, 50), (50, stride - 1)):
        message = rf"images of {height} x {width} pixels are smaller than the backbone's stride of {stride};"
        with pytest.raises(ValueError, match=message):
            model(torch.randn(1, 3, height, width))


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (2, 64, 64, 3), (2, 3, 64), (1, 2, 3, 64, 64)])
def test_images_of_another_shape_are_refused_with_their_shape(model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"(batch, 3, height, width), got {shape}")):
        model(torch.randn(shape))


# Arguments


@NAMES
@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_the_stem_stride_changes_no_weight(name: str, stem_stride: int) -> None:
    states = (build(name, **changes).state_dict() for changes in ({"stem_stride": stem_stride}, {}))
    changed, default = ({key: tensor.shape for key, tensor in state.items()} for state in states)
    assert changed == default


@NAMES
@pytest.mark.parametrize("stem_stride", [0, 3, 8])
def test_other_stem_strides_are_refused_with_the_number(name: str, stem_stride: int) -> None:
    with pytest.raises(ValueError, match=rf"stem_stride={stem_stride} is not one of \(1, 2, 4\)"):
        build(name, stem_stride=stem_stride)


@NAMES
def test_an_unknown_backbone_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"'resnet19'; choose one of resnet18, resnet34, resnet50, resnet101"):
        build(name, backbone="resnet19")
