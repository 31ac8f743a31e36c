"""Reading weight files and putting them into a model, with a list of what does not fit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from visual_transformers import atomic
from visual_transformers.errors import WeightsError

MAX_LISTED = 5
"""Names of each kind of difference that an error lists."""


@dataclass
class WeightFile:
    """Tensors by name, and what the file says of them (the keys of `ABOUT`), if anything."""

    path: Path
    tensors: dict[str, Tensor]
    about: dict[str, Any] = field(default_factory=dict)


def save(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write a model's weights as safetensors, atomically; `about` must be JSON and becomes the file's metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {key: json.dumps(value) for key, value in about.items()}
    atomic.write(path, lambda temporary: save_file(tensors, temporary, metadata))


def read(path: str | Path) -> WeightFile:
    """Read `.safetensors`, a checkpoint of this suite (key `model`) or a bare state dict saved by torch.

    Raises:
        WeightsError: if the file is missing, damaged, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights={path}: no such file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as opened:
                about = {key: json.loads(value) for key, value in (opened.metadata() or {}).items() if key in ABOUT}
                return WeightFile(path, {name: opened.get_tensor(name) for name in opened.keys()}, about)  # noqa: SIM118
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files are met with many kinds, KeyError among them
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise WeightsError(f"weights={path}: damaged, or not a file of weights alone ({reason})") from error
    about = {key: content[key] for key in ABOUT if key in content} if isinstance(content, dict) else {}
    tensors = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise WeightsError(f"weights={path}: holds no state dict, neither bare nor under the key 'model'")
    return WeightFile(path, tensors, about)


ABOUT = ("classes", "config", "best")
"""What a file may say of its weights."""


def load(model: nn.Module, weights: WeightFile, *, backbone_only: bool, classes: list[str]) -> str:
    """Put weights into the model: all of them, or with `backbone_only` those of the layers before its head.

    A backbone may come from another model: a ResNet's layers are the same with or without the prefix `backbone.`,
    and what the file holds beyond them is left out.

    Returns:
        A sentence that says what was loaded.

    Raises:
        WeightsError: listing what differs, and what would load all the same.
    """
    wanted, tensors = model.state_dict(), weights.tensors
    if backbone_only:
        wanted, tensors = _backbone(model, wanted, tensors)
    elif weights.about.get("classes", classes) != classes:
        theirs = weights.about["classes"]
        raise WeightsError(
            f"weights={weights.path}: trained for {len(theirs)} classes ({_listed(theirs)}), the data set has "
            f"{len(classes)} ({_listed(classes)}); {BACKBONE_ALONE}"
        )
    if differences := _differences(wanted, tensors):
        offer = "" if backbone_only or _differences(*_backbone(model, wanted, tensors)) else f"\n{BACKBONE_ALONE}"
        raise WeightsError(
            f"weights={weights.path}: do not fit {type(model).__name__}\n" + "\n".join(differences) + offer
        )
    model.load_state_dict(tensors, strict=False)
    kept = len(model.state_dict()) - len(tensors)
    return f"loaded {len(tensors)} tensors from {weights.path}" + (
        f", {kept} keep their initial values" if kept else ""
    )


def _backbone(
    model: nn.Module, wanted: dict[str, Tensor], given: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the layers before the model's head want, and what of it is given, under the model's names."""
    head: tuple[str, ...] = getattr(model, "head", ("fc.", "classifier.", "heads.", "head."))
    wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(head)}
    plain = {name.removeprefix("backbone."): tensor for name, tensor in given.items()}
    found = {name: plain[name.removeprefix("backbone.")] for name in wanted if name.removeprefix("backbone.") in plain}
    return wanted, found


BACKBONE_ALONE = "set weights.backbone_only=true to load only the layers before the head"


def _differences(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    shapes = [
        f"{name} {tuple(given[name].shape)} in the file, {tuple(wanted[name].shape)} in the model"
        for name in wanted
        if name in given and wanted[name].shape != given[name].shape
    ]
    kinds = {
        "missing from the file": [name for name in wanted if name not in given],
        "not in the model": [name for name in given if name not in wanted],
        "of another shape": shapes,
    }
    return [f"  {len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
