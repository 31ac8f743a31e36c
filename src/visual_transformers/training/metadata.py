"""Static metadata of a run: model, data, seed, parameters, MACs, commit."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Subset

from visual_transformers import __version__
from visual_transformers.checkpoints import weights
from visual_transformers.config.diff import digest
from visual_transformers.config.schema import Config, Node
from visual_transformers.data.datamodule import spread_indices
from visual_transformers.data.dataset import FileSamples
from visual_transformers.distributed import collectives
from visual_transformers.models import flops
from visual_transformers.training.components import Components, count_parameters, first_batch


def run_metadata(cfg: Config, components: Components) -> Node:
    """Return the metadata of a run that is known before its first step, as plain values.

    `model`, `data` and `recipe` are the chosen options (or, without Hydra, a `_target_`); `settings` is a digest that
    runs share if they differ only in the seed and in settings that may change; `macs` are those of one image of
    `image_size` (H, W), in the configured form of the model; `test_split` is true if final scores are those of a test
    split, not of the validation split; `data_set` is a digest of class and file names.
    """
    images, _ = first_batch(next(iter(components.sets.values())))
    image_size = list(images.shape[-2:])
    return {
        "name": cfg.name,
        "task": components.task.name,
        "model": _chosen_option(cfg, "model"),
        "data": _chosen_option(cfg, "data"),
        "recipe": cfg.choices.get("recipe"),
        "sweep": cfg.sweep.name,
        "seed": cfg.seed,
        "settings": digest(cfg.everything),
        "metric": cfg.task["metric"],
        "parameters": count_parameters(components.model),
        "macs": _count_macs(components.model, image_size),
        "image_size": image_size,
        "classes": len(components.data.classes),
        "test_split": components.data.has_test_split,
        "data_set": _data_digest(components),
        "batch_size": components.data.batch_size,
        "device": str(components.hardware.torch_device),
        "devices": collectives.world_size(),
        "precision": components.hardware.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "visual_transformers": __version__,
        "commit": _commit(),
    }


def training_metadata(file: weights.WeightFile) -> Node:
    """Return seed and settings digest of the run that trained the weights, if the file carries its configuration."""
    config = file.metadata.get("config")
    return {"seed": config.get("seed"), "settings": digest(config)} if config else {}


def _count_macs(model: nn.Module, image_size: list[int]) -> int | None:
    """Return the MACs of one image; None for a model that cannot be run on shapes only, e.g. of another library."""
    try:
        return sum(part.macs for part in flops.count_costs(model, image_size))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None


MAX_FILE_SIZES = 200
"""Files of a split whose sizes distinguish data sets with the same file names."""


def _data_digest(components: Components) -> str:
    """Return a short digest of the data, the same for copies in several places."""
    content = hashlib.sha256("\n".join(components.data.classes).encode(errors="surrogateescape"))
    for split, samples in components.sets.items():
        content.update(f"\n\n{split} {len(samples)}\n".encode())
        whole = samples.dataset if isinstance(samples, Subset) else samples  # a subset because of debug.samples
        if isinstance(whole, FileSamples):
            content.update("\n".join(whole.images.names()).encode(errors="surrogateescape"))
            for index in spread_indices(len(whole), MAX_FILE_SIZES):
                with suppress(OSError):
                    content.update(b"%d\n" % whole.images[index].stat().st_size)
    return content.hexdigest()[:12]


def _chosen_option(cfg: Config, group: str) -> str:
    """Return the chosen option of a group, or the `_target_` if that is unknown."""
    node: Node = getattr(cfg, group)
    return cfg.choices.get(group) or str(node["_target_"])


@cache
def _commit() -> str | None:
    """Return the git commit of this code, with a + if files are changed; None outside a checkout."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # fails if installed inside another checkout
        return _git(here.parent, "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
