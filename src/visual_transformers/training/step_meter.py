"""Loss, gradient norm and pace of the steps since the last record, read from the device only when asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from visual_transformers.checkpoints.train_state import StepEntry
from visual_transformers.distributed import collectives


class Meter:
    """Collects numbers as tensors, so that a step never waits for the device.

    Args:
        refuse: called with the first entry whose loss or gradient norm is not finite; raises.
        earlier: entries of steps that are in no record yet, of a run that goes on.
    """

    def __init__(self, refuse: Callable[[StepEntry], None], earlier: Sequence[StepEntry] = ()):
        self.refuse = refuse
        self.restart(earlier)

    def restart(self, earlier: Sequence[StepEntry] = ()) -> None:
        """Begin a record."""
        self.known = list(earlier)
        self.steps: list[StepEntry] = []
        self.numbers: list[Tensor] = []
        self.images = 0
        self.since = time.perf_counter()

    def add(self, step: int, lr: float, loss_and_norm: Tensor, images: int) -> None:
        """Note this process's part of a step's loss and gradient norm, a tensor (2,), and how many images it had."""
        self.steps.append([step, lr])
        self.numbers.append(loss_and_norm)
        self.images += images

    def unread(self) -> list[StepEntry]:
        """Entries of the steps that are in no record yet. Collective: every process must call it."""
        if self.numbers:
            numbers = collectives.summed(torch.stack(self.numbers)).tolist()
            self.known += [[*step, *pair] for step, pair in zip(self.steps, numbers, strict=True)]
            self.steps, self.numbers = [], []
        for entry in self.known:
            if not all(math.isfinite(number) for number in entry):
                self.refuse(entry)
        return self.known

    def read(self) -> dict[str, float]:
        """Means over the steps since the last record, and images per second; starts the next record. Collective."""
        entries = self.unread()
        pace = self.images * collectives.ranks() / (time.perf_counter() - self.since)
        self.restart()
        record = {"images_per_second": round(pace, 1)}
        if entries:  # all of them may have been skipped
            _, _, losses, norms = zip(*entries, strict=True)
            record = {"train/loss": _mean(losses), "train/gradient_norm": _mean(norms), **record}
        return record


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
