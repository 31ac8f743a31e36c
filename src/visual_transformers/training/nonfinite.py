"""What is said and left when a loss or a gradient is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import default_collate

from visual_transformers import atomic
from visual_transformers.checkpoints.train_state import StepEntry
from visual_transformers.data.datamodule import Samples
from visual_transformers.data.dataset import FileSamples
from visual_transformers.data.loader import SeededSamples, StepSampler
from visual_transformers.distributed import collectives
from visual_transformers.errors import RunError, UserError

NAMED = 5
"""Files of the batch that the message names; the dump has them all."""


class Undo:
    """What a forward pass changes, to be put back for a step that is passed over: statistics of batch norms, counts.

    Args:
        model: whose buffers they are.
        scores: the counts.
    """

    def __init__(self, model: nn.Module, scores: nn.Module):
        self.scores = scores
        self.buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self.counts = {name: value.clone() for name, value in scores.state_dict().items()}

    def __call__(self) -> None:
        """Put all of it back."""
        for buffer, before in self.buffers:
            buffer.copy_(before)
        self.scores.load_state_dict(self.counts)


@dataclass
class NonFinite:
    """Tells of a step, by the arithmetic that tells which samples it had.

    Args:
        samples: the training set.
        batch_size: images in a step.
        seed: of the run.
        model: whose weights are left too.
        path: of the dump.
        config: of the run.
    """

    samples: Samples
    batch_size: int
    seed: int
    model: nn.Module
    path: Path
    config: dict[str, Any]

    def stop(self, entry: StepEntry) -> None:
        """Leave the dump and raise.

        Raises:
            RunError: naming the step, its learning rate and its files.
        """
        step, lr, loss, norm = int(entry[0]), *entry[1:]
        files = self.files(step)
        if collectives.is_main():
            self.dump(step, {"lr": lr, "loss": loss, "gradient_norm": norm, "files": files})
        collectives.wait_for_all()  # nobody ends before it is written
        what = (
            f"the gradient norm of step {step} is {norm}"
            if math.isfinite(loss)
            else f"the loss of step {step} is {loss}"
        )
        named = ", ".join(files[:NAMED]) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")
        raise RunError(
            f"{what} (learning rate {lr:.4g}, loss {loss:.4g}, gradient norm {norm:.4g}); its batch was {named}. The "
            f"run stopped, its checkpoints are from before, and {self.path} holds the batch and the weights. Lower "
            "optimizer.lr, lengthen schedule.warmup_epochs or set training.clip_norm, under another name or with "
            "resume=never; training.skip_nonfinite=K passes over K such steps, and debug.anomaly=true names the "
            "operation"
        )

    def files(self, step: int) -> list[str]:
        """The files of a step's samples, or their numbers where they are none."""
        indices = [index for _, index in self._keys(step)]
        if isinstance(self.samples, FileSamples):
            return [self.samples.origins(index)[0] for index in indices]
        return [f"training sample {index}" for index in indices]

    def dump(self, step: int, about: dict[str, Any]) -> None:
        """Write the step's whole batch, as augmented, and the weights as they are now."""
        loaded = (SeededSamples(self.samples, self.seed)[key] for key in self._keys(step))
        good = [sample for sample in loaded if not isinstance(sample, UserError)]
        images, targets = default_collate(good) if good else (torch.empty(0), torch.empty(0))
        content = {
            "step": step,
            **about,
            "images": images,
            "targets": targets,
            "model": self.model.state_dict(),
            "config": self.config,
        }
        atomic.write(self.path, lambda temporary: torch.save(content, temporary))

    def _keys(self, step: int) -> list[tuple[int, int]]:
        steps = StepSampler(
            length=len(self.samples), batch_size=self.batch_size, seed=self.seed, start=step - 1, stop=step
        )
        return next(iter(steps))
