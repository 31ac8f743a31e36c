"""Learning-rate schedules by step: a linear warm-up, followed by one of torch's schedulers.

The warm-up takes at most half of the run, so that a first try of one epoch needs no other settings. Every schedule
multiplies the base learning rate, so that the parameter groups keep the ratio of their learning rates. Every builder
raises a ConfigError for a setting out of range.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)

from visual_transformers.errors import ConfigError

WARMUP_START = 0.01
"""Default fraction of the base learning rate at which a warm-up starts; torch's LinearLR cannot start at 0."""


def cosine(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
    final_lr: float = 0.0,
) -> LRScheduler:
    """Build half a cosine from the base learning rate down to `final_lr` at the last step."""
    _at_least_0(final_lr=final_lr)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    # CosineAnnealingLR has one final learning rate for all groups, so that their ratio would change on the way there.
    last, length = final_lr / optimizer.defaults["lr"], total_steps - warmup
    decay = LambdaLR(optimizer, lambda step: last + (1 - last) * (1 + math.cos(math.pi * step / length)) / 2)
    return _with_warmup(warmup, warmup_start, optimizer, decay)


def polynomial(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
    power: float = 0.9,
) -> LRScheduler:
    """Build a polynomial decay: (1 - t)^power times the base learning rate, with t from 0 to 1."""
    _above_0(power=power)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _with_warmup(warmup, warmup_start, optimizer, PolynomialLR(optimizer, total_steps - warmup, power))


def step(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
    every_epochs: float = 30.0,
    gamma: float = 0.1,
) -> LRScheduler:
    """Multiply the learning rate by `gamma` every `every_epochs` epochs after the warm-up."""
    _above_0(every_epochs=every_epochs, gamma=gamma)
    if every_epochs * steps_per_epoch < 1:
        raise ConfigError(f"schedule.every_epochs={every_epochs} is less than one step of {steps_per_epoch} an epoch")
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    drops = StepLR(optimizer, round(every_epochs * steps_per_epoch), gamma)
    return _with_warmup(warmup, warmup_start, optimizer, drops)


def multi_step(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    milestones: list[float],
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
    gamma: float = 0.1,
) -> LRScheduler:
    """Multiply the learning rate by `gamma` at each of `milestones`, fractions of the run including its warm-up.

    The warm-up ends at the first milestone at the latest.
    """
    _above_0(gamma=gamma)
    if not milestones or not all(low < high for low, high in pairwise([0.0, *milestones, 1.0])):
        raise ConfigError(
            f"schedule.milestones={milestones}: must be increasing fractions of the run, above 0 and below 1, e.g. "
            "[0.667,0.889]"
        )
    steps = [max(1, round(fraction * total_steps)) for fraction in milestones]
    warmup = min(_warmup_steps(warmup_epochs, steps_per_epoch, total_steps), steps[0])
    drops = MultiStepLR(optimizer, [step - warmup for step in steps], gamma)
    return _with_warmup(warmup, warmup_start, optimizer, drops)


def constant(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
) -> LRScheduler:
    """Keep the base learning rate after the warm-up."""
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _with_warmup(warmup, warmup_start, optimizer, ConstantLR(optimizer, factor=1.0, total_iters=0))


def _warmup_steps(warmup_epochs: float, steps_per_epoch: int, total_steps: int) -> int:
    _at_least_0(warmup_epochs=warmup_epochs)
    return min(round(warmup_epochs * steps_per_epoch), total_steps // 2)


def _with_warmup(warmup: int, start: float, optimizer: Optimizer, schedule: LRScheduler) -> LRScheduler:
    if not 0 < start <= 1:
        raise ConfigError(
            f"schedule.warmup_start={start}: must be above 0 and at most 1, a fraction of the learning rate"
        )
    if warmup == 0:
        return schedule
    rise = LinearLR(optimizer, start_factor=start, total_iters=warmup)
    return SequentialLR(optimizer, [rise, schedule], milestones=[warmup])


def _above_0(**settings: float) -> None:
    for key, value in settings.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"schedule.{key}={value}: must be above 0, and finite")


def _at_least_0(**settings: float) -> None:
    for key, value in settings.items():
        if not 0 <= value < math.inf:
            raise ConfigError(f"schedule.{key}={value}: must be at least 0, and finite")
