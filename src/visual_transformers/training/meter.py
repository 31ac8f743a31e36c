"""Loss and pace of the steps since the last record, read from the device only when asked."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from visual_transformers.errors import RunError


class Meter:
    """Collects losses as tensors, so that a step never waits for the device.

    Args:
        step: optimizer steps taken before.
        losses: of the last of those steps, where they are in no record yet.
    """

    def __init__(self, step: int, losses: Sequence[float] = ()):
        self.restart(step, losses)

    def restart(self, step: int, losses: Sequence[float] = ()) -> None:
        """Begin the record that follows the one of `step`."""
        self.earlier = list(losses)
        self.losses: list[Tensor] = []
        self.step = step - len(self.earlier)
        self.images = 0
        self.since = time.perf_counter()

    def add(self, loss: Tensor, images: int) -> None:
        """Note a step's mean loss and how many images it had."""
        self.losses.append(loss)
        self.images += images

    def unread(self) -> list[float]:
        """Losses of the steps since the last record.

        Raises:
            RunError: if one is not finite, naming its step.
        """
        losses = self.earlier + (torch.stack(self.losses).tolist() if self.losses else [])
        for step, loss in enumerate(losses, start=self.step + 1):
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss of step {step} is {loss}; the run stopped, and its checkpoints are from before. Lower "
                    "optimizer.lr, lengthen schedule.warmup_epochs or set training.clip_norm, under another name "
                    "or with resume=never"
                )
        return losses

    def read(self) -> dict[str, float]:
        """Mean loss of the steps since the last record, and images per second; starts the next record's."""
        losses = self.unread()
        pace = self.images / (time.perf_counter() - self.since)
        self.restart(self.step + len(losses))
        return {"train/loss": sum(losses) / len(losses), "images_per_second": round(pace, 1)}
