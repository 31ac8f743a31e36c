"""ResNet against torchvision's, and VT-ResNet's parts, costs and arguments."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from visual_transformers import models
from visual_transformers.models import resnet18, vt_resnet18
from visual_transformers.models.resnet import BACKBONES, STEM_STRIDES
from visual_transformers.models.vt_resnet import VTResNet


def small_vt(**changes: int) -> VTResNet:
    sizes = {"num_classes": 5, "tokens": 4, "token_channels": 32, "channels": 64, "group_width": 16}
    return vt_resnet18(**sizes | changes)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def forward_macs(module: nn.Module) -> int:
    """MACs for one image of 224 x 224 pixels."""
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, 3, 224, 224))
    return counter.get_total_flops() // 2


def record_calls(module: nn.Module) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    """Record the arguments and the result of every later call of `module`."""
    calls: list[tuple[tuple[Tensor, ...], Tensor]] = []
    module.register_forward_hook(lambda _, arguments, result: calls.append((arguments, result)))
    return calls


# torchvision


def torchvision_resnet18() -> nn.Module:
    """torchvision's model in evaluation mode, with random batch-norm statistics and weights."""
    network = torchvision.models.resnet18()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return network.eval()


def test_resnet18_with_torchvisions_weights_gives_its_logits() -> None:
    theirs, ours, images = torchvision_resnet18(), resnet18().eval(), torch.randn(2, 3, 65, 97)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", BACKBONES)
def test_resnets_have_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = getattr(models, name)(), getattr(torchvision.models, name)()
    assert shapes(ours) == shapes(theirs)


def test_vt_resnets_backbone_is_torchvisions_up_to_layer3() -> None:
    theirs, ours, images = torchvision_resnet18(), small_vt().eval(), torch.randn(2, 3, 65, 97)
    before = {name: t for name, t in theirs.state_dict().items() if not name.startswith(("layer4.", "fc."))}
    ours.backbone.load_state_dict(before)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    torch.testing.assert_close(ours.backbone(images)["c4"], theirs.layer3(theirs.layer2(theirs.layer1(x))))


# Parameters and MACs


def test_vt_resnet18_has_the_hand_counted_parameters() -> None:
    theirs = torchvision.models.resnet18()
    stages_1_to_4 = parameters(theirs) - parameters(theirs.layer4) - parameters(theirs.fc)
    tokenizer_1 = 256 * 16 + 256 * 256 // 4 + 256 * 1024  # W_A, value in 256 / 64 groups, embedding
    projector_1 = 256 * 512 // 4 + 2 * 1024 * 512 + 256 * 512  # query in groups, key and value, dense skip
    tokenizer_2 = 1024 * 512 + 2 * 512 * 512 // 8 + 512 * 1024  # W_{T->R}, key and value in 512 / 64 groups, embedding
    transformer = (2 * 1024 * 512 + 1024 * 1024) // 4 + 2 * 1024 * 1024  # K, Q, V in 4 groups, F_1 and F_2
    head = 1024 * 1000 + 1000
    hand_count = stages_1_to_4 + tokenizer_1 + transformer + projector_1 + tokenizer_2 + transformer + head
    assert parameters(vt_resnet18()) == hand_count


def test_vt_resnet18_has_the_papers_11_66_million_parameters() -> None:
    assert parameters(vt_resnet18()) == pytest.approx(11.66e6, rel=0.003)


def test_vt_resnet18_costs_less_than_the_papers_macs() -> None:
    with torch.device("meta"):
        assert 0.95 * 1579e6 < forward_macs(vt_resnet18()) < 1579e6


# Wiring of the VT modules


@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize("layer", ["key", "query", "value", "feed_1", "feed_2"])
def test_logits_depend_on_every_layer_of_each_transformer(changed: int, layer: str) -> None:
    model, images = small_vt().double().eval(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = model(images)
    nn.init.normal_(getattr(model.vt[changed].transformer, layer).weight)
    assert not torch.equal(model(images), before)


def test_projector_and_next_tokenizer_get_the_transformed_tokens_and_the_next_tokenizer_the_projected_pixels() -> None:
    model = small_vt()
    first, second = model.vt
    transformer, projector, tokenizer = map(record_calls, (first.transformer, first.projector, second.tokenizer))
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(projector[0][0][1], transformer[0][1])
    assert torch.equal(tokenizer[0][0][2], transformer[0][1])
    assert torch.equal(tokenizer[0][0][0], projector[0][1])


def test_head_classifies_the_mean_of_the_last_tokens() -> None:
    model = small_vt(tokens=3)
    transformer = record_calls(model.vt[-1].transformer)
    logits = model(torch.randn(2, 3, 64, 64))
    first, second, third = transformer[0][1].unbind(dim=1)
    torch.testing.assert_close(logits, (first + second + third) / 3 @ model.fc.weight.T + model.fc.bias)


@pytest.mark.parametrize("modules", [1, 2, 3])
def test_only_the_first_module_is_filter_based_and_only_the_last_lacks_a_projector(modules: int) -> None:
    model = small_vt(modules=modules)
    kinds = [(type(m.tokenizer).__name__, m.projector is None) for m in model.vt]
    assert kinds == [("RecurrentTokenizer" if i else "FilterTokenizer", i == modules - 1) for i in range(modules)]


# Stem strides


@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_stem_stride_sets_the_strides_of_resnets_stages(stem_stride: int) -> None:
    model = resnet18(stem_stride=stem_stride).eval()
    calls = [record_calls(getattr(model, f"layer{i}")) for i in range(1, 5)]
    model(torch.randn(1, 3, 64, 64))
    assert [64 // call[0][1].shape[-1] for call in calls] == [stem_stride * 2**i for i in range(4)]
    assert model.stage_strides == [stem_stride * 2**i for i in range(4)]


@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_stem_stride_sets_the_size_of_vt_resnets_feature_map(stem_stride: int) -> None:
    model = small_vt(stem_stride=stem_stride).eval()
    side = 64 // (4 * stem_stride)
    assert model.backbone(torch.randn(1, 3, 64, 64))["c4"].shape == (1, 256, side, side)


# Refused arguments


@pytest.mark.parametrize("modules", [0, -1])
def test_fewer_than_one_module_is_refused_with_the_number(modules: int) -> None:
    with pytest.raises(ValueError, match=rf"modules={modules}: "):
        small_vt(modules=modules)


@pytest.mark.parametrize("group_width", [0, 24])
def test_group_width_that_does_not_divide_is_refused_with_the_number(group_width: int) -> None:
    with pytest.raises(ValueError, match=rf"group_width={group_width} does not divide 256 channels"):
        small_vt(group_width=group_width)


def test_group_width_is_checked_against_the_channels_between_modules() -> None:
    with pytest.raises(ValueError, match=r"group_width=64 does not divide 96 channels"):
        vt_resnet18(channels=96, group_width=64)


def test_token_groups_that_do_not_divide_are_refused_with_the_number() -> None:
    with pytest.raises(ValueError, match=r"3 groups do not divide 32 input and 16 output channels"):
        small_vt(token_groups=3)


@pytest.mark.parametrize("size", ["tokens", "token_channels", "token_groups"])
def test_zero_of_a_token_size_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match=rf"^{size}=0: must be at least 1"):
        small_vt(**{size: 0})
