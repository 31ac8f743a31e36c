"""The segmenters: pyramids and branch against independent ones, costs, regularisation and arguments."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import FeaturePyramidNetwork, StochasticDepth

from visual_transformers.models import panoptic_fpn, vt_fpn
from visual_transformers.models.fpn import LEVELS, SemanticBranch, SemanticFPN
from visual_transformers.models.resnet import STEM_STRIDES

CLASSES = 5
BUILDERS = {"panoptic_fpn": panoptic_fpn, "vt_fpn": vt_fpn}
SMALL = {"num_classes": CLASSES, "backbone": "resnet18", "pyramid_channels": 32, "branch_channels": 64}
SMALL_TOKENS = {"tokens": 4, "token_channels": 32, "group_width": 8}
R18_CHANNELS = (64, 128, 256, 512)
R50_CHANNELS = (256, 512, 1024, 2048)


def build(name: str, **changes: object) -> SemanticFPN:
    return BUILDERS[name](**SMALL | (SMALL_TOKENS if name == "vt_fpn" else {}) | changes)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def feature_maps(channels: tuple[int, ...], height: int, width: int, batch: int = 1) -> list[Tensor]:
    """Random C2 to C5 of an image of this size."""
    return [torch.randn(batch, c, height // s, width // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]


def forward_macs(module: nn.Module, levels: list[Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        module(levels)
    return counter.get_total_flops() // 2


def paper_levels(channels: tuple[int, ...]) -> list[Tensor]:
    with torch.device("meta"):
        return feature_maps(channels, 800, 1216)


# The pyramids and the branch against independent ones


def test_panoptic_fpns_pyramid_is_torchvisions() -> None:
    ours, theirs = build("panoptic_fpn").pyramid, FeaturePyramidNetwork(list(R18_CHANNELS), 32)
    theirs.load_state_dict({name.removeprefix("fpn."): t for name, t in ours.state_dict().items()})
    levels = feature_maps(R18_CHANNELS, 96, 64, batch=2)
    expected = theirs(dict(zip(LEVELS, levels, strict=True)))
    for p, e in zip(ours(levels), expected.values(), strict=True):
        torch.testing.assert_close(p, e)


def test_vt_fpns_pyramid_sums_its_projected_laterals_top_down() -> None:
    pyramid, levels = build("vt_fpn").pyramid, feature_maps(R18_CHANNELS, 96, 160, batch=2)
    c2, c3, c4, c5 = pyramid.vt(
        [F.conv2d(c, lateral.weight, lateral.bias) for lateral, c in zip(pyramid.laterals, levels, strict=True)]
    )
    p5 = c5
    p4 = c4 + F.interpolate(p5, c4.shape[2:], mode="bilinear")
    p3 = c3 + F.interpolate(p4, c3.shape[2:], mode="bilinear")
    p2 = c2 + F.interpolate(p3, c2.shape[2:], mode="bilinear")
    for p, e in zip(pyramid(levels), (p2, p3, p4, p5), strict=True):
        torch.testing.assert_close(p, e)


def test_semantic_branch_is_the_published_one() -> None:
    branch = SemanticBranch([16] * 4, 64, CLASSES)
    levels = feature_maps((16, 16, 16, 16), 64, 96, batch=2)
    w = dict(branch.named_parameters())
    for parameter in w.values():
        nn.init.normal_(parameter, std=0.2)

    def stage(x: Tensor, prefix: str) -> Tensor:
        x = F.conv2d(x, w[f"{prefix}.0.weight"], padding=1)
        return F.relu(F.group_norm(x, 32, w[f"{prefix}.1.weight"], w[f"{prefix}.1.bias"]))

    def doubled(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    p2, p3, p4, p5 = levels
    total = stage(p2, "stages.0.0")
    total = total + doubled(stage(p3, "stages.1.0"))
    total = total + doubled(stage(doubled(stage(p4, "stages.2.0")), "stages.2.1"))
    total = total + doubled(stage(doubled(stage(doubled(stage(p5, "stages.3.0")), "stages.3.1")), "stages.3.2"))
    expected = F.conv2d(total, w["classifier.weight"], w["classifier.bias"])
    torch.testing.assert_close(branch(levels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_logits_are_the_branchs_interpolated_to_the_images_size(name: str) -> None:
    model = build(name).eval()
    images = torch.randn(1, 3, 65, 97)
    features = model.backbone(images)
    at_stride_4 = model.branch(model.pyramid([features[level] for level in LEVELS]))
    torch.testing.assert_close(
        model(images), F.interpolate(at_stride_4, (65, 97), mode="bilinear", align_corners=False)
    )


@pytest.mark.parametrize("name", BUILDERS)
def test_backbone_is_torchvisions_up_to_layer4(name: str) -> None:
    theirs, ours, images = torchvision.models.resnet18().eval(), build(name).eval(), torch.randn(1, 3, 65, 97)
    ours.backbone.load_state_dict({n: t for n, t in theirs.state_dict().items() if not n.startswith("fc.")})
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    features = ours.backbone(images)
    for level, layer in zip(LEVELS, (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True):
        x = layer(x)
        torch.testing.assert_close(features[level], x)


# Parameters and MACs


def backbone_hand_count() -> int:
    theirs = torchvision.models.resnet50()
    return parameters(theirs) - parameters(theirs.fc)


LATERALS = sum(c * 256 + 256 for c in R50_CHANNELS)
BRANCH_91 = 4 * 9 * 256 * 128 + 3 * 9 * 128 * 128 + 7 * 2 * 128 + 128 * 91 + 91  # stages, norms, classifier


def test_panoptic_fpn_has_the_hand_counted_parameters() -> None:
    with torch.device("meta"):
        hand_count = backbone_hand_count() + LATERALS + 4 * (9 * 256 * 256 + 256) + BRANCH_91
        assert parameters(panoptic_fpn(num_classes=91)) == hand_count


def test_vt_fpn_has_the_hand_counted_parameters() -> None:
    tokenizer = 256 * 8 + 256 * 256 // 32 + 256 * 1024  # W_A, value in 256 / 8 groups, embedding
    projector = 256 * 256 // 32 + 2 * 1024 * 256  # query in groups, key and value
    transformer = (2 * 1024 * 512 + 1024 * 1024) // 4 + 2 * 1024 * 1024  # K, Q, V in 4 groups, F_1 and F_2
    with torch.device("meta"):
        hand_count = backbone_hand_count() + LATERALS + 4 * (tokenizer + projector) + transformer + BRANCH_91
        assert parameters(vt_fpn(num_classes=91)) == hand_count


@pytest.mark.parametrize(
    ("builder", "options", "macs", "tolerance"),
    [(panoptic_fpn, {}, 55.1e9, 1e-3), (vt_fpn, {"reassociate": False}, 8.5e9, 0.03)],
    ids=BUILDERS,
)
def test_the_pyramid_costs_the_papers_macs(
    builder: Callable[..., SemanticFPN], options: dict[str, bool], macs: float, tolerance: float
) -> None:
    with torch.device("meta"):
        pyramid = builder(num_classes=91, **options).pyramid
        assert forward_macs(pyramid, paper_levels(R50_CHANNELS)) == pytest.approx(macs, rel=tolerance)


def test_reassociation_makes_the_pyramid_cheaper_than_in_the_paper() -> None:
    with torch.device("meta"):
        assert 7.47e9 < forward_macs(vt_fpn(num_classes=91).pyramid, paper_levels(R50_CHANNELS)) < 8.5e9


def test_semantic_branch_costs_the_papers_macs() -> None:
    with torch.device("meta"):
        branch = panoptic_fpn(num_classes=91).branch
        assert forward_macs(branch, paper_levels((256,) * 4)) == pytest.approx(29.3e9, rel=0.01)


# Wiring of the token transformer


@pytest.mark.parametrize("layer", ["key", "query", "value", "feed_1", "feed_2"])
def test_logits_depend_on_every_layer_of_the_transformer(layer: str) -> None:
    model, images = build("vt_fpn").double().eval(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = model(images)
    nn.init.normal_(getattr(model.pyramid.vt.transformer, layer).weight)
    assert not torch.equal(model(images), before)


def test_one_transformer_mixes_the_tokens_of_all_levels() -> None:
    pyramid, levels = build("vt_fpn").pyramid.vt, [torch.randn(1, 32, side, side) for side in (8, 4, 2, 1)]
    before = pyramid(levels)
    after = pyramid([*levels[:3], levels[3] + 1])
    assert all((a - b).abs().max() > 1e-6 for a, b in zip(after[:3], before[:3], strict=True))


# Regularisation


def drop_rates(module: nn.Module) -> list[float]:
    """List the stochastic-depth rate of every residual branch in the order of the layers."""
    return [m.p for m in module.modules() if isinstance(m, StochasticDepth)]


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(
    "setting", [{"dropout": 0.5}, {"stochastic_depth": 0.5}], ids=lambda setting: next(iter(setting))
)
def test_regularisation_changes_training_and_not_evaluation(name: str, setting: dict[str, float]) -> None:
    regular, plain = build(name, **setting), build(name)
    regular.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 64, 64)
    assert not torch.allclose(regular.train()(images), plain.train()(images), atol=1e-3)
    plain.load_state_dict(regular.state_dict())
    assert torch.equal(regular.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_zeroes_whole_channels_of_the_sum_before_the_classifier(p: float) -> None:
    branch = SemanticBranch([16] * 4, 64, CLASSES, dropout=p).train()
    logits = branch(feature_maps((16,) * 4, 64, 96))
    bias = branch.classifier.bias[:, None, None].expand_as(logits[0])
    assert torch.equal(logits[0], bias) == (p == 1.0)
    assert isinstance(branch.dropout, nn.Dropout2d)


def test_stochastic_depth_grows_linearly_to_the_last_block_or_to_the_vt_modules() -> None:
    blocks = 8
    expected = [0.4 * i / blocks for i in range(1, blocks + 1)]
    assert drop_rates(build("panoptic_fpn", stochastic_depth=0.4)) == pytest.approx(expected)
    model = build("vt_fpn", stochastic_depth=0.4)
    assert drop_rates(model.backbone) == pytest.approx([0.4 * i / (blocks + 1) for i in range(1, blocks + 1)])
    assert drop_rates(model.pyramid) == pytest.approx([0.4] * 5)  # the transformer and the projector of each level


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("setting", [{"dropout": 1.5}, {"stochastic_depth": 1.0}])
def test_rates_out_of_range_are_refused_with_the_number(name: str, setting: dict[str, float]) -> None:
    [value] = setting.values()
    with pytest.raises(ValueError, match=re.escape(str(value))):
        build(name, **setting)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_stem_stride_sets_the_sizes_of_the_feature_maps(name: str, stem_stride: int) -> None:
    features = build(name, stem_stride=stem_stride).eval().backbone(torch.randn(1, 3, 64, 64))
    strides = [64 // features[level].shape[-1] for level in LEVELS]
    assert strides == [stem_stride * 2**i for i in range(4)]


# Arguments


def test_group_width_that_does_not_divide_is_refused_with_the_number() -> None:
    with pytest.raises(ValueError, match=r"group_width=7 does not divide 32 channels"):
        build("vt_fpn", group_width=7)


@pytest.mark.parametrize("name", BUILDERS)
def test_branch_channels_that_do_not_divide_are_refused_with_the_number(name: str) -> None:
    with pytest.raises(ValueError, match=r"33.*32"):
        build(name, branch_channels=33)
