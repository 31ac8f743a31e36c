"""torchvision's published weights, by name: downloaded once, checked by their hash, then used offline."""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from torchvision import models
from torchvision.models import WeightsEnum

from visual_transformers.errors import WeightsError

PREFIX = "torchvision:"
OUR_MODELS = ("resnet18", "resnet34", "resnet50", "resnet101")
"""Builders that torchvision and this package share."""
USUAL_PRESET = models.ResNet18_Weights.IMAGENET1K_V1.transforms()
"""Preprocessing of a classifier with the interpolation and normalisation of our data sets."""


class PublishedWeights(NamedTuple):
    """State dict that torchvision publishes under a name, in which aliases such as `DEFAULT` are replaced."""

    name: str
    content: Any
    classes: list[str] | None


def fetch(name: str) -> PublishedWeights:
    """Load the weights `torchvision:NAME` from torch.hub's folder, after a download if they are not there.

    Raises:
        WeightsError: if the name is unknown, there is no network, or the file is not the published one; says what to
            download by hand and where to put it.
    """
    weight = _get_weight(name)
    name = f"{PREFIX}{weight}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weight.url).path).name
    by_hand = f"download {weight.url}\nby hand and put it at {path}"
    if path.is_file() and not _has_published_hash(path):
        raise WeightsError(f"weights={name}: {path} is not the published file, because its hash differs. Remove it")
    try:
        content = weight.get_state_dict(map_location="cpu", weights_only=True, check_hash=True)
    except OSError as error:  # no network, no such address, no disk space or permission to write
        raise WeightsError(f"weights={name}: cannot be downloaded ({_first_line(error)}); {by_hand}") from error
    except Exception as error:  # the hash of the download differs, or it contains more than weights
        raise WeightsError(
            f"weights={name}: the download is not as published ({_first_line(error)}); {by_hand}"
        ) from error
    return PublishedWeights(name, content, weight.meta.get("categories"))


def derive_config(name: str) -> dict[str, Any]:
    """Return the configuration of the classifier `torchvision:NAME`: its model and its preprocessing of images.

    It has no `data` if our data sets interpolate or normalise images in another way, and it is empty for weights of
    other models than classifiers.

    Raises:
        WeightsError: if the name is unknown.
    """
    weight = _get_weight(name)
    builder = next((model for model in models.list_models(models) if weight in models.get_model_weights(model)), None)
    if builder is None:  # a segmenter or a detector
        return {}
    home = "visual_transformers.models" if builder in OUR_MODELS else "torchvision.models"
    config: dict[str, Any] = {
        "name": str(weight),
        "task": {"_target_": "visual_transformers.tasks.Classification", "metric": "top1", "label_smoothing": 0.0},
        "model": {"_target_": f"{home}.{builder}"},
    }
    preset, compared = weight.transforms(), ("mean", "std", "interpolation")
    if isinstance(preset, type(USUAL_PRESET)) and all(getattr(preset, k) == getattr(USUAL_PRESET, k) for k in compared):
        sizes = {"image_size": preset.crop_size[0], "eval_resize": preset.resize_size[0]}
        config["data"] = {"_target_": "visual_transformers.data.ImageNet", "root": "???", **sizes}
    return config


def _get_weight(name: str) -> WeightsEnum:
    wanted = name.removeprefix(PREFIX)
    try:
        return models.get_weight(wanted)
    except (ValueError, KeyError, TypeError) as error:
        names = {str(w).lower(): str(w) for model in models.list_models() for w in models.get_model_weights(model)}
        near = [names[key] for key in difflib.get_close_matches(wanted.lower(), names, n=3, cutoff=0.4)]
        advice = f"did you mean {' or '.join(near)}?" if near else "a name is like ResNet50_Weights.IMAGENET1K_V2"
        raise WeightsError(f"weights={name}: torchvision publishes no weights of this name; {advice}") from error


def _has_published_hash(path: Path) -> bool:
    """Compare a file's SHA-256 with the start of it in its name; torch.hub does so only for a download."""
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    with path.open("rb") as file:
        return expected is None or hashlib.file_digest(file, "sha256").hexdigest().startswith(expected[1])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
