"""Exponential moving average (EMA) of a model's weights, by torch's AveragedModel."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class ExponentialMovingAverage(AveragedModel):
    """Copy of the model, `module`, that holds the EMA of its weights and buffers.

    The first update copies them; each later one keeps the share `decay` of the average. Pass the model as it was built,
    neither compiled nor wrapped. Integers, e.g. batch norm's count of batches, are copied.

    Args:
        model: on its device, its batch norms frozen and synchronized already.
        decay: above 0 and below 1; 0.99985 in the paper at a batch of 2048.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, use_buffers=True)
        self._update_average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with a model's weights and buffers."""
        # Not torch's update: it copies its counter to the device and waits for it at every step, and it would average
        # integers and round them down.
        averages = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(averages, [*model.parameters(), *model.buffers()], strict=True))
        is_first = bool(self.n_averaged == 0)
        if moving := [] if is_first else [pair for pair in pairs if pair[0].is_floating_point()]:
            self._update_average([average for average, _ in moving], [value for _, value in moving], self.n_averaged)
        for average, value in pairs:
            if is_first or not average.is_floating_point():
                average.copy_(value, non_blocking=True)
        self.n_averaged += 1
