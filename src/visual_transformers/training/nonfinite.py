"""Guard against losses and gradients that are not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset, default_collate

from visual_transformers import atomic
from visual_transformers.checkpoints.train_state import StepEntry
from visual_transformers.config.schema import Config
from visual_transformers.data.dataset import FileSamples
from visual_transformers.data.loader import SeededSamples, StepSampler
from visual_transformers.distributed import collectives
from visual_transformers.errors import RunError, UserError
from visual_transformers.training.components import Components

MAX_NAMED_FILES = 5
"""Files of the batch in the error message; the dump names all."""


class Snapshot:
    """Copy of the model's buffers and the training scores, both of which a forward pass changes."""

    def __init__(self, model: nn.Module, scores: nn.Module):
        self._scores = scores
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._counts = {name: value.clone() for name, value in scores.state_dict().items()}

    def restore(self) -> None:
        """Put the copies back, after a step that is skipped."""
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self._scores.load_state_dict(self._counts)


@dataclass
class NonFiniteGuard:
    """Stop a run at a step whose loss or gradient norm is not finite, and dump that step's batch and the weights."""

    cfg: Config
    components: Components
    path: Path

    def stop(self, entry: StepEntry) -> None:
        """Write the dump and raise. Collective.

        Raises:
            RunError: names the step, its learning rate and its files.
        """
        step, lr, loss, norm = int(entry[0]), *entry[1:]
        files = self._name_files(step)
        if collectives.is_main():
            self._dump(step, {"lr": lr, "loss": loss, "gradient_norm": norm, "files": files})
        collectives.barrier()  # no rank may end the run before the file is complete
        quantity, value = ("gradient norm", norm) if math.isfinite(loss) else ("loss", loss)
        more = f" and {len(files) - MAX_NAMED_FILES} more" if len(files) > MAX_NAMED_FILES else ""
        raise RunError(
            f"the {quantity} of step {step} is {value} (learning rate {lr:.4g}, loss {loss:.4g}, gradient norm "
            f"{norm:.4g}); its batch was {', '.join(files[:MAX_NAMED_FILES])}{more}. The checkpoints are from earlier "
            f"steps; {self.path} holds the batch and the weights. Lower optimizer.lr, lengthen schedule.warmup_epochs "
            "or set training.clip_norm, under another name or with resume=never. training.skip_nonfinite=K skips K "
            "such steps, and debug.anomaly=true names the operation."
        )

    def _name_files(self, step: int) -> list[str]:
        """Return the files of a step's samples, or their numbers if the samples are not files."""
        samples: Any = self.components.sets["train"]
        indices = [index for _, index in self._keys(step)]
        if isinstance(samples, Subset):  # because of debug.samples
            samples, indices = samples.dataset, [samples.indices[index] for index in indices]
        if isinstance(samples, FileSamples):
            return [samples.origins(index)[0] for index in indices]
        return [f"training sample {index}" for index in indices]

    def _dump(self, step: int, facts: dict[str, Any]) -> None:
        """Write the step's whole augmented batch and the current weights."""
        loaded = (SeededSamples(self.components.sets["train"], self.cfg.seed)[key] for key in self._keys(step))
        valid = [sample for sample in loaded if not isinstance(sample, UserError)]
        images, targets = default_collate(valid) if valid else (torch.empty(0), torch.empty(0))
        state = {"model": self.components.model.state_dict(), "config": self.cfg.everything}
        content = {"step": step, **facts, "images": images, "targets": targets, **state}
        atomic.write(self.path, lambda temporary: torch.save(content, temporary))

    def _keys(self, step: int) -> list[tuple[int, int]]:
        """Return (epoch, index) of the samples of a step."""
        length, batch_size = len(self.components.sets["train"]), self.components.data.batch_size
        sampler = StepSampler(length=length, batch_size=batch_size, seed=self.cfg.seed, start=step - 1, stop=step)
        return next(iter(sampler))
