"""The exponential moving average of a model's weights (EMA), by torch's AveragedModel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that holds the average of its weights and buffers over the calls of `update_parameters`.

    The first call copies them; each later one keeps a share of `decay` and takes the rest from the model. Give it the
    model as it was built, neither compiled nor wrapped. Its copy is `module`. No call waits for the device, for the
    count of calls stays on the CPU unless somebody moves the whole.

    Args:
        model: on its device, its layers frozen and synchronised already.
        decay: above 0 and below 1; the paper's is 0.99985 at a batch of 2048.
    """
    average = get_ema_multi_avg_fn(decay)

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            average(averages, values, count)
        else:  # torch would round an average of counts down, so that batch norm's would stay at 1
            torch._foreach_copy_(averages, values)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]
