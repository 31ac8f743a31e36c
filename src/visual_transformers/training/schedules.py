"""Learning rates by step, all of them torch's schedulers: a linear warm-up, then one of four shapes.

A warm-up takes at most half of the run, so that a first try of one epoch needs no other settings.
"""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    SequentialLR,
    StepLR,
)

from visual_transformers.errors import ConfigError

WARMUP_START = 0.01
"""Part of the full rate at which a warm-up starts: torch's LinearLR cannot start at nothing."""


def cosine(
    optimizer: Optimizer, *, steps_per_epoch: int, total_steps: int, warmup_epochs: float = 0.0, final_lr: float = 0.0
) -> LRScheduler:
    """Half a cosine from the full rate down to `final_lr` at the last step."""
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _after_warmup(warmup, optimizer, CosineAnnealingLR(optimizer, total_steps - warmup, eta_min=final_lr))


def polynomial(
    optimizer: Optimizer, *, steps_per_epoch: int, total_steps: int, warmup_epochs: float = 0.0, power: float = 0.9
) -> LRScheduler:
    """(1 - t)^power times the full rate, where t runs from 0 to 1."""
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _after_warmup(warmup, optimizer, PolynomialLR(optimizer, total_steps - warmup, power))


def step(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    total_steps: int,
    warmup_epochs: float = 0.0,
    every_epochs: float = 30.0,
    gamma: float = 0.1,
) -> LRScheduler:
    """The full rate times `gamma` once every `every_epochs` after the warm-up."""
    if every_epochs * steps_per_epoch < 1:
        raise ConfigError(f"schedule.every_epochs={every_epochs} is less than one step of {steps_per_epoch} an epoch")
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _after_warmup(warmup, optimizer, StepLR(optimizer, round(every_epochs * steps_per_epoch), gamma))


def constant(
    optimizer: Optimizer, *, steps_per_epoch: int, total_steps: int, warmup_epochs: float = 0.0
) -> LRScheduler:
    """The full rate after the warm-up."""
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    return _after_warmup(warmup, optimizer, ConstantLR(optimizer, factor=1.0, total_iters=0))


def _warmup_steps(warmup_epochs: float, steps_per_epoch: int, total_steps: int) -> int:
    if not 0 <= warmup_epochs < math.inf:
        raise ConfigError(f"schedule.warmup_epochs={warmup_epochs}: must be at least 0")
    return min(round(warmup_epochs * steps_per_epoch), total_steps // 2)


def _after_warmup(warmup: int, optimizer: Optimizer, schedule: LRScheduler) -> LRScheduler:
    if warmup == 0:
        return schedule
    rise = LinearLR(optimizer, start_factor=WARMUP_START, total_iters=warmup)
    return SequentialLR(optimizer, [rise, schedule], milestones=[warmup])
