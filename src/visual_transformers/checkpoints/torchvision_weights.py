"""torchvision's published weights, by name: downloaded once, checked against their hash, used offline afterwards."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.transforms._presets import ImageClassification

from visual_transformers.errors import WeightsError

PREFIX = "torchvision:"


@dataclass
class Published:
    """What torchvision publishes under a name.

    Args:
        name: `torchvision:` and the name without aliases (`DEFAULT` is one).
        content: what its file holds, a state dict.
        classes: the names of the outputs; None where torchvision gives none.
    """

    name: str
    content: Any
    classes: list[str] | None


def fetch(name: str) -> Published:
    """The weights that `torchvision:NAME` names, from torch.hub's folder or downloaded into it.

    Raises:
        WeightsError: if the name is unknown, there is no network, or the file is not the published one; saying from
            where to fetch it by hand and where to put it.
    """
    weight = _known(name)
    name = f"{PREFIX}{weight}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weight.url).path).name
    by_hand = f"download {weight.url}\nby hand and put it at {path}"
    if path.is_file() and not _has_published_hash(path):
        raise WeightsError(f"weights={name}: {path} is not the published file, for its hash differs; remove it")
    try:
        content = weight.get_state_dict(map_location="cpu", weights_only=True, check_hash=True)
    except OSError as error:  # no network, no such address, no room or right to write
        raise WeightsError(f"weights={name}: cannot be downloaded ({_reason(error)}); {by_hand}") from error
    except Exception as error:  # a download whose hash differs, or that is no file of weights alone
        raise WeightsError(f"weights={name}: the download is not as published ({_reason(error)}); {by_hand}") from error
    return Published(name, content, weight.meta.get("categories"))


def settings(name: str) -> dict[str, Any]:
    """A classifier's configuration, from `torchvision:NAME`: its model, and images prepared as torchvision does it.

    There is no `data` in it where they are prepared otherwise than our data sets do (another interpolation or
    normalisation), and nothing at all for weights that are not a classifier's.

    Raises:
        WeightsError: if the name is unknown.
    """
    weight = _known(name)
    builder = next((model for model in models.list_models(models) if weight in models.get_model_weights(model)), None)
    if builder is None:  # a segmenter's, a detector's
        return {}
    home = "visual_transformers.models" if builder in OURS else "torchvision.models"
    found: dict[str, Any] = {
        "name": str(weight),
        "task": {"_target_": "visual_transformers.tasks.Classification", "metric": "top1", "label_smoothing": 0.0},
        "model": {"_target_": f"{home}.{builder}"},
    }
    if is_usual(preset := weight.transforms()):
        sizes = {"image_size": preset.crop_size[0], "eval_resize": preset.resize_size[0]}
        found["data"] = {"_target_": "visual_transformers.data.ImageNet", "root": "???", **sizes}
    return found


OURS = ("resnet18", "resnet34", "resnet50", "resnet101")
"""torchvision's models that are models of this suite."""


def is_usual(preset: Any) -> bool:
    """Whether torchvision prepares the images of these weights as our data sets do, but for the sizes."""
    usual = ImageClassification(crop_size=1)
    same = ("mean", "std", "interpolation")
    return isinstance(preset, ImageClassification) and all(getattr(preset, k) == getattr(usual, k) for k in same)


def _known(name: str) -> WeightsEnum:
    wanted = name.removeprefix(PREFIX)
    try:
        return models.get_weight(wanted)
    except (ValueError, KeyError, TypeError) as error:
        names = {str(w).lower(): str(w) for model in models.list_models() for w in models.get_model_weights(model)}
        near = [names[key] for key in difflib.get_close_matches(wanted.lower(), names, n=3, cutoff=0.4)]
        advice = f"did you mean {' or '.join(near)}?" if near else "a name is like ResNet50_Weights.IMAGENET1K_V2"
        raise WeightsError(f"weights={name}: torchvision publishes no weights of this name; {advice}") from error


def _has_published_hash(path: Path) -> bool:
    """Whether a file's SHA-256 begins as its name says; torch.hub asks this of a download alone."""
    begins = re.search(r"-([0-9a-f]{8,})\.", path.name)
    with path.open("rb") as opened:
        return begins is None or hashlib.file_digest(opened, "sha256").hexdigest().startswith(begins[1])


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
