"""Weight files: safetensors, checkpoints of torch and torchvision's published weights."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from visual_transformers import atomic, json_text
from visual_transformers.checkpoints import torchvision_weights
from visual_transformers.data.imagenet_classes import replace_wordnet_ids
from visual_transformers.errors import WeightsError
from visual_transformers.paths import expand_home, is_valid_folder_name

METADATA_KEYS = ("classes", "config", "best", "version")
STATE_DICT_KEYS = ("model", "model_state_dict", "state_dict")
"""Keys of a checkpoint's weights: ours, the reference implementation's, that of PyTorch's examples."""
OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict")
EMA_KEYS = ("average", "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "model_ema_state_dict")
MAX_DEPTH, MAX_VALUES = 20, 100_000
"""Limits of metadata from other programs."""
MAX_LENGTH = 200
"""Characters of a value that a note shows."""


@dataclass
class WeightFile:
    """Tensors of a weight file under the file's keys.

    Args:
        path: of the file, or `torchvision:NAME`.
        tensors: by key.
        metadata: by `METADATA_KEYS`. Values that cannot be used are dropped: `classes` becomes a list of strings, with
            words in place of WordNet ids, and `config` is a run's configuration.
        notes: sentences for the user.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        raw, self.metadata = self.metadata, {}
        if isinstance(version := raw.get("version"), str):
            self.metadata["version"] = version
        if (best := raw.get("best")) is not None and _is_small_json(best):
            self.metadata["best"] = best
        classes = raw.get("classes")
        if isinstance(classes, list | tuple) and all(isinstance(name, str | int | float) for name in classes):
            self.metadata["classes"] = replace_wordnet_ids([str(name) for name in classes])
        elif classes is not None:
            self.notes.append(f"its classes are not a list of names, and not used: {shorten(str(classes), MAX_LENGTH)}")
        if _is_run_config(config := raw.get("config")):
            self.metadata["config"] = config
        elif config is not None:
            self.notes.append("its configuration is not one of this package, and not used")


def is_published(path: str | Path) -> bool:
    """Return True for the name of torchvision's published weights."""
    return str(path).startswith(torchvision_weights.PREFIX)


def save(path: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Write a model's weights atomically as safetensors, with `metadata` as JSON."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    texts = {key: json_text.dumps(value) for key, value in metadata.items()}
    atomic.write(path, lambda temporary: save_file(tensors, temporary, texts))


def read(path: str | Path) -> WeightFile:
    """Read `.safetensors`, a checkpoint or a bare state dict of torch, or torchvision's published weights.

    A checkpoint has its weights under one of the `STATE_DICT_KEYS`. Published weights, e.g.
    `torchvision:ResNet50_Weights.IMAGENET1K_V2`, are downloaded once by torch.hub.

    Raises:
        WeightsError: if the file is missing, a folder, damaged, or has no weights.
    """
    if is_published(path):
        published = torchvision_weights.fetch(str(path))
        return _parse_checkpoint(Path(published.name), published.content, {"classes": published.classes})
    return _read_file(path, metadata_only=False)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read only the metadata of a file; tensors are read only from torch's old format.

    For torchvision's published weights, return the configuration that the name stands for, without a download.

    Raises:
        WeightsError: as `read` does.
    """
    if is_published(path):
        return {"config": torchvision_weights.derive_config(str(path))}
    return _read_file(path, metadata_only=True).metadata


def _read_file(path: str | Path, *, metadata_only: bool) -> WeightFile:
    path = _find_file(path)
    if path.suffix != ".safetensors":
        return _parse_checkpoint(path, _unpickle(path, mmap=metadata_only and zipfile.is_zipfile(path)))
    with _name_bad_file(path), safe_open(path, "pt") as file:
        names = [] if metadata_only else file.keys()
        return WeightFile(path, {name: file.get_tensor(name) for name in names}, _parse_metadata(file))


def resolve_path(path: str | Path) -> Path:
    """Expand `~`, and replace a run's folder by the file of its best weights."""
    path = expand_home(path)
    best = path / "checkpoints" / "best.safetensors"
    return best if best.is_file() else path


def _find_file(path: str | Path) -> Path:
    file = resolve_path(path)
    if file.is_dir():
        raise WeightsError(f"weights={path}: is a folder without checkpoints/best.safetensors; name a weight file")
    if not file.is_file():
        raise WeightsError(f"weights={path}: no such file")
    return file


def _unpickle(path: Path, *, mmap: bool) -> Any:
    """Load a file of torch.save; with `mmap` its tensors stay on the disk, unchecked, until they are used."""
    with _name_bad_file(path):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            if refused and _is_class_name(refused[1]):
                raise WeightsError(
                    f"weights={path}: contains a {refused[1]} object next to the weights, and is not loaded. If you "
                    "trust the file, save only its weights, from the key that holds them:\n"
                    f"  checkpoint = torch.load({str(path)!r}, weights_only=False)\n"
                    "  torch.save(checkpoint['state_dict'], 'weights.pt')"
                ) from error
            raise


def _is_class_name(name: str) -> bool:
    """Return True if a global looks like a class; only a hostile file contains functions."""
    module, _, last = name.rpartition(".")
    root = module.partition(".")[0]
    return root in ("numpy", "omegaconf") or (root not in ("", "torch", "collections") and last[:1].isupper())


@contextmanager
def _name_bad_file(path: Path) -> Iterator[None]:
    """Turn any error into one that names the file; readers raise many kinds for damaged files, e.g. KeyError.

    Their messages are dropped, because torch's advise to run the code in the file.
    """
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"weights={path}: not a weight file, or damaged. Expected safetensors, or a state_dict saved by torch.save"
        ) from error


def _parse_metadata(file: Any) -> dict[str, Any]:
    """Return the metadata of a safetensors file; values that are not JSON stay strings."""
    metadata: dict[str, Any] = {}
    for key in METADATA_KEYS:
        if (value := (file.metadata() or {}).get(key)) is not None:
            try:
                metadata[key] = json.loads(value)
            except (ValueError, RecursionError):
                metadata[key] = value
    return metadata


def _parse_checkpoint(path: Path, content: Any, metadata: dict[str, Any] | None = None) -> WeightFile:
    """Find weights and metadata in the content of a file of torch.save."""
    metadata, notes, tensors = metadata or {}, [], content
    if isinstance(content, dict) and (state_dict := next((key for key in STATE_DICT_KEYS if key in content), None)):
        tensors = content[state_dict]
        metadata = metadata | {key: content[key] for key in METADATA_KEYS if key in content}
        if any(key in content for key in OPTIMIZER_KEYS):
            notes.append("its optimizer state is not used")
        if ema := next((key for key in EMA_KEYS if key in content and key != state_dict), None):
            notes.append(f"its moving average of the weights, under the key {ema!r}, is not used")
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        keys = ", ".join(repr(key) for key in STATE_DICT_KEYS)
        raise WeightsError(f"weights={path}: contains no state dict, neither at the top level nor under {keys}")
    return WeightFile(path, dict(tensors), metadata, notes)


def _is_run_config(config: Any) -> bool:
    """Return True for a configuration of this package; other programs use the same key.

    Its name must be valid as a folder below runs/, because results of the run are written there.
    """
    if not isinstance(config, dict) or not isinstance(name := config.get("name"), str) or not _is_small_json(config):
        return False
    if not is_valid_folder_name(name) or "${" in name:
        return False
    groups = [config.get(group) for group in ("task", "model", "data")]
    return all(isinstance(node, dict) and isinstance(node.get("_target_"), str) for node in groups)


def _is_small_json(value: Any) -> bool:
    """Return True if a value has only JSON types, and is neither nested too deeply nor too large."""
    stack = [(value, 0)]
    for _ in range(MAX_VALUES):
        if not stack:
            return True
        value, depth = stack.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                return False
            value = list(value.values())
        if isinstance(value, list):
            if depth == MAX_DEPTH:
                return False
            stack += [(inner, depth + 1) for inner in value]
        elif not (value is None or isinstance(value, str | int | float)):
            return False
    return False
