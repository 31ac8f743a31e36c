"""What a run is, in few facts: for its status, its results, its loggers, and reports on many runs."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import nn

from visual_transformers import __version__
from visual_transformers.checkpoints import weights
from visual_transformers.config.diff import digest
from visual_transformers.config.schema import Config, Node
from visual_transformers.data.datamodule import spread
from visual_transformers.data.dataset import FileSamples
from visual_transformers.distributed import collectives
from visual_transformers.models import flops
from visual_transformers.training.components import Parts, first_batch, parameters


def about(cfg: Config, parts: Parts) -> Node:
    """The facts of a run that are known before its first step, as plain values.

    `model`, `data` and `recipe` are the options that were chosen (or a `_target_` without Hydra); `settings` is alike
    for runs that differ in nothing but their seed and in what is free to change; `macs` are those of one image of
    `image_size` (H, W), in the form that the model is configured in; `test_split` says whether final scores are of a
    split of their own, or else of the validation split; `data_set` is a digest of class and file names.
    """
    _, samples = next(iter(parts.sets.items()))
    images, _ = first_batch(samples)
    size = list(images.shape[-2:])
    return {
        "name": cfg.name,
        "task": parts.task.name,
        "model": chosen(cfg, "model"),
        "data": chosen(cfg, "data"),
        "recipe": cfg.choices.get("recipe"),
        "sweep": cfg.sweep.name,
        "seed": cfg.seed,
        "settings": digest(cfg.everything),
        "metric": cfg.task["metric"],
        "parameters": parameters(parts.model),
        "macs": macs(parts.model, size),
        "image_size": size,
        "classes": len(parts.data.classes),
        "test_split": parts.data.has_test_split,
        "data_set": data_set(parts),
        "batch_size": parts.data.batch_size,
        "device": str(parts.hardware.torch_device),
        "devices": collectives.ranks(),
        "precision": parts.hardware.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "visual_transformers": __version__,
        "commit": commit(),
    }


def of_training(file: weights.WeightFile) -> Node:
    """Return seed and settings digest of the run that trained the weights, if the file carries its configuration."""
    config = file.about.get("config")
    return {"seed": config.get("seed"), "settings": digest(config)} if config else {}


def macs(model: nn.Module, image_size: list[int]) -> int | None:
    """Multiply-adds of one image; None of a model that cannot be counted by shapes alone, as one of another library."""
    try:
        return sum(part.macs for part in flops.count(model, image_size))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None


SIZES = 200
"""Files of a split whose sizes tell data sets with the same names apart."""


def data_set(parts: Parts) -> str:
    """A short name for the data itself: alike for copies in several places, other for other classes or files."""
    found = hashlib.sha256("\n".join(parts.data.classes).encode(errors="surrogateescape"))
    for split, samples in parts.sets.items():
        found.update(f"\n\n{split} {len(samples)}\n".encode())
        if isinstance(samples, FileSamples):
            found.update("\n".join(samples.images.names()).encode(errors="surrogateescape"))
            for place in spread(len(samples), SIZES):
                with suppress(OSError):
                    found.update(b"%d\n" % samples.images[place].stat().st_size)
    return found.hexdigest()[:12]


def chosen(cfg: Config, group: str) -> str:
    """The option of a group, by its file's name; where that is not known the name of what is built."""
    node: Node = getattr(cfg, group)
    return cfg.choices.get(group) or str(node["_target_"])


@cache
def commit() -> str | None:
    """The git commit of this code, with a + if there are changes beside it; None if it is in no checkout."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # for it may be installed within another's checkout
        return _git(here.parent, "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
