"""Training step: forward, backward, clipping and optimizer step, from a loader's batch to the new weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from visual_transformers.checkpoints.train_state import TrainState
from visual_transformers.config.schema import Config
from visual_transformers.data.loader import Batch, split_micro_batches
from visual_transformers.distributed import collectives
from visual_transformers.training.components import Components, first_batch
from visual_transformers.training.distillation import Distillation
from visual_transformers.training.nonfinite import NonFiniteGuard, Snapshot
from visual_transformers.training.param_groups import base_lr
from visual_transformers.training.step_meter import StepMeter


@dataclass(kw_only=True)
class TrainStep:
    """Take an optimizer step with the gradient of the whole batch, whatever ranks and micro-batches share it.

    Args:
        components: model, data, task and hardware.
        forward: the module to call in place of the model: wrapped in DistributedDataParallel, or compiled.
        state: optimizer, schedule, scaler, EMA and training scores, which a step changes.
        meter: records the loss and gradient norm of each step.
        guard: stops the run at a loss or gradient norm that is not finite.
    """

    cfg: Config
    components: Components
    forward: nn.Module
    distillation: Distillation | None
    state: TrainState
    meter: StepMeter
    guard: NonFiniteGuard
    steps_per_epoch: int

    @cached_property
    def mixing(self) -> Callable[[Tensor, Tensor], Any] | None:
        """Mixes images and targets of a batch on the device, e.g. mixup."""
        return self.components.data.build_mixing()

    def __call__(self, batch: Batch | None) -> None:
        """Take one step on this rank's share of a batch; None is a share without samples. Collective."""
        state, lr = self.state, base_lr(self.state.optimizer)
        self.components.hardware.seed_step(self.cfg.seed, state.step)
        self.components.model.train()
        images, targets = self.components.move(*(batch or self._empty_batch()))
        if self.mixing is not None and len(images):
            images, targets = self.mixing(images, targets)
        snapshot = Snapshot(self.components.model, state.scores) if self.cfg.training.skip_nonfinite else None
        loss, norm = self._accumulate(images, targets), self.clip()
        state.step += 1
        if self._is_usable(loss, norm, lr):
            self.meter.add(state.step, lr, torch.stack((loss, norm / collectives.world_size())), len(images))
            state.scaler.step(state.optimizer)
            if state.average:
                state.average.update_parameters(self.components.model)
        elif snapshot:
            snapshot.restore()
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()

    def _accumulate(self, images: Tensor, targets: Tensor) -> Tensor:
        """Accumulate the gradient over the micro-batches, and return this rank's part of the loss."""
        weight = collectives.all_reduce_sum(self.components.task.sum_weights(targets))
        weight = weight + (weight == 0)  # without valid targets the loss sum is 0, too
        ends = self._micro_batch_ends()
        micro_batches = zip(images.tensor_split(ends), targets.tensor_split(ends), strict=True)
        losses = []
        for i, micro_batch in enumerate(micro_batches):
            with self._no_sync() if i < len(ends) else nullcontext():
                losses.append(self.backward(*micro_batch, weight))
        return torch.stack(losses).sum()

    def _micro_batch_ends(self) -> tuple[int, ...]:
        """Return the indices at which this rank's share of the batch is cut into micro-batches."""
        samples, batch_size = len(self.components.sets["train"]), self.components.data.batch_size
        size = min(batch_size, samples - self.state.step % self.steps_per_epoch * batch_size)
        micro_batches = split_micro_batches(size, self.cfg.training.accumulate)
        shares = [len(indices[collectives.rank() :: collectives.world_size()]) for indices in micro_batches]
        return tuple(accumulate(shares))[:-1]

    def _no_sync(self) -> AbstractContextManager[None]:
        """Return a context without gradient all-reduce, which the last micro-batch does for all."""
        no_sync = getattr(self.forward, "no_sync", nullcontext)  # of DistributedDataParallel, compiled or not
        return no_sync()  # type: ignore[no-any-return]

    def backward(self, images: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Add the gradient of a micro-batch, count its predictions, and return its part of the loss.

        `weight` is the sum of the target weights of the whole batch, by which the loss is divided.
        """
        task, distillation = self.components.task, self.distillation
        with torch.autograd.set_detect_anomaly(self.cfg.debug.anomaly):
            with self.components.hardware.autocast():
                logits = self.forward(images)
                teacher_logits = distillation.compute_logits(images) if distillation else None
            loss_sum = task.loss_sum(logits, targets, training=True)
            if distillation and teacher_logits is not None:
                loss_sum = distillation.loss_sum(loss_sum, logits, teacher_logits, task.valid_mask(targets))
            loss = loss_sum / weight
            # DistributedDataParallel averages gradients over ranks, but the loss is already divided by the whole batch.
            self.state.scaler.scale(loss * collectives.world_size()).backward()
        self.state.scores.update(logits, task.class_indices(targets), loss_sum.detach(), task.sum_weights(targets))
        return loss.detach()

    def clip(self) -> Tensor:
        """Clip the gradient and return its norm before clipping."""
        self.state.scaler.unscale_(self.state.optimizer)
        trained = [parameter for parameter in self.components.model.parameters() if parameter.grad is not None]
        norm = get_total_norm(parameter.grad for parameter in trained)  # type: ignore[misc]
        if self.cfg.training.clip_norm is not None:
            clip_grads_with_norm_(trained, self.cfg.training.clip_norm, norm)
        if self.state.scaler.is_enabled():  # the scaler handles an overflow itself: it skips the step, lowers the scale
            norm = norm.nan_to_num(nan=0.0, posinf=0.0)
        return norm

    def _is_usable(self, loss: Tensor, norm: Tensor, lr: float) -> bool:
        """Check that loss and norm are finite, unless the check would make a GPU wait; then the meter checks later."""
        max_skipped = self.cfg.training.skip_nonfinite
        if max_skipped == 0 and loss.device.type != "cpu":
            return True
        numbers = collectives.all_reduce_sum(torch.stack((loss, norm / collectives.world_size()))).tolist()
        if all(math.isfinite(number) for number in numbers):
            return True
        if self.state.skipped_steps >= max_skipped:
            self.guard.stop([self.state.step, lr, *numbers])
        self.state.skipped_steps += 1
        print(f"skipped step {self.state.step}: its loss is {numbers[0]}, its gradient norm {numbers[1]}")
        return False

    def _empty_batch(self) -> Batch:
        """Return the share of a rank in a batch that has fewer samples than there are ranks."""
        images, targets = first_batch(self.components.sets["train"])
        return images[:0], targets[:0]
