"""Meter of the steps since the last record: loss, gradient norm and images per second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from visual_transformers.checkpoints.train_state import StepEntry
from visual_transformers.distributed import collectives


class StepMeter:
    """Collects numbers as tensors, so that a step never waits for the device.

    Args:
        stop: called with the first entry whose loss or gradient norm is not finite; raises.
        earlier: entries of steps without a record yet, from a restored checkpoint.
    """

    def __init__(self, stop: Callable[[StepEntry], None], earlier: Sequence[StepEntry] = ()):
        self.stop = stop
        self._restart(earlier)

    def _restart(self, earlier: Sequence[StepEntry] = ()) -> None:
        self.entries = list(earlier)
        self.pending: list[StepEntry] = []
        self.tensors: list[Tensor] = []
        self.images = 0
        self.since = time.perf_counter()

    def add(self, step: int, lr: float, loss_and_norm: Tensor, images: int) -> None:
        """Add this rank's part of a step's loss and gradient norm, a tensor (2,), and its number of images."""
        self.pending.append([step, lr])
        self.tensors.append(loss_and_norm)
        self.images += images

    def unread(self) -> list[StepEntry]:
        """Return the entries of the steps without a record yet. Collective."""
        if self.tensors:
            numbers = collectives.all_reduce_sum(torch.stack(self.tensors)).tolist()
            self.entries += [[*step, *pair] for step, pair in zip(self.pending, numbers, strict=True)]
            self.pending, self.tensors = [], []
        for entry in self.entries:
            if not all(math.isfinite(number) for number in entry):
                self.stop(entry)
        return self.entries

    def read(self) -> dict[str, float]:
        """Return means over the steps since the last record, and images per second; begins a new record. Collective."""
        entries = self.unread()
        pace = self.images * collectives.world_size() / (time.perf_counter() - self.since)
        self._restart()
        record = {"images_per_second": round(pace, 1)}
        if entries:  # all steps may have been skipped
            _, _, losses, norms = zip(*entries, strict=True)
            means = {"train/loss": sum(losses) / len(losses), "train/gradient_norm": sum(norms) / len(norms)}
            record = means | record
        return record
