"""The state of a run on disk: everything that the next step depends on, in tensors and plain containers."""

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
from visual_transformers.config.diff import changed_settings
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


class Found(NamedTuple):
    """A checkpoint to go on from.

    Args:
        content: as `read` gives it.
        path: the file.
        own: whether the run in its folder is simply to go on.
    """

    content: Content
    path: Path
    own: bool = True


@dataclass
class TrainState:
    """What training changes, and where it stands."""

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
    """Those whose loss or gradient was not finite."""
    seconds: float = 0.0
    ranking: Ranking = field(default_factory=list)
    unread: list[StepEntry] = field(default_factory=list)
    """Of the steps that are in no record yet."""

    def save(self, files: RunDirectory, *, config: Node, data: Node) -> None:
        """Write the state, atomically; the one before stays beside it.

        Raises:
            RunError: if it cannot be written.
        """
        parts = {name: getattr(self, name).state_dict() for name in self.stateful}
        numbers = {name: getattr(self, name) for name in NUMBERS} | {"bad_files": self.bad_files.paths}
        content = {"format": FORMAT, "config": config, "classes": data["classes"], "data": data, **parts, **numbers}
        atomic.write(files.last, lambda temporary: torch.save(content, temporary), previous=files.previous)

    def restore(self, found: Found, *, config: Node, data: Node, allow: list[str]) -> None:
        """Go back to a saved state.

        Settings that were `allow`ed to change are the new ones from here on: the learning rate goes on as if it had
        followed the new schedule from the start.

        Args:
            found: a checkpoint.
            config: the configuration of this run.
            data: what must be found again in the data set.
            allow: keys that may differ, or the beginnings of keys.

        Raises:
            RunError: if the run was started with other settings; lists them. Settings that define the batches of a step
                can never change: some samples of the epoch would be repeated and others skipped.
        """
        content, source = found.content, found.path
        changed = [*changed_settings(content["config"], config), *changed_settings(content["data"], data, "data_set")]
        if refused := [change for change in changed if not change.within(allow)]:
            raise RunError(
                f"{source} is of a run with other settings:\n"
                + "\n".join(f"  {change}" for change in refused)
                + "\ngive this run another name (name=...), set that one aside (resume=never), or go on with the new "
                f"ones all the same (resume.allow=[{','.join(change.key for change in refused)}])"
            )
        if batches := [change for change in changed if change.within(list(BATCHES))]:
            raise RunError(
                f"{source} counts steps, whose batches would be others:\n"
                + "\n".join(f"  {change}" for change in batches)
                + "\nstart a new run from its weights (name=..., weights=...), or keep these settings"
            )
        try:
            self._load(content, anew=bool(changed))
        except (RuntimeError, ValueError, KeyError) as error:
            raise RunError(f"{source} does not fit what resume.allow let change: {error}") from error
        for name in NUMBERS:
            setattr(self, name, content[name])
        self.bad_files.paths = content["bad_files"]

    def _load(self, content: Content, *, anew: bool) -> None:
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        for name in self.stateful:
            if name in content and not (anew and name == "schedule"):  # an average may be new
                getattr(self, name).load_state_dict(content[name])
        self.scores.to(next(self.model.parameters()).device)  # torchmetrics leaves what it loads where it was read
        if not collectives.is_main():
            self.scores.reset()  # the counts are of all processes, and are added up again
        if anew:
            for group, new in zip(self.optimizer.param_groups, settings, strict=True):
                group.update(new)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a schedule's step before the optimizer's
                for _ in range(content["step"]):
                    self.schedule.step()

    @property
    def stateful(self) -> tuple[str, ...]:
        """Names of the parts that have a state of their own."""
        parts = ("model", "optimizer", "schedule", "scaler", "scores")
        return (*parts, "average") if self.average else parts


BATCHES = ("seed", "data.batch_size", "data_set")
"""Settings, and facts of the data set, that say which samples the batch of a step holds."""
NUMBERS = ("step", "evaluated_step", "skipped_steps", "seconds", "ranking", "unread")


def to_go_on_from(how: str, files: RunDirectory) -> Found | None:
    """The checkpoint that `resume.checkpoint` asks for, or None for a run from the start.

    A path is gone on from once: when the same command is started again, it finds its own state.

    Raises:
        RunError: if there is none where one must be, or it is damaged.
    """
    if how in ("auto", "must", "never"):
        if how == "must" and not files.started:
            raise RunError(f"resume=must: there is no {files.last} to go on from; resume=auto would start anew")
        return latest(files) if files.started and how != "never" else None
    if files.started and (own := latest(files)).content["config"]["resume"]["checkpoint"] == how:
        return own
    path = expand_home(how)
    if not path.is_file():
        raise RunError(f"resume={how}: no such file; expected auto, must, never or the path of a checkpoint")
    try:
        return Found(read(path), path, own=False)
    except DamagedError as error:
        raise RunError(f"resume={error}; name another checkpoint") from error


def best_beside(found: Found) -> bytes | None:
    """The file of the best weights that a checkpoint speaks of, where it lies beside that."""
    best, ranking = RunDirectory(found.path.parents[1]).best, found.content["ranking"]
    if not (ranking and best.is_file() and best.parent == found.path.parent):
        return None
    return best.read_bytes() if weights.read_about(best).get("best") == ranking[0] else None


def latest(files: RunDirectory) -> Found:
    """The run's last checkpoint, or the one before where that was torn.

    Raises:
        RunError: if neither can be read.
    """
    found = [path for path in (files.last, files.previous) if path.is_file()]
    for path in found:
        try:
            content = read(path)
        except DamagedError as error:
            damage = error
            continue
        if path is not files.last and collectives.is_main():
            reason = damage if files.last in found else f"{files.last} is missing"
            print(f"note: {reason}; going on from the state before it, of step {content['step']}", file=sys.stderr)
        return Found(content, path)
    raise RunError(f"{damage}; set the run aside with resume=never") from damage


class DamagedError(RunError):
    """A checkpoint that cannot be used, as it was torn."""


def read(path: Path) -> Content:
    """A checkpoint's content, on the CPU.

    Raises:
        DamagedError: if it is damaged or of another format.
        OSError: if the system does not give it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load meets damaged files with many kinds, KeyError among them
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is torch's of a file cut short
            raise
        raise DamagedError(f"{path}: damaged ({error!r})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DamagedError(f"{path}: not a checkpoint of format {FORMAT}")
    return content
