"""Loss and pace of the steps since the last record, read from the device only when asked."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from visual_transformers.errors import RunError


class Meter:
    """Collects losses as tensors, so that a step never waits for the device."""

    def __init__(self, step: int):
        self.step = step
        self._restart()

    def _restart(self) -> None:
        self.losses: list[Tensor] = []
        self.images = 0
        self.since = time.perf_counter()

    def add(self, loss: Tensor, images: int) -> None:
        """Note a step's mean loss and how many images it had."""
        self.losses.append(loss)
        self.images += images

    def read(self) -> dict[str, float]:
        """Mean loss of the steps since the last reading, and images per second.

        Raises:
            RunError: if a loss is not finite, naming its step.
        """
        if not self.losses:
            return {}
        losses = torch.stack(self.losses).tolist()
        for step, loss in enumerate(losses, start=self.step + 1):
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss of step {step} is {loss}; the run stopped, and its checkpoints are from before. Lower "
                    "optimizer.lr, lengthen schedule.warmup_epochs or set training.clip_norm, under another name "
                    "or with resume=never"
                )
        pace = self.images / (time.perf_counter() - self.since)
        self.step += len(losses)
        self._restart()
        return {"train/loss": sum(losses) / len(losses), "images_per_second": round(pace, 1)}
