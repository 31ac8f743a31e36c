"""Trainer: state of a training run, and the verbs of its loop: step, close an epoch, save, restore."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from visual_transformers import atomic
from visual_transformers.checkpoints import top_k, train_state, weights
from visual_transformers.checkpoints.train_state import Checkpoint, TrainState
from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Config, Node
from visual_transformers.data.loader import Batch, EvaluationBatches, training_batches
from visual_transformers.distributed import batch_norm, collectives
from visual_transformers.errors import RunError
from visual_transformers.loggers import Record, RunInfo
from visual_transformers.loggers.profiler_trace import Trace
from visual_transformers.runs import status
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.components import (
    Components,
    check_smallest_micro_batch,
    count_parameters,
    load_teacher,
)
from visual_transformers.training.distillation import Distillation
from visual_transformers.training.ema import ExponentialMovingAverage
from visual_transformers.training.evaluate import evaluate
from visual_transformers.training.metadata import run_metadata
from visual_transformers.training.nonfinite import NonFiniteGuard
from visual_transformers.training.param_groups import base_lr, param_groups
from visual_transformers.training.step_meter import StepMeter
from visual_transformers.training.train_step import TrainStep


def start_or_resume(cfg: Config, files: RunDirectory) -> Trainer:
    """Build the trainer and restore the checkpoint that `resume` selects. Collective."""
    how = cfg.resume.checkpoint
    if how == "never" and status.restart_count() and status.read(files.path).get("job") == status.slurm_job_id():
        how = "auto"  # a job that its scheduler restarts resumes the run that it has started itself
    checkpoint = train_state.select_checkpoint(how, files)
    with collectives.local_main_process_first():  # which downloads published weights
        file = weights.read(cfg.weights.file) if cfg.weights.file and not checkpoint else None
    trainer = Trainer.build(cfg, files, file)
    if checkpoint:
        trainer.restore(checkpoint)
    own, foreign = (checkpoint, None) if checkpoint and checkpoint.is_own else (None, checkpoint)
    best_weights = train_state.read_best_weights(foreign) if foreign else None
    if foreign:
        trainer.state.ranking = trainer.state.ranking[: 1 if best_weights else 0]
    collectives.barrier()  # every rank has read the existing files before they are moved
    if collectives.is_main():
        files.remove_partial_files(drop_last=own is not None and own.path == files.previous)
        if how not in ("auto", "must") and not own and (aside := files.set_aside()):
            print(f"set the earlier run of this name aside in {aside}")
        if best_weights:
            atomic.write(files.best, lambda temporary: temporary.write_bytes(best_weights))
        files.write_config(cfg.everything)
    if foreign:
        trainer.save()  # from now on the run resumes from its own checkpoint
    return trainer


@dataclass
class Trainer:
    """A training run: its components, its state, and the verbs of its loop.

    Args:
        forward: the module to call in place of the model: wrapped in DistributedDataParallel, or compiled.
        saved_at: time of the last checkpoint, seconds of the monotonic clock.
        timed_save_requested: since the last checkpoint, by this rank's clock.
    """

    cfg: Config
    components: Components
    files: RunDirectory
    state: TrainState
    forward: nn.Module
    steps_per_epoch: int
    total_steps: int
    validation: EvaluationBatches
    distillation: Distillation | None = None
    saved_at: float = field(default_factory=time.monotonic)
    saved_step: int = 0
    timed_save_requested: bool = False

    @classmethod
    def build(cls, cfg: Config, files: RunDirectory, file: weights.WeightFile | None = None) -> Trainer:
        """Build a trainer at step 0, with the weights of `file` if there is one. Collective."""
        components = Components.build(cfg, file, "train", "val", "test")
        model, data, hardware = components.model, components.data, components.hardware
        batch_norm.freeze_batch_norms(model, cfg.batch_norm.frozen)
        if cfg.batch_norm.sync:
            batch_norm.convert_sync_batch_norm(model)
        check_smallest_micro_batch(cfg, components)
        steps_per_epoch = math.ceil(len(components.sets["train"]) / data.batch_size)
        total_steps = cfg.training.steps or cfg.training.epochs * steps_per_epoch
        lr, weight_decay = cfg.optimizer.get("lr"), cfg.optimizer.get("weight_decay")
        params = param_groups(model, cfg.parameters, lr=lr, weight_decay=weight_decay)
        optimizer = build(cfg.optimizer, "optimizer", trust=cfg.trust, params=params)
        schedule = build(
            cfg.schedule,
            "schedule",
            trust=cfg.trust,
            optimizer=optimizer,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )
        state = TrainState(
            model,
            optimizer,
            schedule,
            hardware.scaler(),
            scores=components.make_scores().make_persistent(),
            average=ExponentialMovingAverage(model, cfg.training.ema_decay) if cfg.training.ema_decay else None,
            bad_files=data.bad_files(components.sets["train"]),
        )
        wrapped = collectives.wrap_ddp(model)
        forward = components.forward if wrapped is model else hardware.maybe_compile(wrapped)
        distillation = load_teacher(cfg, components) if cfg.distillation else None
        validation = components.batches("val")
        return cls(cfg, components, files, state, forward, steps_per_epoch, total_steps, validation, distillation)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint.

        Raises:
            RunError: if its settings differ, or it is beyond the last step of this run.
        """
        self.state.restore(checkpoint, config=self.cfg.everything, data=self.data_facts, allow=self.cfg.resume.allow)
        self.saved_step = self.state.step
        if self.state.step > self.total_steps:
            raise RunError(
                f"{checkpoint.path} is at step {self.state.step}, but this run ends at step {self.total_steps}. Raise "
                "training.epochs or training.steps, or choose another name."
            )

    def batches(self) -> Iterator[Batch | None]:
        """Iterate over this rank's shares of the batches of the remaining steps."""
        return training_batches(
            self.components.sets["train"],
            batch_size=self.components.data.batch_size,
            seed=self.cfg.seed,
            start=self.state.step,
            stop=self.total_steps,
            accumulate=self.cfg.training.accumulate,
            loading=self.components.hardware.loading,
            bad_files=self.state.bad_files,
        )

    def step(self, batch: Batch | None) -> None:
        """Take an optimizer step on this rank's share of a batch. Collective."""
        self.train_step(batch)

    @cached_property
    def train_step(self) -> TrainStep:
        """The training step with everything that it works on."""
        return TrainStep(
            cfg=self.cfg,
            components=self.components,
            forward=self.forward,
            distillation=self.distillation,
            state=self.state,
            meter=self.meter,
            guard=self.guard,
            steps_per_epoch=self.steps_per_epoch,
        )

    @cached_property
    def meter(self) -> StepMeter:
        """Losses and gradient norms that are not in a record yet."""
        return StepMeter(self.guard.stop, self.state.unread)

    @cached_property
    def guard(self) -> NonFiniteGuard:
        """Stops the run at a loss or gradient norm that is not finite."""
        return NonFiniteGuard(self.cfg, self.components, self.files.nonfinite)

    @property
    def evaluation_due(self) -> bool:
        """True at the end of an epoch, and of the run, until the validation split is scored."""
        state = self.state
        at_end = state.step % self.steps_per_epoch == 0 or state.step == self.total_steps
        return at_end and state.step > state.evaluated_step

    def close_epoch(self, should_stop: Callable[[], bool]) -> Record | None:
        """Score the validation split, and keep the weights if they are among the best. Collective.

        Returns:
            The epoch's record, or None if it was stopped.
        """
        state, began = self.state, time.perf_counter()
        record = self._record("epoch")
        record |= {f"train/{name}": value for name, value in state.scores.sync().compute().items()}
        state.scores.unsync()
        candidates = {"val": self.components.model} | ({"val_ema": state.average.module} if state.average else {})
        scores_by_split = {}
        for split, model in candidates.items():
            scores = evaluate(self.components.with_model(model), self.validation, should_stop)
            if scores is None:
                return None
            scores_by_split[split] = scores.compute()
            record |= {f"{split}/{name}": value for name, value in scores_by_split[split].items()}
        self._keep_best(scores_by_split, candidates)
        skipped = {
            "skipped_train": len(state.bad_files.paths),
            "skipped_val": self.validation.skipped,
            "skipped_steps": state.skipped_steps,
        }
        record |= {name: count for name, count in skipped.items() if count}
        state.scores.reset()
        state.evaluated_step = state.step
        self.meter.since += time.perf_counter() - began  # images per second are those of training
        return record

    def _keep_best(self, scores_by_split: dict[str, dict[str, float]], models: dict[str, nn.Module]) -> None:
        """Keep the better of model and EMA, if it is among the best so far."""
        metric, record = self.cfg.task["metric"], self._record("epoch")

        def order(split: str) -> tuple[bool, float]:
            score = scores_by_split[split][metric]
            return not math.isnan(score), score

        winner = max(scores_by_split, key=order)
        candidate = {"step": record["step"], "epoch": record["epoch"], "split": winner} | scores_by_split[winner]
        self.state.ranking = top_k.update_ranking(
            self.state.ranking,
            candidate,
            models[winner],
            {"classes": self.components.data.classes, "config": self.cfg.everything},
            metric=metric,
            top_k=self.cfg.checkpoint.top_k,
            files=self.files,
        )

    def step_record(self) -> Record:
        """Return the record of the steps since the last one. Collective."""
        return self._record("step") | self.meter.read()

    def _record(self, kind: str) -> Record:
        """Begin a record with the position of the run."""
        step, lr = self.state.step, base_lr(self.state.optimizer)
        return {"kind": kind, "step": step, "epoch": step / self.steps_per_epoch, "lr": lr}

    @property
    def step_save_due(self) -> bool:
        """True if `checkpoint.every.steps` asks for a checkpoint now, on all ranks alike."""
        every, step = self.cfg.checkpoint.every.steps, self.state.step
        return every is not None and step % every == 0 and step != self.saved_step

    def wants_timed_save(self) -> bool:
        """Return True once if `checkpoint.every.minutes` have passed by this rank's clock."""
        minutes = self.cfg.checkpoint.every.minutes
        if minutes is None or self.timed_save_requested or self.state.step == self.saved_step:
            return False
        self.timed_save_requested = time.monotonic() - self.saved_at >= 60 * minutes
        return self.timed_save_requested

    def save(self) -> None:
        """Write the checkpoint from which the same command resumes. Collective: every rank holds a part of it."""
        state = self.state
        state.unread = self.meter.unread()
        state.bad_files.paths = collectives.gather_unique(state.bad_files.paths)
        state.bad_files.check(len(state.bad_files.paths))
        now = time.monotonic()
        state.seconds += now - self.saved_at
        state.scores.sync()
        if collectives.is_main():
            state.save(self.files, config=self.cfg.everything, data=self.data_facts)
        collectives.barrier()  # no rank may continue, or even end, before the file is complete
        state.scores.unsync()
        self.saved_at, self.saved_step, self.timed_save_requested = now, state.step, False

    @property
    def data_facts(self) -> Node:
        """Facts of the data set that must be the same when the run is resumed."""
        return {"classes": self.components.data.classes, "training_samples": len(self.components.sets["train"])}

    def build_loggers(self) -> list[Any]:
        """Build the configured loggers on rank 0; other ranks have none."""
        if not collectives.is_main():
            return []
        loggers = [build(node, f"logger.{name}", trust=self.cfg.trust) for name, node in self.cfg.logger.items()]
        steps = self.cfg.debug.trace_steps
        return [*loggers, Trace(self.files.trace, steps)] if steps else loggers

    def run_info(self) -> RunInfo:
        """Describe the run for the loggers, before its first step."""
        components, state, cfg = self.components, self.state, self.cfg
        training_samples, world_size = len(components.sets["train"]), collectives.world_size()
        headline = (
            f"{cfg.name}: {count_parameters(components.model) / 1e6:.2f} M parameters, {training_samples} training and "
            f"{len(components.sets['val'])} validation samples, {len(components.data.classes)} classes, "
            f"steps {state.step} to {self.total_steps} on {f'{world_size} x ' if world_size > 1 else ''}"
            f"{components.hardware.device}, {components.hardware.precision}"
        )
        length = {"steps_per_epoch": self.steps_per_epoch, "total_steps": self.total_steps}
        return RunInfo(
            name=cfg.name,
            directory=self.files.path,
            metric=cfg.task["metric"],
            step=state.step,
            evaluated_step=state.evaluated_step,
            total_steps=self.total_steps,
            headline=headline,
            config=cfg.everything,
            metadata=run_metadata(cfg, components) | length | {"training_samples": training_samples},
        )
