"""The visual token modules against the paper's equations, computed literally: every pixel is convolved first."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_transformers.models.vt.layers import PointwiseConv, VTDesign
from visual_transformers.models.vt.modules import VTModule, VTPyramid, to_pixels
from visual_transformers.models.vt.projector import Projector
from visual_transformers.models.vt.tokenizers import FilterTokenizer, RecurrentTokenizer
from visual_transformers.models.vt.transformer import TokenTransformer

BATCH, PIXELS, CHANNELS, TOKENS, TOKEN_CHANNELS = 2, 15, 8, 3, 12
SIZE = (3, 5)
WAYS = pytest.mark.parametrize("reassociate", [True, False], ids=["re-associated", "literal"])

Weights = dict[str, Tensor]
M = TypeVar("M", bound=nn.Module)


# The oracles use columns like the reference implementation: X is (B, C, HW), T is (B, C_T, L).


def conv(x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    return F.conv1d(x, weight[:, :, None], groups=groups)


def select(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in w.items() if name.startswith(prefix)}


def filter_tokens(w: Weights, x: Tensor, groups: int) -> Tensor:
    attention = torch.softmax(conv(x, w["filters.weight"]) / math.sqrt(x.shape[1]), dim=2)  # (B, L, HW)
    return conv(conv(x, w["value.weight"], groups), w["embed.weight"]) @ attention.mT


def recurrent_tokens(w: Weights, x: Tensor, t: Tensor, groups: int) -> Tensor:
    filters = conv(t, w["token_to_filter.weight"])  # (B, C, L)
    keys = conv(x, w["key.weight"], groups)  # (B, C, HW)
    attention = torch.softmax(filters.mT @ keys / math.sqrt(x.shape[1]), dim=2)  # (B, L, HW)
    return conv(conv(x, w["value.weight"], groups), w["embed.weight"]) @ attention.mT


def transform(w: Weights, t: Tensor, groups: int) -> Tensor:
    keys, queries = conv(t, w["key.weight"], groups), conv(t, w["query.weight"], groups)
    attention = torch.softmax(keys.mT @ queries / math.sqrt(t.shape[1] / 2), dim=1)  # (B, keys, queries)
    t = t + conv(t, w["value.weight"], groups) @ attention
    return t + conv(torch.relu(conv(t, w["feed_1.weight"])), w["feed_2.weight"])


def project(w: Weights, x: Tensor, t: Tensor, groups: int) -> Tensor:
    queries, keys = conv(x, w["query.weight"], groups), conv(t, w["key.weight"])
    attention = torch.softmax(queries.mT @ keys / math.sqrt(queries.shape[1]), dim=2)  # (B, HW, L)
    skip = conv(x, w["skip.weight"]) if "skip.weight" in w else x
    return skip + conv(t, w["value.weight"]) @ attention.mT


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def pixels(channels: int = CHANNELS, batch: int = BATCH) -> Tensor:
    return rows(batch, PIXELS, channels)


def tokens(batch: int = BATCH) -> Tensor:
    return rows(batch, TOKENS, TOKEN_CHANNELS)


def design(groups: int = 1, **options: int | bool) -> VTDesign:
    """Options for small modules, with this number of groups of `CHANNELS` pixel channels."""
    small = {"tokens": TOKENS, "token_channels": TOKEN_CHANNELS, "group_width": CHANNELS // groups, "token_groups": 1}
    return VTDesign(**small | options)


def randomise(module: M) -> M:
    """Return the module in float64, with weights that keep the scale of their input: no attention is near uniform."""
    module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return module


def assert_same_function(
    module: nn.Module,
    actual: Callable[..., Sequence[Tensor]],
    oracle: Callable[..., Sequence[Tensor]],
    *inputs: Tensor,
) -> None:
    """Compare outputs and the gradients of the inputs and every parameter of `module` to 1e-10."""
    leaves = [x.requires_grad_() for x in inputs]
    weights = dict(module.named_parameters())
    outputs, expected = actual(*leaves), oracle(weights, *leaves)
    directions = [torch.randn_like(y) for y in expected]
    wanted = [*leaves, *weights.values()]
    gradients, expected_gradients = (
        torch.autograd.grad(sum((y * d).sum() for y, d in zip(ys, directions, strict=True)), wanted)
        for ys in (outputs, expected)
    )
    names = [*(f"input {i}" for i in range(len(leaves))), *weights]
    for y, e in zip(outputs, expected, strict=True):
        torch.testing.assert_close(y, e, rtol=1e-10, atol=1e-10)
    for name, g, e in zip(names, gradients, expected_gradients, strict=True):
        assert e.abs().max() > 1e-3, f"{name}: the gradient is too small to tell anything"
        torch.testing.assert_close(g, e, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"gradient of {n}: {m}")


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pointwise_conv_is_a_grouped_convolution(groups: int) -> None:
    module = randomise(PointwiseConv(8, 12, groups))
    assert_same_function(
        module, lambda x: [module(x)], lambda w, x: [conv(x.mT, w["weight"], groups).mT], pixels(channels=8)
    )


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolve_transposed_is_its_adjoint(groups: int) -> None:
    module = randomise(PointwiseConv(8, 12, groups))
    x, y = pixels(channels=8), pixels(channels=12)
    torch.testing.assert_close(
        (module(x) * y).sum(), (x * module.convolve_transposed(y)).sum(), rtol=1e-10, atol=1e-10
    )  # <W x, y> = <x, W^T y>


@WAYS
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_filter_tokenizer_follows_its_equation(groups: int, reassociate: bool) -> None:
    module = randomise(FilterTokenizer(design(groups, reassociate=reassociate), CHANNELS))
    assert_same_function(
        module, lambda x: [module(x, SIZE)], lambda w, x: [filter_tokens(w, x.mT, groups).mT], pixels()
    )


@WAYS
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_recurrent_tokenizer_follows_its_equation(groups: int, reassociate: bool) -> None:
    module = randomise(RecurrentTokenizer(design(groups, reassociate=reassociate), CHANNELS))
    assert_same_function(
        module,
        lambda x, t: [module(x, SIZE, t)],
        lambda w, x, t: [recurrent_tokens(w, x.mT, t.mT, groups).mT],
        pixels(),
        tokens(),
    )


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_transformer_follows_its_equations(groups: int) -> None:
    module = randomise(TokenTransformer(design(token_groups=groups)))
    assert_same_function(module, lambda t: [module(t)], lambda w, t: [transform(w, t.mT, groups).mT], tokens())


@WAYS
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("out_channels", [CHANNELS, 2 * CHANNELS], ids=["same channels", "more channels"])
def test_projector_follows_its_equation(groups: int, out_channels: int, reassociate: bool) -> None:
    module = randomise(Projector(design(groups, reassociate=reassociate), CHANNELS, out_channels))
    assert_same_function(
        module,
        lambda x, t: [module(x, t)],
        lambda w, x, t: [project(w, x.mT, t.mT, groups).mT],
        pixels(),
        tokens(),
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_chain_of_three_modules_follows_the_equations(groups: int) -> None:
    sizes = [(8, 16), (16, 16), (16, None)]
    options = design(groups, token_groups=groups)
    chain = randomise(
        nn.ModuleList(
            VTModule(options, in_channels=before, out_channels=after, tokenizer="recurrent" if i else "first")
            for i, (before, after) in enumerate(sizes)
        )
    )

    def actual(x: Tensor) -> list[Tensor]:
        x1, t1 = chain[0](x, SIZE, None)
        x2, t2 = chain[1](x1, SIZE, t1)
        x3, t3 = chain[2](x2, SIZE, t2)
        assert x3 is x2
        return [x1, t1, x2, t2, t3]

    def oracle(w: Weights, x: Tensor) -> list[Tensor]:
        x0, fine = x.mT, 2 * groups
        t1 = transform(select(w, "0.transformer."), filter_tokens(select(w, "0.tokenizer."), x0, groups), groups)
        x1 = project(select(w, "0.projector."), x0, t1, groups)
        t2 = transform(select(w, "1.transformer."), recurrent_tokens(select(w, "1.tokenizer."), x1, t1, fine), groups)
        x2 = project(select(w, "1.projector."), x1, t2, fine)
        t3 = transform(select(w, "2.transformer."), recurrent_tokens(select(w, "2.tokenizer."), x2, t2, fine), groups)
        return [y.mT for y in (x1, t1, x2, t2, t3)]

    assert_same_function(chain, actual, oracle, pixels())


def small_pyramid(groups: int = 2, token_groups: int = 2) -> VTPyramid:
    return randomise(VTPyramid(design(groups, token_groups=token_groups), [CHANNELS] * 3))


def pyramid_levels(batch: int = BATCH) -> list[Tensor]:
    return [rows(batch, CHANNELS, *size) for size in ((4, 6), (2, 3), (1, 2))]


@pytest.mark.parametrize(("groups", "token_groups"), [(1, 1), (4, 3)])
def test_pyramid_follows_the_equations(groups: int, token_groups: int) -> None:
    pyramid = small_pyramid(groups, token_groups)

    def oracle(w: Weights, *levels: Tensor) -> list[Tensor]:
        xs = [level.reshape(BATCH, CHANNELS, -1) for level in levels]
        each = [filter_tokens(select(w, f"tokenizers.{i}."), x, groups) for i, x in enumerate(xs)]
        t = transform(select(w, "transformer."), torch.cat(each, dim=2), token_groups)
        return [
            project(select(w, f"projectors.{i}."), x, t[:, :, TOKENS * i : TOKENS * (i + 1)], groups).reshape(m.shape)
            for i, (x, m) in enumerate(zip(xs, levels, strict=True))
        ]

    assert_same_function(pyramid, lambda *levels: pyramid(levels), oracle, *pyramid_levels())


# Mistakes seen in other implementations


def assert_sums_to_one(attention: Tensor, dim: int, shape: tuple[int, ...]) -> None:
    assert attention.shape == shape
    assert (attention > 0).all()
    torch.testing.assert_close(attention.sum(dim), torch.ones_like(attention.sum(dim)), rtol=1e-12, atol=0)
    others = [d for d in range(1, attention.ndim) if d != dim and attention.shape[d] > 1]
    assert all((attention.sum(d) - 1).abs().max() > 0.1 for d in others)


def test_filter_tokenizer_attention_sums_to_one_over_pixels() -> None:
    module = randomise(FilterTokenizer(design(), CHANNELS))
    assert_sums_to_one(module.attention(pixels(), SIZE), 1, (BATCH, PIXELS, TOKENS))


def test_recurrent_tokenizer_attention_sums_to_one_over_pixels() -> None:
    module = randomise(RecurrentTokenizer(design(2), CHANNELS))
    assert_sums_to_one(module.attention(pixels(), SIZE, tokens()), 1, (BATCH, PIXELS, TOKENS))


def test_transformer_attention_sums_to_one_over_keys() -> None:
    module = randomise(TokenTransformer(design(token_groups=2)))
    assert_sums_to_one(module.attention(tokens()), 3, (BATCH, 1, TOKENS, TOKENS))


def test_transformer_attention_row_answers_one_query() -> None:
    module, t = randomise(TokenTransformer(design())), tokens(batch=1)
    nn.init.zeros_(module.key.weight)
    with torch.no_grad():
        module.key.weight[0, 0] = module.query.weight[0, 0] = 1.0  # logits: product of the tokens' first channels
    logits = t[0, :, :1] @ module.key.weight[:1, :1] @ (t[0] @ module.query.weight[0])[None, :]  # (keys, queries)
    expected = torch.softmax(logits.T / math.sqrt(TOKEN_CHANNELS / 2), dim=1)
    torch.testing.assert_close(module.attention(t)[0, 0], expected, rtol=1e-10, atol=1e-10)


def test_projector_attention_sums_to_one_over_tokens() -> None:
    module = randomise(Projector(design(2), CHANNELS, 2 * CHANNELS))
    assert_sums_to_one(module.attention(pixels(), tokens()), 3, (BATCH, 1, PIXELS, TOKENS))


def small_module(*, recurrent: bool) -> VTModule:
    tokenizer = "recurrent" if recurrent else "first"
    return randomise(
        VTModule(design(2, token_groups=2), in_channels=CHANNELS, out_channels=2 * CHANNELS, tokenizer=tokenizer)
    )


@pytest.mark.parametrize("recurrent", [False, True])
def test_permuting_pixels_permutes_a_modules_pixels_and_leaves_its_tokens_unchanged(recurrent: bool) -> None:
    module, x, order = small_module(recurrent=recurrent), pixels(), torch.randperm(PIXELS)
    before = tokens() if recurrent else None
    permuted, plain = module(x[:, order], SIZE, before), module(x, SIZE, before)
    torch.testing.assert_close(permuted[0], plain[0][:, order], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(permuted[1], plain[1], rtol=1e-10, atol=1e-10)


def test_a_first_tokenizer_that_needs_the_tokens_of_another_module_is_refused() -> None:
    options = VTDesign(tokenizer="recurrent")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="recurrent"):
        VTModule(options, in_channels=64, out_channels=None, tokenizer="first")
    with pytest.raises(KeyError, match="recurrent"):
        VTPyramid(options, [64])


def test_permuting_tokens_permutes_the_transformers_output() -> None:
    module, t, order = randomise(TokenTransformer(design(token_groups=2))), tokens(), torch.tensor([2, 0, 1])
    torch.testing.assert_close(module(t[:, order]), module(t)[:, order], rtol=1e-10, atol=1e-10)


def test_to_pixels_flattens_rows_and_keeps_the_channels_of_each_pixel() -> None:
    feature_map = rows(BATCH, CHANNELS, 3, 5)
    flat = to_pixels(feature_map)
    assert flat.shape == (BATCH, 15, CHANNELS)
    assert all(torch.equal(flat[:, 5 * y + x], feature_map[:, :, y, x]) for y in range(3) for x in range(5))


@pytest.mark.parametrize("turn", [lambda m: m.flip(2), lambda m: m.flip(3), lambda m: m.mT], ids=["tb", "lr", "hw"])
def test_pyramid_turns_with_its_feature_maps(turn: Callable[[Tensor], Tensor]) -> None:
    pyramid, levels = small_pyramid(), pyramid_levels()
    for actual, plain in zip(pyramid([turn(m) for m in levels]), pyramid(levels), strict=True):
        torch.testing.assert_close(actual, turn(plain), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("recurrent", [False, True])
def test_module_processes_every_image_of_a_batch_independently(recurrent: bool) -> None:
    module, x = small_module(recurrent=recurrent), pixels(batch=3)
    before = tokens(batch=3) if recurrent else None
    whole = module(x, SIZE, before)
    single = [module(x[i : i + 1], SIZE, None if before is None else before[i : i + 1]) for i in range(3)]
    for w, parts in zip(whole, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(w, torch.cat(parts), rtol=1e-10, atol=1e-10)


def test_pyramid_processes_every_image_of_a_batch_independently() -> None:
    pyramid, levels = small_pyramid(), pyramid_levels(batch=3)
    single = [pyramid([m[i : i + 1] for m in levels]) for i in range(3)]
    for whole, parts in zip(pyramid(levels), zip(*single, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("out_channels", [16, None])
def test_module_changes_the_pixels_only_with_out_channels(out_channels: int | None) -> None:
    module, x = (
        VTModule(design(2, token_groups=2), in_channels=8, out_channels=out_channels, tokenizer="first"),
        pixels().float(),
    )
    after, _ = module(x, SIZE, None)
    assert (after is x) == (out_channels is None)


@pytest.mark.parametrize("group_width", [0, -4, 3, 16])
def test_group_width_that_does_not_divide_the_channels_is_refused(group_width: int) -> None:
    with pytest.raises(ValueError, match=rf"group_width={group_width} does not divide 8 channels"):
        VTDesign(group_width=group_width).count_groups(8)


def test_group_width_counts_channels_of_a_group() -> None:
    assert [VTDesign(group_width=width).count_groups(512) for width in (64, 512, 1, None)] == [8, 1, 512, 1]


def test_groups_that_do_not_divide_are_refused_with_the_divisor_to_use() -> None:
    with pytest.raises(ValueError, match="3 groups do not divide 8 input and 12 output channels; use a divisor of 4"):
        PointwiseConv(8, 12, groups=3)


@pytest.mark.parametrize("sizes", [(0, 4, 1), (4, 0, 1), (4, 4, 0), (4, -4, 1), (4, 4, -1)])
def test_sizes_below_one_are_refused_with_the_numbers(sizes: tuple[int, int, int]) -> None:
    before, after, groups = sizes
    with pytest.raises(ValueError, match=f"{before} input and {after} output channels in {groups} groups"):
        PointwiseConv(before, after, groups)
