"""Learning rates by step, all of them torch's schedulers: a linear warm-up, then one of five shapes.

A warm-up takes at most half of the run, so that a first try of one epoch needs no other settings. Every schedule is a
factor of the full rate, so that parameter groups with rates of their own keep the ratio between them.
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
"""Usual part of the full rate at which a warm-up starts: torch's LinearLR cannot start at nothing."""


def cosine(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
    final_lr: float = 0.0,
) -> LRScheduler:
    """Half a cosine from the full rate down to `final_lr` at the last step.

    Raises:
        ConfigError: if a setting is out of range.
    """
    _at_least_0(final_lr=final_lr)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    # Not CosineAnnealingLR, whose last rate is one number for all groups: their ratio would be lost on the way there.
    last, length = final_lr / optimizer.defaults["lr"], total_steps - warmup
    fall = LambdaLR(optimizer, lambda step: last + (1 - last) * (1 + math.cos(math.pi * step / length)) / 2)
    return _after_warmup(warmup, warmup_start, optimizer, fall)


def polynomial(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
    power: float = 0.9,
) -> LRScheduler:
    """(1 - t)^power times the full rate, where t runs from 0 to 1.

    Raises:
        ConfigError: if a setting is out of range.
    """
    _above_0(power=power)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _after_warmup(warmup, warmup_start, optimizer, PolynomialLR(optimizer, total_steps - warmup, power))


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
    """The full rate times `gamma` once every `every_epochs` after the warm-up.

    Raises:
        ConfigError: if a setting is out of range, or `every_epochs` less than one step.
    """
    _above_0(every_epochs=every_epochs, gamma=gamma)
    if every_epochs * steps_per_epoch < 1:
        raise ConfigError(f"schedule.every_epochs={every_epochs} is less than one step of {steps_per_epoch} an epoch")
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    drops = StepLR(optimizer, round(every_epochs * steps_per_epoch), gamma)
    return _after_warmup(warmup, warmup_start, optimizer, drops)


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
    """The full rate times `gamma` at each of `milestones`, which are parts of the whole run, its warm-up included.

    A warm-up ends at the first of them at the latest.

    Raises:
        ConfigError: if a setting is out of range, or the milestones do not rise between 0 and 1.
    """
    _above_0(gamma=gamma)
    if not milestones or not all(low < high for low, high in pairwise([0.0, *milestones, 1.0])):
        raise ConfigError(
            f"schedule.milestones={milestones}: list one part of the run or more, rising, each above 0 and below 1, "
            "as [0.667,0.889]"
        )
    drops = [max(1, round(part * total_steps)) for part in milestones]
    warmup = min(_warmup_steps(warmup_epochs, steps_per_epoch, total_steps), drops[0])
    fall = MultiStepLR(optimizer, [drop - warmup for drop in drops], gamma)
    return _after_warmup(warmup, warmup_start, optimizer, fall)


def constant(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    warmup_start: float = WARMUP_START,
) -> LRScheduler:
    """The full rate after the warm-up.

    Raises:
        ConfigError: if a setting is out of range.
    """
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _after_warmup(warmup, warmup_start, optimizer, ConstantLR(optimizer, factor=1.0, total_iters=0))


def _warmup_steps(warmup_epochs: float, steps_per_epoch: int, total_steps: int) -> int:
    _at_least_0(warmup_epochs=warmup_epochs)
    return min(round(warmup_epochs * steps_per_epoch), total_steps // 2)


def _after_warmup(warmup: int, start: float, optimizer: Optimizer, schedule: LRScheduler) -> LRScheduler:
    if not 0 < start <= 1:
        raise ConfigError(f"schedule.warmup_start={start}: must be above 0 and at most 1, for it is a part of the rate")
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
