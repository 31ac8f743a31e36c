"""Attention of a model's visual tokens on an image: recorded by hooks, as numbers, and as a sheet of heat maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visual_transformers.inference.sliding_window import resize
from visual_transformers.models.vt.modules import VTModule, VTPyramid
from visual_transformers.plotting import image_plots

Arguments = dict[nn.Module, tuple[Any, ...]]
"""Arguments of the last call of each module."""


@dataclass(frozen=True)
class TokenStage:
    """Transformer and the named tokenizers whose tokens it mixes, in the order of their tokens.

    A VT-ResNet module has one tokenizer, the pyramid of a VT-FPN one per level.
    """

    names: tuple[str, ...]
    tokenizers: tuple[nn.Module, ...]
    transformer: nn.Module


@dataclass(frozen=True)
class TokenAttention:
    """Attention of the tokens of one VT module or pyramid level on one image.

    `attention` (L, H, W) sums to 1 over the pixels. So does `interaction` (L, H', W'): the share that each token takes,
    through all tokens, from each pixel; None if no transformer mixes the tokens.
    """

    name: str
    attention: Tensor
    interaction: Tensor | None


def find_token_stages(model: nn.Module) -> list[TokenStage]:
    """List the token stages of a model in the order of its layers; empty for a model without visual tokens."""
    stages: list[TokenStage] = []
    for module in model.modules():
        if isinstance(module, VTModule):
            stages.append(TokenStage((f"module {len(stages) + 1}",), (module.tokenizer,), module.transformer))
        elif isinstance(module, VTPyramid):
            names = tuple(f"level c{number}" for number, _ in enumerate(module.tokenizers, start=2))
            stages.append(TokenStage(names, tuple(module.tokenizers), module.transformer))
    return stages


@torch.inference_mode()
def compute_token_attention(
    forward: Callable[[Tensor], Tensor], stages: list[TokenStage], image: Tensor
) -> tuple[Tensor, list[TokenAttention]]:
    """Return the logits of an image (1, 3, H, W), without the batch dimension, and the attention of every stage.

    Args:
        forward: calls the model that the stages belong to.
        stages: from `find_token_stages`.
        image: input of the model.
    """
    modules = [module for stage in stages for module in (*stage.tokenizers, stage.transformer)]
    with record_arguments(modules) as arguments:
        logits = forward(image)[0]
    return logits, [attention for stage in stages for attention in compute_stage_attention(stage, arguments)]


@contextmanager
def record_arguments(modules: list[nn.Module]) -> Iterator[Arguments]:
    """Record the arguments of the modules' calls inside the context."""
    recorded: Arguments = {}

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        recorded[module] = arguments

    handles = [module.register_forward_pre_hook(record) for module in modules]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def compute_stage_attention(stage: TokenStage, arguments: Arguments) -> list[TokenAttention]:
    """Compute the attention of each tokenizer of a stage on the first image of the batch."""
    maps = []
    for tokenizer in stage.tokenizers:
        _, (height, width), *_ = arguments[tokenizer]
        attention = _compute_attention(tokenizer, arguments[tokenizer])[0]  # (HW, L)
        maps.append(attention.T.unflatten(1, (int(height), int(width))))
    interactions: list[Tensor | None] = [None] * len(maps)
    if hasattr(stage.transformer, "attention"):  # a graph convolution or an identity has none
        mixing = _compute_attention(stage.transformer, arguments[stage.transformer])[0].mean(dim=0)
        interactions = [*_compute_interaction(maps, mixing)]
    return [TokenAttention(*fields) for fields in zip(stage.names, maps, interactions, strict=True)]


def _compute_attention(module: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
    """Return the attention of a module, computed in float32 whatever the precision of the forward pass."""
    exact = (a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)
    attention: Callable[..., Tensor] = getattr(module, "attention")  # noqa: B009 (a type checker sees a submodule)
    return attention(*exact).double().cpu()


def _compute_interaction(maps: list[Tensor], mixing: Tensor) -> list[Tensor]:
    """Sum W[l, l'] A_l' over all tokens l' for each token l, at the largest level's size.

    `maps` holds the attention A (L_i, H_i, W_i) of each level, `mixing` the transformer's attention W over the tokens
    of all levels (sum L_i, sum L_i).
    """
    height, width = (max(side) for side in zip(*(m.shape[1:] for m in maps), strict=True))
    resized = torch.cat([resize_density(m, height, width) for m in maps])
    mixed = torch.einsum("lm,mhw->lhw", mixing, resized)
    return list(mixed.split([len(m) for m in maps]))


def resize_density(maps: Tensor, height: int, width: int) -> Tensor:
    """Resize maps (L, h, w) to (L, H, W) and keep the sum of each."""
    resized = resize(maps[None], (height, width))[0]
    return resized * (maps.sum(dim=(1, 2), keepdim=True) / resized.sum(dim=(1, 2), keepdim=True))


def entropy(maps: Tensor) -> Tensor:
    """Entropy in nats of each map (..., H, W) that sums to 1: ln(HW) for a uniform map, 0 for a single pixel."""
    return torch.special.entr(maps).sum(dim=(-2, -1))


def summarize(tokens: TokenAttention) -> dict[str, Any]:
    """Return entropies in nats, and the peak of each token as [row, column] of the map of `size` (height, width)."""
    height, width = tokens.attention.shape[1:]
    entropies = entropy(tokens.attention)
    peaks = tokens.attention.flatten(1).argmax(dim=1).tolist()
    return {
        "name": tokens.name,
        "size": [height, width],
        "uniform_entropy": math.log(height * width),
        "mean_entropy": float(entropies.mean()),
        "tokens": [
            {"entropy": value, "peak": list(divmod(peak, width))}
            for value, peak in zip(entropies.tolist(), peaks, strict=True)
        ],
    }


def draw_sheet(path: Path, image: NDArray[np.uint8], title: str, attentions: list[TokenAttention]) -> None:
    """Draw attention and interaction of every token over the model's input image (H, W, 3)."""
    rows = []
    for attention in attentions:
        summary = summarize(attention)
        captions = [f"{i}: {token['entropy']:.3f}" for i, token in enumerate(summary["tokens"], start=1)]
        heading = f"{attention.name}, attention\nmean {summary['mean_entropy']:.3f} of {summary['uniform_entropy']:.3f}"
        rows.append(image_plots.HeatMapRow(heading, [*attention.attention.numpy()], captions))
        if attention.interaction is not None:
            captions = [str(i) for i, _ in enumerate(captions, start=1)]
            rows.append(image_plots.HeatMapRow("interaction", [*attention.interaction.numpy()], captions))
    tokens = max(len(attention.attention) for attention in attentions)
    if tokens > image_plots.MAX_TOKENS:
        title += f"; the first {image_plots.MAX_TOKENS} of {tokens} tokens"
    title += "\nEach token's number is followed by the entropy of its attention in nats; their mean by a uniform map's."
    title += "\nEach map has its own colours: red is its highest value, blue its lowest; a nearly uniform map is green."
    image_plots.plot_token_sheet(path, image, title, rows)
