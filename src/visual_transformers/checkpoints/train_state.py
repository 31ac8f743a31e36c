"""Checkpoints of a training: everything that the next step depends on, in tensors and plain containers."""

from __future__ import annotations

import errno
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from visual_transformers import atomic
from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.top_k import Ranking
from visual_transformers.config.diff import Change, changed_settings
from visual_transformers.config.schema import Node
from visual_transformers.data.io.bad_files import BadFiles
from visual_transformers.distributed import collectives
from visual_transformers.errors import RunError
from visual_transformers.paths import expand_home
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.tasks.metrics import Scores

StepEntry = list[float]
"""Step, learning rate, loss, gradient norm."""
FORMAT = 4
Content = dict[str, Any]
BATCH_SETTINGS = ["seed", "data.batch_size", "data_set"]
"""Settings, and facts of the data set, that decide which samples the batch of a step holds."""
NUMBERS = ("step", "evaluated_step", "skipped_steps", "seconds", "ranking", "unread")
"""Fields of `TrainState` that are saved as they are."""


class DamagedError(RunError):
    """A checkpoint that cannot be read or has another format."""


class Checkpoint(NamedTuple):
    """Checkpoint from which a run resumes."""

    content: Content
    path: Path
    is_own: bool = True
    """False for the checkpoint of another run, given by its path."""


@dataclass
class TrainState:
    """State that training changes, with the current step."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    scores: Scores
    average: AveragedModel | None = None
    bad_files: BadFiles = field(default_factory=lambda: BadFiles(0))
    step: int = 0
    evaluated_step: int = 0
    skipped_steps: int = 0
    """Number of steps that were skipped because their loss or gradient was not finite."""
    seconds: float = 0.0
    ranking: Ranking = field(default_factory=list)
    unread: list[StepEntry] = field(default_factory=list)
    """Steps that are not in a record yet."""

    @property
    def stateful(self) -> tuple[str, ...]:
        """Names of the fields that have a state dict."""
        names = ("model", "optimizer", "schedule", "scaler", "scores")
        return (*names, "average") if self.average else names

    def save(self, files: RunDirectory, *, config: Node, data: Node) -> None:
        """Write the checkpoint atomically, and keep the one before as `previous`.

        Raises:
            RunError: if it cannot be written.
        """
        states = {name: getattr(self, name).state_dict() for name in self.stateful}
        numbers = {name: getattr(self, name) for name in NUMBERS} | {"bad_files": self.bad_files.paths}
        content = {"format": FORMAT, "config": config, "classes": data["classes"], "data": data, **states, **numbers}
        atomic.write(files.last, lambda temporary: torch.save(content, temporary), previous=files.previous)

    def restore(self, checkpoint: Checkpoint, *, config: Node, data: Node, allow: list[str]) -> None:
        """Restore the state of a checkpoint.

        Settings that are allowed to change take their new values; the learning rate continues as if it had followed the
        new schedule from the start.

        Args:
            checkpoint: from `select_checkpoint`.
            config: configuration of this run.
            data: facts of the data set that must not change.
            allow: keys, or prefixes of keys, that may differ.

        Raises:
            RunError: if other settings differ; lists them. Settings that decide the batches of a step can never change,
                because some samples of the epoch would be repeated and others skipped.
        """
        content, path = checkpoint.content, checkpoint.path
        changed = [*changed_settings(content["config"], config), *changed_settings(content["data"], data, "data_set")]
        if refused := [change for change in changed if not change.within(allow)]:
            raise RunError(
                f"{path} comes from a run with other settings:\n{_list_lines(refused)}\nGive this run another name "
                "(name=...), set the other one aside (resume=never), or resume it with the new settings "
                f"(resume.allow=[{','.join(change.key for change in refused)}])"
            )
        if refused := [change for change in changed if change.within(BATCH_SETTINGS)]:
            raise RunError(
                f"{path} cannot be resumed, because the batches of its steps would change:\n{_list_lines(refused)}\n"
                "Start a new run from its weights (name=..., weights=...), or keep these settings"
            )
        try:
            self._load(content, settings_changed=bool(changed))
        except (RuntimeError, ValueError, KeyError) as error:
            raise RunError(f"{path} does not fit the settings that resume.allow let change: {error}") from error
        for name in NUMBERS:
            setattr(self, name, content[name])
        self.bad_files.paths = content["bad_files"]

    def _load(self, content: Content, *, settings_changed: bool) -> None:
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        for name in self.stateful:
            if name in content and not (settings_changed and name == "schedule"):  # the EMA may be new
                getattr(self, name).load_state_dict(content[name])
        self.scores.to(next(self.model.parameters()).device)  # torchmetrics leaves loaded states on the CPU
        if not collectives.is_main():
            self.scores.reset()  # the saved counts are of all processes, and would be summed again
        if settings_changed:
            for group, new in zip(self.optimizer.param_groups, settings, strict=True):
                group.update(new)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the schedule steps before the optimizer does
                for _ in range(content["step"]):
                    self.schedule.step()


def _list_lines(changes: list[Change]) -> str:
    return "\n".join(f"  {change}" for change in changes)


def select_checkpoint(how: str, files: RunDirectory) -> Checkpoint | None:
    """Return the checkpoint that `resume.checkpoint` asks for; None to start a run.

    A checkpoint given by path is used once; afterwards the run resumes from its own.

    Raises:
        RunError: if a required checkpoint is missing or damaged.
    """
    if how in ("auto", "must", "never"):
        if how == "must" and not files.has_checkpoint:
            raise RunError(f"resume=must: there is no {files.last} to resume from. resume=auto starts a new run")
        return read_latest(files) if files.has_checkpoint and how != "never" else None
    if files.has_checkpoint and (own := read_latest(files)).content["config"]["resume"]["checkpoint"] == how:
        return own
    path = expand_home(how)
    if not path.is_file():
        raise RunError(f"resume={how}: no such file; expected auto, must, never or the path of a checkpoint")
    try:
        return Checkpoint(read(path), path, is_own=False)
    except DamagedError as error:
        raise RunError(f"resume={error}. Name another checkpoint") from error


def read_best_weights(checkpoint: Checkpoint) -> bytes | None:
    """Return the file of a checkpoint's best weights; None if it is not next to the checkpoint."""
    best, ranking = RunDirectory(checkpoint.path.parents[1]).best, checkpoint.content["ranking"]
    if not (ranking and best.is_file() and best.parent == checkpoint.path.parent):
        return None
    return best.read_bytes() if weights.read_metadata(best).get("best") == ranking[0] else None


def read_latest(files: RunDirectory) -> Checkpoint:
    """Read the run's last checkpoint, or the previous one if the last is damaged or missing.

    Raises:
        RunError: if neither can be read.
    """
    paths = [path for path in (files.last, files.previous) if path.is_file()]
    for path in paths:
        try:
            content = read(path)
        except DamagedError as error:
            damage = error
            continue
        if path is not files.last and collectives.is_main():
            reason = damage if files.last in paths else f"{files.last} is missing"
            print(f"note: {reason}; resuming from the previous checkpoint, step {content['step']}", file=sys.stderr)
        return Checkpoint(content, path)
    raise RunError(f"{damage}. Set the run aside with resume=never") from damage


def read(path: Path) -> Content:
    """Read a checkpoint's content to the CPU.

    Raises:
        DamagedError: if it is damaged or has another format.
        OSError: if the system cannot read it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for damaged files, e.g. KeyError
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch raises EINVAL for a truncated file
            raise
        raise DamagedError(f"{path}: damaged ({error!r})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DamagedError(f"{path}: not a checkpoint of format {FORMAT}")
    return content
