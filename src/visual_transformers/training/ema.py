"""The exponential moving average of a model's weights (EMA), by torch's AveragedModel."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """A copy of the model, `module`, that holds the average of its weights and buffers over `update_parameters`.

    The first call copies them; each later one keeps a share of `decay` and takes the rest from the model. Give it the
    model as it was built, neither compiled nor wrapped. Integers, as batch norm's count of batches, are copied.

    torch's own update copies its count of calls to the device, and waits for that, at every step; and it would round an
    average of integers down. So the update is ours, while state and copy are torch's.

    Args:
        model: on its device, its layers frozen and synchronised already.
        decay: above 0 and below 1; the paper's is 0.99985 at a batch of 2048.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take a model's weights and buffers into the average."""
        averages = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(averages, [*model.parameters(), *model.buffers()], strict=True))
        first = bool(self.n_averaged == 0)
        moving = [] if first else [pair for pair in pairs if pair[0].is_floating_point()]
        if moving:
            torch._foreach_lerp_([a for a, _ in moving], [b for _, b in moving], 1 - self.decay)
        for average, value in pairs:
            if first or not average.is_floating_point():
                average.copy_(value, non_blocking=True)
        self.n_averaged += 1
