import copy
import re
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from visual_transformers.models import resnet18, vt_resnet18
from visual_transformers.models.resnet import BACKBONES, STEM_STRIDES, ResNet, ResNetClassifier
from visual_transformers.models.vt_resnet import VTResNet

CLASSES = 5
STRIDES = {"resnet18": 32, "vt_resnet18": 16}


def small_vt(**changes: int) -> VTResNet:
    sizes = {"num_classes": CLASSES, "tokens": 4, "token_channels": 32, "channels": 64, "group_width": 16}
    return vt_resnet18(**sizes | changes)


def build(name: str, **changes: int) -> ResNetClassifier | VTResNet:
    return resnet18(num_classes=CLASSES, **changes) if name == "resnet18" else small_vt(**changes)


@pytest.fixture(params=["resnet18", "vt_resnet18"])
def model(request: pytest.FixtureRequest) -> ResNetClassifier | VTResNet:
    return build(request.param)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def forward_macs(module: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module(images)
    return counter.get_total_flops() // 2


def recorded(module: nn.Module) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    """Arguments and result of every later call of `module`."""
    calls: list[tuple[tuple[Tensor, ...], Tensor]] = []
    module.register_forward_hook(lambda _, arguments, result: calls.append((arguments, result)))
    return calls


# torchvision


def test_resnet18_has_torchvisions_names_and_shapes() -> None:
    assert shapes(resnet18().state_dict()) == shapes(torchvision.models.resnet18().state_dict())


def with_random_statistics(network: nn.Module) -> nn.Module:
    """In eval mode, with batch-norm statistics and weights that differ from their initial ones."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return network.eval()


def test_resnet18_with_torchvisions_weights_gives_its_logits() -> None:
    theirs, ours, images = (
        with_random_statistics(torchvision.models.resnet18()),
        resnet18().eval(),
        torch.randn(2, 3, 65, 97),
    )
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_has_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = ResNet(name), getattr(torchvision.models, name)()
    assert shapes(ours.state_dict()) == shapes(theirs.state_dict())


def test_vt_resnets_backbone_is_torchvisions_up_to_layer3() -> None:
    theirs, ours, images = (
        with_random_statistics(torchvision.models.resnet18()),
        small_vt().eval(),
        torch.randn(2, 3, 65, 97),
    )
    before = {name: t for name, t in theirs.state_dict().items() if not name.startswith(("layer4.", "fc."))}
    ours.backbone.load_state_dict(before)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    torch.testing.assert_close(ours.backbone(images)["c4"], theirs.layer3(theirs.layer2(theirs.layer1(x))))


# Parameters and MACs


def test_resnet18_has_as_many_parameters_as_torchvisions() -> None:
    assert parameters(resnet18()) == parameters(torchvision.models.resnet18())


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


def test_resnet18_costs_the_papers_macs() -> None:
    with torch.device("meta"):
        assert forward_macs(resnet18(), torch.empty(1, 3, 224, 224)) == pytest.approx(1814e6, rel=0.001)


def test_vt_resnet18_costs_less_than_the_papers_macs() -> None:
    with torch.device("meta"):
        assert 0.95 * 1579e6 < forward_macs(vt_resnet18(), torch.empty(1, 3, 224, 224)) < 1579e6


# Mistakes seen in other implementations


def test_every_image_of_a_batch_is_classified_alone(model: nn.Module) -> None:
    model.double().eval()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-10, atol=1e-10)


def test_every_parameter_gets_a_gradient(model: nn.Module) -> None:
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_no_two_parameters_share_memory(model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    places = {parameter.data_ptr() for parameter in model.parameters()}
    assert len(places) == len(names)


def test_heads_bias_shifts_the_logits(model: nn.Module) -> None:
    model.eval()
    images = torch.randn(2, 3, 64, 64)
    before = model(images)
    model.fc.bias.data += 3
    torch.testing.assert_close(model(images), before + 3)


def test_logits_are_not_probabilities(model: nn.Module) -> None:
    logits = model.eval()(torch.randn(4, 3, 64, 64))
    assert logits.min() < 0
    assert (logits.sum(dim=1) - 1).abs().min() > 1e-3


def test_cross_entropy_falls_near_zero_on_eight_images(
    model: nn.Module, overfit: Callable[[nn.Module, Tensor, Tensor], float]
) -> None:
    assert overfit(model, torch.randn(8, 3, 64, 64), torch.arange(8) % CLASSES) < 0.05


@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize("layer", ["key", "query", "value", "feed_1", "feed_2"])
def test_logits_depend_on_every_layer_of_each_transformer(changed: int, layer: str) -> None:
    model, images = small_vt().double().eval(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = model(images)
    nn.init.normal_(getattr(model.vt[changed].transformer, layer).weight)
    assert not torch.equal(model(images), before)


def test_second_tokenizer_gets_the_tokens_after_the_transformer() -> None:
    model = small_vt()
    transformer, tokenizer = recorded(model.vt[0].transformer), recorded(model.vt[1].tokenizer)
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(tokenizer[0][0][2], transformer[0][1])


def test_projector_gets_the_tokens_after_the_transformer() -> None:
    model = small_vt()
    transformer, projector = recorded(model.vt[0].transformer), recorded(model.vt[0].projector)
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(projector[0][0][1], transformer[0][1])


def test_second_tokenizer_gets_the_projected_pixels() -> None:
    model = small_vt()
    projector, tokenizer = recorded(model.vt[0].projector), recorded(model.vt[1].tokenizer)
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(tokenizer[0][0][0], projector[0][1])


def test_head_classifies_the_mean_of_the_last_tokens() -> None:
    model = small_vt(tokens=3)
    transformer = recorded(model.vt[-1].transformer)
    logits = model(torch.randn(2, 3, 64, 64))
    first, second, third = transformer[0][1].unbind(dim=1)
    torch.testing.assert_close(logits, (first + second + third) / 3 @ model.fc.weight.T + model.fc.bias)


@pytest.mark.parametrize("modules", [1, 2, 3])
def test_only_the_first_module_is_filter_based_and_only_the_last_lacks_a_projector(modules: int) -> None:
    model = small_vt(modules=modules)
    kinds = [(type(m.tokenizer).__name__, m.projector is None) for m in model.vt]
    assert kinds == [("RecurrentTokenizer" if i else "FilterTokenizer", i == modules - 1) for i in range(modules)]


@pytest.mark.parametrize("name", ["resnet18", "vt_resnet18"])
def test_copy_of_a_model_in_eval_mode_computes_the_same(name: str) -> None:
    model, images = build(name).eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(copy.deepcopy(model)(images), model(images))


# Sizes of images


@pytest.mark.parametrize("size", [(33, 47), (65, 97), (32, 200)])
def test_any_image_size_gives_one_logit_a_class(model: nn.Module, size: tuple[int, int]) -> None:
    assert model.eval()(torch.randn(2, 3, *size)).shape == (2, CLASSES)


@pytest.mark.parametrize("name", STRIDES)
def test_image_of_one_stride_is_taken(name: str) -> None:
    side = STRIDES[name]
    assert build(name).eval()(torch.randn(1, 3, side, side)).shape == (1, CLASSES)


@pytest.mark.parametrize("name", STRIDES)
@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_image_smaller_than_the_stride_is_refused_with_both_sizes(name: str, stem_stride: int) -> None:
    stride = STRIDES[name] * stem_stride // 4
    message = rf"images of {stride - 1} x 50 pixels are smaller than the backbone's stride of {stride};"
    with pytest.raises(ValueError, match=message):
        build(name, stem_stride=stem_stride)(torch.randn(1, 3, stride - 1, 50))


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (2, 64, 64, 3), (2, 3, 64), (1, 2, 3, 64, 64)])
def test_images_of_another_shape_are_refused_with_their_shape(model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"(batch, 3, height, width), got {shape}")):
        model(torch.randn(shape))


@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_stem_stride_sets_the_strides_of_resnets_stages(stem_stride: int) -> None:
    model = resnet18(num_classes=CLASSES, stem_stride=stem_stride).eval()
    calls = [recorded(getattr(model, f"layer{i}")) for i in range(1, 5)]
    model(torch.randn(1, 3, 64, 64))
    assert [64 // call[0][1].shape[-1] for call in calls] == [stem_stride * 2**i for i in range(4)]
    assert model.stage_strides == [stem_stride * 2**i for i in range(4)]


@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_stem_stride_sets_the_size_of_vt_resnets_feature_map(stem_stride: int) -> None:
    model = small_vt(stem_stride=stem_stride).eval()
    side = 64 // (4 * stem_stride)
    assert model.backbone(torch.randn(1, 3, 64, 64))["c4"].shape == (1, 256, side, side)


@pytest.mark.parametrize("name", STRIDES)
@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_stem_stride_changes_no_weight(name: str, stem_stride: int) -> None:
    assert shapes(build(name, stem_stride=stem_stride).state_dict()) == shapes(build(name).state_dict())


# Refused arguments


def test_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'resnet19'; choose one of resnet18, resnet34, resnet50, resnet101"):
        ResNet("resnet19")


@pytest.mark.parametrize("stem_stride", [0, 3, 8])
@pytest.mark.parametrize("name", STRIDES)
def test_other_stem_strides_are_refused_with_the_number(name: str, stem_stride: int) -> None:
    with pytest.raises(ValueError, match=rf"stem_stride={stem_stride} is not one of \(1, 2, 4\)"):
        build(name, stem_stride=stem_stride)


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
