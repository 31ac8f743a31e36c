"""The state of a run on disk: everything that the next step depends on, in tensors and plain containers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from visual_transformers import atomic
from visual_transformers.data.skipping import BadFiles
from visual_transformers.errors import RunError
from visual_transformers.metrics import Scores

FORMAT = 3
FREE_TO_CHANGE = (
    "name", "mode", "resume", "weights", "logger", "input", "predict", "export", "profile", "check_data",
    "training.log_every", "training.samples",
    "data.root", "data.download", "data.eval_batch_size", "data.check_files", "data.on_error", "data.max_skipped",
    "hardware.device", "hardware.compile", "hardware.channels_last", "hardware.workers", "hardware.threads",
    "hardware.deterministic",
)  # fmt: skip
"""Settings that a resumed run may have other than when it stopped: they say where and how it runs, not what."""


@dataclass
class TrainState:
    """What training changes, and where it stands."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    scores: Scores
    bad_files: BadFiles = field(default_factory=lambda: BadFiles(0))
    step: int = 0
    evaluated_step: int = 0
    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    """Of the steps that are in no record yet."""

    def save(self, path: Path, *, config: dict[str, Any], data: dict[str, Any]) -> None:
        """Write the state to `path`, atomically."""
        parts = {name: getattr(self, name).state_dict() for name in STATEFUL}
        numbers = {name: getattr(self, name) for name in NUMBERS} | {"bad_files": self.bad_files.paths}
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        content = {
            "format": FORMAT,
            "config": config,
            "classes": data["classes"],
            "data": data,
            "random": random,
            **parts,
            **numbers,
        }
        atomic.write(path, lambda temporary: torch.save(content, temporary))

    def restore(self, path: Path, *, config: dict[str, Any], data: dict[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            RunError: if the file is damaged, or the run was started with other settings; lists them.
        """
        content = read(path)
        settings = changed_settings(content["config"], config)
        if differences := settings + changed_settings(content["data"], data, "the data set's"):
            raise RunError(
                f"{path.parent.parent} holds a run with other settings:\n"
                + "\n".join(f"  {line}" for line in differences)
                + "\ngive this run another name (name=...), or set that one aside (resume=never)"
            )
        for name in STATEFUL:
            getattr(self, name).load_state_dict(content[name])
        self.scores.to(next(self.model.parameters()).device)  # torchmetrics leaves what it loads where it was read
        for name in NUMBERS:
            setattr(self, name, content[name])
        self.bad_files.paths = content["bad_files"]
        torch.set_rng_state(content["random"]["cpu"])
        if len(content["random"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(content["random"]["cuda"])


STATEFUL = ("model", "optimizer", "schedule", "scaler", "scores")
NUMBERS = ("step", "evaluated_step", "seconds", "best", "losses")


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        RunError: if it is damaged or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load meets damaged files with many kinds, KeyError among them
        raise RunError(f"{path}: damaged ({error!r}); set the run aside with resume=never") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path}: not a checkpoint of format {FORMAT}; set the run aside with resume=never")
    return content


def changed_settings(then: Any, now: Any, path: str = "") -> list[str]:
    """`key: old -> new` for each setting that differs and is not free to change."""
    if path in FREE_TO_CHANGE:
        return []
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [*then, *(key for key in now if key not in then)]
        inner = ((then.get(key), now.get(key), f"{path}.{key}" if path else key) for key in keys)
        return [line for old, new, where in inner for line in changed_settings(old, new, where)]
    return [] if then == now else [f"{path}: {then} -> {now}"]
