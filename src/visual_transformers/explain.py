"""`mode=explain`: where the visual tokens of a trained model look, as the paper draws it, in `explain/`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from visual_transformers import atomic, plots_look
from visual_transformers.data.transforms import denormalise
from visual_transformers.errors import RunError
from visual_transformers.inputs import ReadableImages, named_images, output_names, validation_images
from visual_transformers.models.tokens import VTModule, VTPyramid
from visual_transformers.probabilities import at_least, resized
from visual_transformers.settings import Config
from visual_transformers.trained import Trained
from visual_transformers.training.rundir import clear

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


def explain(cfg: Config, directory: Path) -> None:
    """Draw where the tokens look on every image of `input`, and leave the sheets and explain.json in `explain/`.

    Raises:
        UserError: if there are no images or no weights, the model has no visual tokens, or, when all others are done,
            if some images could not be read.
    """
    named = named_images(cfg)
    trained = Trained.build(cfg, directory)
    stages = token_stages(trained.model)
    paths, pattern = named or validation_images(cfg, directory / "explain" / "inputs")
    images, names, directory = ReadableImages(paths), output_names(paths, pattern), directory / "explain"
    clear(directory, [*earlier_sheets(directory), "explain.json", "inputs"], but_for=paths)
    explained = []

    def looked_at(picture: Image.Image) -> tuple[Tensor, Tensor, list[Looks]]:
        image = trained.prepare(picture)
        return image, *looks(trained, stages, image)

    for path, _, (image, logits, found) in images.shown_to(looked_at):
        record = {"file": str(path), "picture": f"{names[path]}.png", **top_class(trained, logits)}
        record["parts"] = [numbers(part) for part in found]
        draw(directory / record["picture"], image, record, found)
        explained.append(record)
        entropies = (f"{part['name']} {part['mean_entropy']:.3f}" for part in record["parts"])
        print(f"{path}: mean entropy in nats: {', '.join(entropies)}")
    atomic.write_text(directory / "explain.json", json.dumps(explained, indent=2) + "\n")
    print(f"explained {len(explained)} images, left in {directory}")
    images.check_all_were_read()


def earlier_sheets(folder: Path) -> list[str]:
    """Sheets in a folder that the explain.json beside them names; none where that is missing or damaged."""
    try:
        listed = {record["picture"] for record in json.loads((folder / "explain.json").read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        return []
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    return [name for name in names if name in listed]


def token_stages(model: nn.Module) -> list[TokenStage]:
    """The token stages of a model, in the order of its layers.

    Raises:
        RunError: if it has none.
    """
    stages: list[TokenStage] = []
    for module in model.modules():
        if isinstance(module, VTModule):
            stages.append(TokenStage((f"module {len(stages) + 1}",), (module.tokenizer,), module.transformer))
        elif isinstance(module, VTPyramid):
            names = tuple(f"level c{number}" for number, _ in enumerate(module.tokenizers, start=2))
            stages.append(TokenStage(names, tuple(module.tokenizers), module.transformer))
    if not stages:
        raise RunError(
            f"mode=explain shows where visual tokens look, and {type(model).__name__} has none; "
            "name the weights of a VT model, as model=vt_resnet18 or model=vt_fpn"
        )
    return stages


@torch.inference_mode()
def looks(trained: Trained, stages: list[TokenStage], image: Tensor) -> tuple[Tensor, list[Looks]]:
    """Logits of an image (3, H, W), without the batch, and where the tokens of every module or level look on it."""
    modules = [module for stage in stages for module in (*stage.tokenizers, stage.transformer)]
    with kept_arguments(modules) as arguments:
        logits = trained.logits(at_least(image[None], trained.stride))[0]
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
    """What explain.json says of a module or level: entropies in nats, peaks of tokens as [row, column] of the map.

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


def top_class(trained: Trained, logits: Tensor) -> dict[str, Any]:
    """The most probable class of an image and its probability; nothing for a segmenter."""
    if trained.task.name != "classification":
        return {}
    probability, index = logits.softmax(dim=0).max(dim=0)
    return {"predicted": {"name": trained.classes[int(index)], "probability": float(probability)}}


def draw(path: Path, image: Tensor, record: dict[str, Any], found: list[Looks]) -> None:
    """The sheet of an image (3, H, W) as the model sees it: attention and interaction of every token."""
    rows = []
    for part, said in zip(found, record["parts"], strict=True):
        captions = [f"{i}: {token['entropy']:.3f}" for i, token in enumerate(said["tokens"], start=1)]
        heading = f"{part.name}, attention\nmean {said['mean_entropy']:.3f} of {said['uniform_entropy']:.3f}"
        rows.append(plots_look.Heat(heading, [*part.attention.numpy()], captions))
        if part.interaction is not None:
            captions = [str(i) for i, _ in enumerate(captions, start=1)]
            rows.append(plots_look.Heat("interaction", [*part.interaction.numpy()], captions))
    title = Path(record["file"]).name
    if "predicted" in record:
        title += f": {record['predicted']['name']} {record['predicted']['probability']:.1%}"
    tokens = max(len(part.attention) for part in found)
    if tokens > plots_look.MAX_TOKENS:
        title += f"; the first {plots_look.MAX_TOKENS} of {tokens} tokens"
    title += "\nBeside a token's number the entropy of its attention in nats; beside their mean that of a uniform one."
    title += "\nEach map has its own colours: red is its highest value, blue its lowest; a nearly uniform map is green."
    plots_look.token_sheet(path, denormalise(image).permute(1, 2, 0).numpy(), title, rows)
