"""Where the visual tokens of a model look on an image: read by hooks, as numbers, and as a sheet of heat maps."""

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

from visual_transformers.inference.sliding_window import resized
from visual_transformers.models.vt.modules import VTModule, VTPyramid
from visual_transformers.plotting import image_plots

Arguments = dict[nn.Module, tuple[Any, ...]]
"""What each module was last called with."""


@dataclass(frozen=True)
class TokenStage:
    """A transformer and the tokenizers whose tokens it mixes, each with a name: one in a VT-ResNet, the levels' in a
    VT-FPN, in the order of their tokens.
    """

    names: tuple[str, ...]
    tokenizers: tuple[nn.Module, ...]
    transformer: nn.Module


@dataclass(frozen=True)
class Looks:
    """Where the tokens of one VT module or pyramid level look on one image.

    `attention` is (L, H, W) and sums to 1 over the pixels. `interaction` (L, H', W') does too: how much each token
    takes, through all tokens, from each pixel; None where the tokens are not mixed by a transformer.
    """

    name: str
    attention: Tensor
    interaction: Tensor | None


def token_stages(model: nn.Module) -> list[TokenStage]:
    """The token stages of a model, in the order of its layers; none of a model without visual tokens."""
    stages: list[TokenStage] = []
    for module in model.modules():
        if isinstance(module, VTModule):
            stages.append(TokenStage((f"module {len(stages) + 1}",), (module.tokenizer,), module.transformer))
        elif isinstance(module, VTPyramid):
            names = tuple(f"level c{number}" for number, _ in enumerate(module.tokenizers, start=2))
            stages.append(TokenStage(names, tuple(module.tokenizers), module.transformer))
    return stages


@torch.inference_mode()
def looks(forward: Callable[[Tensor], Tensor], stages: list[TokenStage], image: Tensor) -> tuple[Tensor, list[Looks]]:
    """What `forward` says of an image (1, 3, H, W), without the batch, and where the tokens of every stage look on it.

    Args:
        forward: calls the model that the stages are of.
        stages: of `token_stages`.
        image: as the model takes it.
    """
    modules = [module for stage in stages for module in (*stage.tokenizers, stage.transformer)]
    with kept_arguments(modules) as arguments:
        logits = forward(image)[0]
    return logits, [part for stage in stages for part in looks_of_stage(stage, arguments)]


@contextmanager
def kept_arguments(modules: list[nn.Module]) -> Iterator[Arguments]:
    """Keep what the modules are called with inside the context, without changing what they do."""
    kept: Arguments = {}

    def keep(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        kept[module] = arguments

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def looks_of_stage(stage: TokenStage, arguments: Arguments) -> list[Looks]:
    """Where the tokens of each tokenizer of a stage look, on the first image of the batch."""
    maps = [attention_maps(tokenizer, arguments[tokenizer]) for tokenizer in stage.tokenizers]
    interactions: list[Tensor | None] = [None] * len(maps)
    if hasattr(stage.transformer, "attention"):  # a graph convolution or an identity has none
        mixing = attention_of(stage.transformer, arguments[stage.transformer])[0].mean(dim=0)
        interactions = [*interaction_maps(maps, mixing)]
    return [Looks(*part) for part in zip(stage.names, maps, interactions, strict=True)]


def attention_maps(tokenizer: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
    """Spatial attention (L, H, W) of a tokenizer called with (pixels, size, tokens), on the first image."""
    height, width = arguments[1]
    return attention_of(tokenizer, arguments)[0].T.unflatten(1, (int(height), int(width)))


def attention_of(module: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
    """The attention of a module called with these arguments, computed in float32 whatever the forward pass was in."""
    exact = (a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)
    attention: Callable[..., Tensor] = getattr(module, "attention")  # noqa: B009 (a type checker sees a submodule)
    return attention(*exact).double().cpu()


def interaction_maps(maps: list[Tensor], mixing: Tensor) -> list[Tensor]:
    """The pixels that tokens interact with: for token l the sum over all tokens l' of W[l, l'] A_l'.

    Args:
        maps: the attention A of each level's tokens, (L_i, H_i, W_i).
        mixing: the transformer's attention W over the tokens of all levels in this order, (sum L_i, sum L_i).

    Returns:
        For each level (L_i, H, W), at the largest level's size. A map of another size is resized as a density: it
        keeps its sum of 1.
    """
    height, width = (max(side) for side in zip(*(m.shape[1:] for m in maps), strict=True))
    common = torch.cat([as_density(m, height, width) for m in maps])
    mixed = torch.einsum("lm,mhw->lhw", mixing, common)
    return list(mixed.split([len(m) for m in maps]))


def as_density(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (L, h, w) resized to (L, H, W), each with its sum kept."""
    found = resized(maps[None], (height, width))[0]
    return found * (maps.sum(dim=(1, 2), keepdim=True) / found.sum(dim=(1, 2), keepdim=True))


def entropy(maps: Tensor) -> Tensor:
    """Entropy in nats of each map (..., H, W) that sums to 1; ln(HW) if it is uniform, 0 if it is one pixel."""
    return torch.special.entr(maps).sum(dim=(-2, -1))


def numbers(part: Looks) -> dict[str, Any]:
    """A module or level in numbers: entropies in nats, peaks of tokens as [row, column] of the map.

    `size` is the map's height and width; `uniform_entropy` is that of a token that looks everywhere alike.
    """
    height, width = part.attention.shape[1:]
    entropies = entropy(part.attention)
    peaks = part.attention.flatten(1).argmax(dim=1).tolist()
    return {
        "name": part.name,
        "size": [height, width],
        "uniform_entropy": math.log(height * width),
        "mean_entropy": float(entropies.mean()),
        "tokens": [
            {"entropy": value, "peak": list(divmod(peak, width))}
            for value, peak in zip(entropies.tolist(), peaks, strict=True)
        ],
    }


def sheet(path: Path, image: NDArray[np.uint8], title: str, found: list[Looks]) -> None:
    """A picture of attention and interaction of every token on an image (H, W, 3) as the model sees it."""
    rows = []
    for part, said in zip(found, map(numbers, found), strict=True):
        captions = [f"{i}: {token['entropy']:.3f}" for i, token in enumerate(said["tokens"], start=1)]
        heading = f"{part.name}, attention\nmean {said['mean_entropy']:.3f} of {said['uniform_entropy']:.3f}"
        rows.append(image_plots.Heat(heading, [*part.attention.numpy()], captions))
        if part.interaction is not None:
            captions = [str(i) for i, _ in enumerate(captions, start=1)]
            rows.append(image_plots.Heat("interaction", [*part.interaction.numpy()], captions))
    tokens = max(len(part.attention) for part in found)
    if tokens > image_plots.MAX_TOKENS:
        title += f"; the first {image_plots.MAX_TOKENS} of {tokens} tokens"
    title += "\nBeside a token's number the entropy of its attention in nats; beside their mean that of a uniform one."
    title += "\nEach map has its own colours: red is its highest value, blue its lowest; a nearly uniform map is green."
    image_plots.token_sheet(path, image, title, rows)
