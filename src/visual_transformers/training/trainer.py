"""A training run: what it is made of, and what one step, one epoch's end and one saving of it do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from visual_transformers.checkpoints import top_k, weights
from visual_transformers.checkpoints.train_state import TrainState
from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Config, Node
from visual_transformers.data.loader import Batch, EvaluationBatches, parts_of_a_batch, training_batches
from visual_transformers.distributed import batch_norm, collectives
from visual_transformers.loggers import Record, RunInfo
from visual_transformers.loggers.profiler_trace import Trace
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.components import Parts, check_smallest_part, first_batch, parameters, taught_by
from visual_transformers.training.distillation import Distillation
from visual_transformers.training.ema import MovingAverage
from visual_transformers.training.evaluate import evaluate
from visual_transformers.training.metadata import about as facts_of
from visual_transformers.training.nonfinite import NonFinite, Undo
from visual_transformers.training.param_groups import full_rate, groups
from visual_transformers.training.step_meter import Meter


@dataclass
class TrainRun:
    """A training run: its parts, its state, its length, and what one step and one epoch's end do."""

    cfg: Config
    parts: Parts
    files: RunDirectory
    state: TrainState
    forward: nn.Module
    steps_per_epoch: int
    total_steps: int
    validation: EvaluationBatches
    distillation: Distillation | None = None
    saved: float = field(default_factory=time.monotonic)
    saved_step: int = 0
    asked_to_save: bool = False

    @classmethod
    def build(cls, cfg: Config, files: RunDirectory, file: weights.WeightFile | None = None) -> TrainRun:
        """A run at step 0, from the weights of a file if there is one. Collective."""
        parts = Parts.build(cfg, file, "train", "val", "test")
        batch_norm.freeze(parts.model, cfg.batch_norm.frozen)
        if cfg.batch_norm.sync:
            batch_norm.synchronised(parts.model)
        check_smallest_part(cfg, parts)
        steps_per_epoch = math.ceil(len(parts.sets["train"]) / parts.data.batch_size)
        total_steps = cfg.training.steps or cfg.training.epochs * steps_per_epoch
        rate, decay = cfg.optimizer.get("lr"), cfg.optimizer.get("weight_decay")
        grouped = groups(parts.model, cfg.parameters, lr=rate, weight_decay=decay)
        optimizer = build(cfg.optimizer, "optimizer", trust=cfg.trust, params=grouped)
        schedule = build(
            cfg.schedule,
            "schedule",
            trust=cfg.trust,
            optimizer=optimizer,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )
        state = TrainState(
            parts.model,
            optimizer,
            schedule,
            parts.hardware.scaler(),
            scores=parts.scores().persistent(),
            average=MovingAverage(parts.model, cfg.training.ema_decay) if cfg.training.ema_decay else None,
            bad_files=parts.data.bad_files(parts.sets["train"]),
        )
        together = collectives.with_summed_gradients(parts.model)
        forward = parts.forward if together is parts.model else parts.hardware.compiled(together)
        distillation = taught_by(cfg, parts) if cfg.distillation else None
        return cls(cfg, parts, files, state, forward, steps_per_epoch, total_steps, parts.batches("val"), distillation)

    @cached_property
    def mix(self) -> Callable[[Tensor, Tensor], Any] | None:
        """What each batch goes through on the device, as mixup."""
        return self.parts.data.mixing()

    @cached_property
    def no_samples(self) -> Batch:
        """The share of a process in a batch that has fewer samples than there are processes."""
        images, targets = first_batch(self.parts.sets["train"])
        return images[:0], targets[:0]

    @cached_property
    def meter(self) -> Meter:
        """Losses and gradient norms that are in no record yet."""
        return Meter(self.nonfinite.stop, self.state.unread)

    @cached_property
    def nonfinite(self) -> NonFinite:
        """What stops the run when a loss or a gradient is not finite."""
        samples, batch_size = self.parts.sets["train"], self.parts.data.batch_size
        model, path = self.parts.model, self.files.nonfinite
        return NonFinite(samples, batch_size, self.cfg.seed, model, path, self.cfg.everything)

    def batches(self) -> Iterator[Batch | None]:
        """What this process takes of the batches of the steps that are left."""
        return training_batches(
            self.parts.sets["train"],
            batch_size=self.parts.data.batch_size,
            seed=self.cfg.seed,
            start=self.state.step,
            stop=self.total_steps,
            parts=self.cfg.training.accumulate,
            loading=self.parts.hardware.loading,
            bad_files=self.state.bad_files,
        )

    def step(self, batch: Batch | None) -> None:
        """One optimizer step on a batch, in parts and on processes whose gradients add up to that of the whole."""
        parts, state, lr = self.parts, self.state, self.lr
        parts.hardware.seed_step(self.cfg.seed, state.step)
        parts.model.train()
        images, targets = parts.move(*(batch or self.no_samples))
        if self.mix is not None and len(images):
            images, targets = self.mix(images, targets)
        weight = collectives.summed(parts.task.weight(targets))
        weight = weight + (weight == 0)  # where no target counts the sum is 0, too
        undo = Undo(parts.model, state.scores) if self.cfg.training.skip_nonfinite else None
        losses = []
        ends = self.ends_of_the_parts()
        for i, (x, y) in enumerate(zip(images.tensor_split(ends), targets.tensor_split(ends), strict=True)):
            with self.gradients_stay_here() if i < len(ends) else nullcontext():
                losses.append(self.backward(x, y, weight))
        loss, norm = torch.stack(losses).sum(), self.clip()
        state.step += 1
        if self.usable(loss, norm):
            self.meter.add(state.step, lr, torch.stack((loss, norm / collectives.ranks())), len(images))
            state.scaler.step(state.optimizer)
            if state.average:
                state.average.update_parameters(parts.model)
        elif undo:
            undo()
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()

    def ends_of_the_parts(self) -> tuple[int, ...]:
        """Where to cut the share of this process: after its images of each part of the step's batch but the last."""
        samples, batch_size = len(self.parts.sets["train"]), self.parts.data.batch_size
        size = min(batch_size, samples - self.state.step % self.steps_per_epoch * batch_size)
        cut = parts_of_a_batch(size, self.cfg.training.accumulate)
        shares = [len(part[collectives.rank() :: collectives.ranks()]) for part in cut]
        return tuple(accumulate(shares))[:-1]

    def gradients_stay_here(self) -> AbstractContextManager[None]:
        """A context in which a backward pass sends nothing to other processes, for a later one does."""
        no_sync = getattr(self.forward, "no_sync", nullcontext)  # of DistributedDataParallel, compiled or not
        return no_sync()  # type: ignore[no-any-return]

    def backward(self, images: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Add the gradient of a part of a batch of that weight, count predictions, return that part of the loss."""
        parts, state, teacher = self.parts, self.state, self.distillation
        with torch.autograd.set_detect_anomaly(self.cfg.debug.anomaly):
            with parts.hardware.autocast():
                logits = self.forward(images)
                taught = teacher.teach(images) if teacher else None
            loss_sum = parts.task.loss_sum(logits, targets, training=True)
            if teacher and taught is not None:
                loss_sum = teacher.loss_sum(loss_sum, logits, taught, parts.task.counted(targets))
            loss = loss_sum / weight
            state.scaler.scale(loss * collectives.ranks()).backward()  # whose gradients are averaged over processes
        state.scores.update(logits, parts.task.hard(targets), loss_sum.detach(), parts.task.weight(targets))
        return loss.detach()

    def clip(self) -> Tensor:
        """Clip the gradient; returns its norm from before."""
        self.state.scaler.unscale_(self.state.optimizer)
        trained = [parameter for parameter in self.parts.model.parameters() if parameter.grad is not None]
        norm = get_total_norm(parameter.grad for parameter in trained)  # type: ignore[misc]
        if self.cfg.training.clip_norm is not None:
            clip_grads_with_norm_(trained, self.cfg.training.clip_norm, norm)
        if self.state.scaler.is_enabled():  # to which an overflow is no fault: it lowers the scale and goes on
            norm = norm.nan_to_num(nan=0.0, posinf=0.0)
        return norm

    def usable(self, loss: Tensor, norm: Tensor) -> bool:
        """Whether a step may be taken; where reading that would make a GPU wait, the next record tells. Collective.

        Raises:
            RunError: if a number is not finite, and no more such steps may be skipped.
        """
        if self.cfg.training.skip_nonfinite == 0 and loss.device.type != "cpu":
            return True
        numbers = collectives.summed(torch.stack((loss, norm / collectives.ranks()))).tolist()
        if all(math.isfinite(number) for number in numbers):
            return True
        if self.state.skipped_steps >= self.cfg.training.skip_nonfinite:
            self.nonfinite.stop([self.state.step, self.lr, *numbers])
        self.state.skipped_steps += 1
        print(f"skipped step {self.state.step}, whose loss is {numbers[0]} and gradient norm {numbers[1]}")
        return False

    @property
    def epoch_is_over(self) -> bool:
        """Whether the validation set is due."""
        state = self.state
        at_an_end = state.step % self.steps_per_epoch == 0 or state.step == self.total_steps
        return at_an_end and state.step > state.evaluated_step

    def close_epoch(self, stops: Callable[[], bool]) -> Record | None:
        """Score the validation set and keep the weights if they are among the best. Collective.

        Returns:
            The epoch's record, or None if it was stopped.
        """
        state, began = self.state, time.perf_counter()
        record = self.moment("epoch")
        record |= {f"train/{name}": value for name, value in state.scores.together().compute().items()}
        state.scores.apart()
        candidates = {"val": self.parts.model} | ({"val_ema": state.average.module} if state.average else {})
        found = {}
        for split, model in candidates.items():
            scores = evaluate(self.parts.with_model(model), self.validation, stops)
            if scores is None:
                return None
            found[split] = scores.compute()
            record |= {f"{split}/{name}": value for name, value in found[split].items()}
        self.keep_the_best(found, candidates)
        skipped = {
            "skipped_train": len(state.bad_files.paths),
            "skipped_val": self.validation.skipped,
            "skipped_steps": state.skipped_steps,
        }
        record |= {name: count for name, count in skipped.items() if count}
        state.scores.reset()
        state.evaluated_step = state.step
        self.meter.since += time.perf_counter() - began  # the pace is that of training
        return record

    def keep_the_best(self, found: dict[str, dict[str, float]], models: dict[str, nn.Module]) -> None:
        """Keep the better of the models, the raw one and its average, if it is among the best so far."""
        metric, moment = self.cfg.task["metric"], self.moment("epoch")
        winner = max(found, key=lambda split: (not math.isnan(found[split][metric]), found[split][metric]))
        candidate = {"step": moment["step"], "epoch": moment["epoch"], "split": winner} | found[winner]
        about = {"classes": self.parts.data.classes, "config": self.cfg.everything}
        self.state.ranking = top_k.keep(
            self.state.ranking,
            candidate,
            models[winner],
            about,
            metric=metric,
            top_k=self.cfg.checkpoint.top_k,
            files=self.files,
        )

    def moment(self, kind: str) -> Record:
        """Where the run stands, as the beginning of a record."""
        return {"kind": kind, "step": self.state.step, "epoch": self.state.step / self.steps_per_epoch, "lr": self.lr}

    @property
    def lr(self) -> float:
        """The full learning rate of the next step."""
        return full_rate(self.state.optimizer)

    @property
    def is_step_to_save(self) -> bool:
        """Whether `checkpoint.every.steps` says so: to all processes alike."""
        every, step = self.cfg.checkpoint.every.steps, self.state.step
        return every is not None and step % every == 0 and step != self.saved_step

    def asks_to_save(self) -> bool:
        """Whether `checkpoint.every.minutes` says so by the clock of this process; once between two savings."""
        minutes = self.cfg.checkpoint.every.minutes
        if minutes is None or self.asked_to_save or self.state.step == self.saved_step:
            return False
        self.asked_to_save = time.monotonic() - self.saved >= 60 * minutes
        return self.asked_to_save

    def save(self) -> None:
        """Write the state from which the same command goes on. Collective: each process has counted a part of it."""
        state = self.state
        state.unread = self.meter.unread()
        state.bad_files.paths = collectives.united(state.bad_files.paths)
        state.bad_files.check(len(state.bad_files.paths))
        now = time.monotonic()
        state.seconds += now - self.saved
        state.scores.together()
        if collectives.is_main():
            state.save(self.files, config=self.cfg.everything, data=self.data)
        collectives.wait_for_all()  # nobody goes on, let alone ends, before it is written
        state.scores.apart()
        self.saved, self.saved_step, self.asked_to_save = now, state.step, False

    @property
    def data(self) -> Node:
        """What a resumed run must find again in its data set."""
        return {"classes": self.parts.data.classes, "training_samples": len(self.parts.sets["train"])}

    def loggers(self) -> list[Any]:
        """Where progress goes: nowhere but from the main process."""
        if not collectives.is_main():
            return []
        loggers = [build(node, f"logger.{name}", trust=self.cfg.trust) for name, node in self.cfg.logger.items()]
        steps = self.cfg.debug.trace_steps
        return [*loggers, Trace(self.files.trace, steps)] if steps else loggers

    def info(self) -> RunInfo:
        """What the loggers are told before the first step."""
        parts, state, cfg = self.parts, self.state, self.cfg
        several = f"{collectives.ranks()} x " if collectives.ranks() > 1 else ""
        headline = (
            f"{cfg.name}: {parameters(parts.model) / 1e6:.2f} M parameters, {len(parts.sets['train'])} training and "
            f"{len(parts.sets['val'])} validation samples, {len(parts.data.classes)} classes, "
            f"steps {state.step} to {self.total_steps} on {several}{parts.hardware.device}, {parts.hardware.precision}"
        )
        metric, evaluated = cfg.task["metric"], state.evaluated_step
        length = {"steps_per_epoch": self.steps_per_epoch, "total_steps": self.total_steps}
        about = facts_of(cfg, parts) | length | {"training_samples": len(parts.sets["train"])}
        return RunInfo(
            cfg.name, self.files.path, metric, state.step, evaluated, self.total_steps, headline, cfg.everything, about
        )
