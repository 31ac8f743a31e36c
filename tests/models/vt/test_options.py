"""Options and ablations of the visual token modules, against independent computations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_transformers.models import ResNetClassifier, VTResNet, vt_fpn
from visual_transformers.models.vt.layers import PointwiseConv, VTDesign
from visual_transformers.models.vt.modules import VTModule, VTPyramid
from visual_transformers.models.vt.projector import Projector
from visual_transformers.models.vt.tokenizers import (
    ClusteringTokenizer,
    FilterTokenizer,
    PoolingTokenizer,
    RecurrentTokenizer,
)
from visual_transformers.models.vt.transformer import GraphConvolution, TokenTransformer

SIZE, CHANNELS, TOKEN_CHANNELS = (6, 10), 8, 16


def pixels(batch: int = 2) -> Tensor:
    return torch.randn(batch, SIZE[0] * SIZE[1], CHANNELS, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def design(**changes: object) -> VTDesign:
    small = {"tokens": 4, "token_channels": TOKEN_CHANNELS, "group_width": None, "token_groups": 1}
    return VTDesign(**small | changes)  # type: ignore[arg-type]


# Tokenizers


@pytest.mark.parametrize("reassociate", [True, False])
def test_tokenizers_without_pixel_convolutions_follow_the_reference_implementations_equations(
    reassociate: bool,
) -> None:
    x, t = pixels(), torch.randn(2, 3, TOKEN_CHANNELS, dtype=torch.float64)
    options = design(tokens=3, pixel_convs=False, reassociate=reassociate)
    first = FilterTokenizer(options, CHANNELS).double()
    columns = x.mT
    attention = torch.softmax(first.filters.weight @ columns / math.sqrt(CHANNELS), dim=2)
    close(first(x, SIZE).mT, (first.embed.weight @ columns) @ attention.mT)
    later = RecurrentTokenizer(options, CHANNELS).double()
    filters = later.token_to_filter.weight @ t.mT
    attention = torch.softmax(filters.mT @ columns / math.sqrt(CHANNELS), dim=2)
    close(later(x, SIZE, t).mT, (later.embed.weight @ columns) @ attention.mT)


@pytest.mark.parametrize(("tokens", "grid"), [(6, (2, 3)), (16, (4, 4)), (32, (4, 8)), (5, (1, 5))])
def test_pooling_tokenizer_resizes_the_map_bilinearly(tokens: int, grid: tuple[int, int]) -> None:
    tokenizer, x = PoolingTokenizer(design(tokens=tokens, pixel_convs=False), CHANNELS).double(), pixels()
    resized = F.interpolate(x.mT.unflatten(2, SIZE), size=grid, mode="bilinear", align_corners=False)
    close(tokenizer(x, SIZE), resized.flatten(2).mT @ tokenizer.embed.weight.T)
    close(tokenizer.attention(x, SIZE).sum(dim=1), torch.ones(2, tokens, dtype=torch.float64))


def test_clustering_tokenizer_finds_the_centroids_of_a_plain_k_means() -> None:
    tokenizer, x = ClusteringTokenizer(design(), CHANNELS).double(), pixels(batch=1)
    found = tokenizer.centroids(x, SIZE)[0]
    points = [p / p.norm() for p in x[0]]
    start = F.interpolate(x.mT.unflatten(2, SIZE), size=(2, 2), mode="bilinear", align_corners=False)[0].flatten(1).T
    centroids = [c / c.norm() for c in start]
    for _ in range(tokenizer.steps):
        members: list[list[Tensor]] = [[] for _ in centroids]
        for p in points:
            members[max(range(4), key=lambda i: float(p @ centroids[i]))].append(p)
        sums = [torch.stack(m).sum(0) if m else c for m, c in zip(members, centroids, strict=True)]
        centroids = [s / s.norm() for s in sums]
    close(found, torch.stack(centroids))
    close(tokenizer.attention(x, SIZE)[0], torch.softmax(x[0] @ found.T, dim=0))


def test_a_cluster_without_pixels_keeps_its_centroid() -> None:
    tokenizer = ClusteringTokenizer(design(), 2)
    x = torch.tensor([1.0, 0.0]).expand(1, 16, 2)  # all pixels alike: three of four clusters stay empty
    assert torch.equal(tokenizer.centroids(x, (4, 4)), torch.tensor([1.0, 0.0]).expand(1, 4, 2))


def test_gradients_pass_the_clustering_tokenizer_but_not_its_centroids() -> None:
    tokenizer, x = ClusteringTokenizer(design(), CHANNELS).double(), pixels().requires_grad_()
    assert not tokenizer.centroids(x, SIZE).requires_grad
    tokenizer(x, SIZE).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


# Token modules


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_over_tokens_is_torchs_with_heads(heads: int) -> None:
    module, t = TokenTransformer(design(heads=heads)).double(), torch.randn(2, 5, TOKEN_CHANNELS).double()
    nn.init.zeros_(module.feed_2.weight)
    q, k, v = (
        (t @ conv.weight.T).unflatten(2, (heads, -1)).transpose(1, 2)
        for conv in (module.query, module.key, module.value)
    )
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    close(module(t), t + expected)


@pytest.mark.parametrize("reassociate", [True, False])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_projector_is_torchs_cross_attention_with_heads(heads: int, reassociate: bool) -> None:
    module = Projector(design(heads=heads, reassociate=reassociate), CHANNELS, CHANNELS).double()
    x, t = pixels(), torch.randn(2, 5, TOKEN_CHANNELS).double()
    q, k, v = (
        (source @ conv.weight.T).unflatten(2, (heads, -1)).transpose(1, 2)
        for source, conv in ((x, module.query), (t, module.key), (t, module.value))
    )
    close(module(x, t), x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_norms_of_the_graph_convolution_precede_its_branch_or_follow_its_convolution() -> None:
    t = torch.randn(2, 5, TOKEN_CHANNELS).double()
    for norm, expected in (
        ("pre", lambda m, normed: t + (normed(t) + m.adjacency @ normed(t)).relu() @ m.weight.weight.T),
        ("post", lambda m, normed: t + normed((t + m.adjacency @ t).relu() @ m.weight.weight.T)),
    ):
        module = GraphConvolution(design(norm=norm), 5).double()
        torch.testing.assert_close(module(t), expected(module, nn.LayerNorm(TOKEN_CHANNELS).double()))


def test_graph_convolution_follows_its_equation() -> None:
    module, t = GraphConvolution(design(), 5).double(), torch.randn(2, 5, TOKEN_CHANNELS).double()
    mixed = torch.stack([each + module.adjacency @ each for each in t])
    close(module(t), t + torch.relu(mixed) @ module.weight.weight.T)


@pytest.mark.parametrize(("heads", "near"), [(0, "1"), (3, "2 or 4"), (16, "8")])
def test_heads_that_do_not_divide_are_refused_with_the_next_numbers_that_do(heads: int, near: str) -> None:
    with pytest.raises(ValueError, match=rf"heads={heads} do not divide the 8 channels of .*; choose {near}$"):
        TokenTransformer(design(heads=heads))


# Norms, initialisation, stochastic depth


@pytest.mark.parametrize("pixel_convs", [True, False])
@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_re_associated_module_computes_the_literal_one_with_any_norm(norm: str, pixel_convs: bool) -> None:
    x, outputs = pixels(), []
    for reassociate in (True, False):
        torch.manual_seed(0)
        options = design(group_width=4, norm=norm, pixel_convs=pixel_convs, heads=2, reassociate=reassociate)
        first = VTModule(options, in_channels=CHANNELS, out_channels=16, tokenizer="first").double()
        second = VTModule(options, in_channels=16, out_channels=16, tokenizer="recurrent").double()
        projected, tokens = first(x, SIZE, None)
        outputs.append(torch.cat([y.flatten() for y in second(projected, SIZE, tokens)]))
    close(*outputs)


@pytest.mark.parametrize(("norm", "count"), [("none", 0), ("pre", 3), ("post", 8)])
def test_the_design_sets_the_number_of_norms(norm: str, count: int) -> None:
    module = VTModule(design(norm=norm), in_channels=8, out_channels=8, tokenizer="first")
    assert sum(isinstance(m, nn.LayerNorm) for m in module.modules()) == count


def test_pre_norm_normalises_the_input_of_the_attention() -> None:
    module, t = TokenTransformer(design(norm="pre")), torch.randn(2, 5, TOKEN_CHANNELS)
    plain = TokenTransformer(design())
    plain.load_state_dict(module.state_dict(), strict=False)
    normalised = F.layer_norm(t, (TOKEN_CHANNELS,))
    torch.testing.assert_close(module.attention(100 * t), plain.attention(normalised), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("torch", 1 / math.sqrt(3 * 400)),
        ("lecun", 1 / 20),
        ("xavier", math.sqrt(2 / (400 + 200))),
        ("kaiming", math.sqrt(2 / 400)),
    ],
)
def test_initialisation_has_the_deviation_of_its_name(init: str, deviation: float) -> None:
    convolution = PointwiseConv(400, 200)
    convolution.initialise(init)  # type: ignore[arg-type]
    assert convolution.weight.std().item() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("init", ["torch", "xavier"])
@pytest.mark.parametrize("scale_logits", [True, False])
def test_unit_filters_give_logits_of_unit_variance(init: str, scale_logits: bool) -> None:
    tokenizer = wide_tokenizer(init=init, scale_logits=scale_logits)
    logits = tokenizer.filters(torch.randn(1, 100, 256)) / (math.sqrt(256) if scale_logits else 1)
    assert logits.std().item() == pytest.approx(1, rel=0.05)


def test_filters_are_like_other_convolutions_without_unit_filters() -> None:
    tokenizer = wide_tokenizer(init="kaiming", unit_filters=False)
    assert tokenizer.filters.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)


def wide_tokenizer(**changes: object) -> nn.Module:
    options = design(tokens=64, group_width=64, **changes)
    return VTModule(options, in_channels=256, out_channels=None, tokenizer="first").tokenizer


def test_scale_logits_false_leaves_logits_unscaled() -> None:
    x, t = pixels(), torch.randn(2, 5, TOKEN_CHANNELS, dtype=torch.float64)
    plain = FilterTokenizer(design(tokens=3, scale_logits=False), CHANNELS).double()
    close(plain.attention(x, SIZE), torch.softmax(x @ plain.filters.weight.T, dim=1))
    mixer = TokenTransformer(design(heads=2, scale_logits=False)).double()
    q, k = ((t @ conv.weight.T).unflatten(2, (2, -1)).transpose(1, 2) for conv in (mixer.query, mixer.key))
    close(mixer.attention(t), torch.softmax(q @ k.mT, dim=3))
    projector = Projector(design(scale_logits=False), CHANNELS, CHANNELS).double()
    q, k = x @ projector.query.weight.T, t @ projector.key.weight.T
    close(projector.attention(x, t)[:, 0], torch.softmax(q @ k.mT, dim=2))


@pytest.mark.parametrize("token_module", ["transformer", "graph"])
@pytest.mark.parametrize("norm", ["none", "post"])
def test_zero_initialised_branches_leave_tokens_and_pixels_unchanged(token_module: str, norm: str) -> None:
    options = design(zero_init=True, token_module=token_module, norm=norm)
    module, x = VTModule(options, in_channels=8, out_channels=8, tokenizer="first"), pixels().float()
    after, tokens = module(x, SIZE, None)
    assert torch.equal(after, x)
    assert torch.equal(tokens, module.tokenizer(x, SIZE, None))
    ((after**2).sum() + (tokens**2).sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_zero_initialised_backbone_blocks_pass_their_skip() -> None:
    model = ResNetClassifier(num_classes=3, zero_init=True)
    block = model.layer1[0]
    x = torch.rand(2, 64, 8, 8)
    assert torch.equal(block(x), x)


def test_stochastic_depth_grows_linearly_from_the_first_block_to_the_last_module() -> None:
    model = VTResNet(num_classes=3, token_channels=32, stochastic_depth=0.4)
    blocks = [b.drop.p for stage in ("layer1", "layer2", "layer3") for b in model.backbone.get_submodule(stage)]
    modules = [m.transformer.drop.p for m in model.vt]
    assert [*blocks, *modules] == pytest.approx([0.4 * (i + 1) / 8 for i in range(8)])
    assert model.vt[0].projector.drop.p == model.vt[0].transformer.drop.p


def test_stochastic_depth_drops_whole_images_only_in_training() -> None:
    module = TokenTransformer(design(), drop=0.5)
    t = torch.randn(64, 3, TOKEN_CHANNELS)
    unchanged = (module(t) == t).all(dim=2).all(dim=1).float().mean().item()
    assert 0.1 < unchanged < 0.45  # both branches dropped: a quarter
    module.eval()
    assert not (module(t) == t).all(dim=2).any()


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_stochastic_depth_out_of_range_is_refused_with_the_number(rate: float) -> None:
    with pytest.raises(ValueError, match=f"stochastic_depth={rate}"):
        ResNetClassifier(num_classes=3, stochastic_depth=rate)


@pytest.mark.parametrize("model", [ResNetClassifier, VTResNet])
def test_dropout_changes_logits_only_in_training(model: type[nn.Module]) -> None:
    net, images = model(num_classes=3, dropout=0.9, stem_stride=2), torch.randn(4, 3, 32, 32)
    first, second = net(images), net(images)
    assert not torch.equal(first, second)
    net.eval()
    assert torch.equal(net(images), net(images))


# Whole models


COMBINATIONS = list(
    itertools.product(
        ["filter", "pooling", "clustering"], [True, False], ["transformer", "graph", "none"], [True, False]
    )
)


@pytest.mark.parametrize("tokens", [16, 32, 64])
@pytest.mark.parametrize(("tokenizer", "recurrent", "token_module", "projector"), COMBINATIONS)
def test_every_combination_of_the_ablations_trains_a_step(
    tokenizer: str, recurrent: bool, token_module: str, projector: bool, tokens: int
) -> None:
    model = VTResNet(
        num_classes=3, stem_stride=1, channels=64, token_channels=32, tokens=tokens, tokenizer=tokenizer,
        recurrent=recurrent, token_module=token_module, projector=projector,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images, labels = torch.randn(2, 3, 16, 16), torch.tensor([0, 2])
    before = F.cross_entropy(model(images), labels)
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert F.cross_entropy(model(images), labels) < before


def test_modules_without_a_projector_return_their_pixels_unchanged() -> None:
    model = VTResNet(num_classes=3, token_channels=32, modules=3, projector=False)
    assert [m.projector for m in model.vt] == [None] * 3
    x = torch.randn(1, 4, 256)
    assert model.vt[0](x, (2, 2), None)[0] is x


def test_modules_that_are_not_recurrent_have_separate_filters() -> None:
    model = VTResNet(num_classes=3, token_channels=32, modules=3, recurrent=False)
    assert all(isinstance(m.tokenizer, FilterTokenizer) for m in model.vt)
    assert len({m.tokenizer.filters.weight.data_ptr() for m in model.vt}) == 3


@pytest.mark.parametrize(("recurrent", "modules"), [(True, 3), (False, 1)])
def test_without_a_projector_and_recurrence_there_is_one_module(recurrent: bool, modules: int) -> None:
    assert len(VTResNet(token_channels=32, modules=3, projector=False, recurrent=recurrent).vt) == modules


def test_pyramid_keeps_the_channels_of_each_level() -> None:
    pyramid = VTPyramid(design(), [8, 16, 32])
    levels = [torch.randn(1, c, 4, 4) for c in (8, 16, 32)]
    assert [y.shape for y in pyramid(levels)] == [m.shape for m in levels]


def test_vt_fpn_without_pyramid_channels_has_no_laterals_and_no_top_down_sum() -> None:
    model = vt_fpn(num_classes=3, backbone="resnet18", pyramid_channels=None, token_channels=32).eval()
    maps = [torch.randn(1, c, 8 // 2**i, 8 // 2**i) for i, c in enumerate((64, 128, 256, 512))]
    changed = [*maps[:3], maps[3] + 1]
    model.pyramid.vt.projectors = nn.ModuleList(_Skip() for _ in maps)
    for before, after in zip(model.pyramid(maps)[:3], model.pyramid(changed)[:3], strict=True):
        assert torch.equal(before, after)


class _Skip(nn.Module):
    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        return pixels


def test_stride_in_the_1x1_convolution_changes_no_weight_and_no_size() -> None:
    ours = vt_fpn(num_classes=3, stride_in_1x1=True, token_channels=32).eval()
    theirs = vt_fpn(num_classes=3, stride_in_1x1=False, token_channels=32).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    for a, b in zip(ours.backbone(images).values(), theirs.backbone(images).values(), strict=True):
        assert a.shape == b.shape
    blocks = [stage[0] for stage in (ours.backbone.layer1, ours.backbone.layer2, ours.backbone.layer4)]
    assert [(b.conv1.stride[0], b.conv2.stride[0]) for b in blocks] == [(1, 1), (2, 1), (2, 1)]
