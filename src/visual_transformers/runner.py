"""The single runner: `train`, `test`, and the loop. It reads from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visual_transformers import __version__
from visual_transformers.data.loading import EvaluationBatches, seeded, training_batches
from visual_transformers.data.module import spread
from visual_transformers.errors import BadFileError, Interrupted, RunError
from visual_transformers.loggers import Loggers, Record, RunInfo
from visual_transformers.metrics import Scores
from visual_transformers.models import weights
from visual_transformers.parts import Parts, check_smallest_part, parameters
from visual_transformers.results import Picture, Results
from visual_transformers.settings import Config, Node
from visual_transformers.targets import build
from visual_transformers.trained import say_other_settings, trained_weights
from visual_transformers.training.checkpoint import TrainState
from visual_transformers.training.interruption import Interruption
from visual_transformers.training.meter import Meter
from visual_transformers.training.parameters import full_rate, groups
from visual_transformers.training.rundir import RunDirectory


def train(cfg: Config, directory: Path) -> float:
    """Train anew, from `weights`, or from where this run stopped; then score the best weights.

    Returns:
        The best validation score of `task.metric`.

    Raises:
        UserError: for anything in the input that cannot work, before the first step.
        RunError: if the loss is no longer finite.
        Interrupted: on Ctrl-C or SIGTERM, after the state was saved.
    """
    files = RunDirectory(directory)
    goes_on = cfg.resume == "auto" and files.last.is_file()
    loggers = [build(node, f"logger.{name}") for name, node in cfg.logger.items()]
    run = TrainRun.build(cfg, files, weights.read(cfg.weights.file) if cfg.weights.file and not goes_on else None)
    if goes_on:
        run.state.restore(files.last, config=cfg.everything, data=run.data)
    elif cfg.resume == "never" and (aside := files.set_aside()):
        print(f"set the earlier run of this name aside in {aside}")
    files.write_config(cfg.everything)

    with Loggers(loggers, run.info()) as log, Interruption() as interruption:
        fit(run, log, interruption)
    if run.state.step < run.total_steps:
        raise Interrupted(
            f"stopped at step {run.state.step} of {run.total_steps}, saved in {files.last}; the same command goes on"
            + (" (without resume=never)" if cfg.resume == "never" else "")
        )

    parts = run.parts
    weights.load(parts.model, weights.read(files.best), backbone_only=False, classes=parts.data.classes)
    results = score(cfg, parts)
    results.write(directory, summary(cfg, parts) | {"best": run.state.best, "train_seconds": run.state.seconds})
    results.print(
        f"{cfg.name}: the best weights, from epoch {run.state.best['epoch']:g}, {scored_on(parts, results)}", directory
    )
    return run.state.best[cfg.task["metric"]]


def test(cfg: Config, directory: Path) -> float:
    """Score the weights of `weights`, or the best ones of this run, and leave the scores in `test/`.

    Returns:
        The score of `task.metric`.

    Raises:
        UserError: if there are no weights, they do not fit, or the data set is not as expected.
    """
    file = trained_weights(cfg, directory)
    parts = Parts.build(cfg, file, "test")
    say_other_settings(cfg, file)
    results = score(cfg, parts)
    results.write(directory / "test", summary(cfg, parts) | {"weights": str(file.path)})
    results.print(f"{cfg.name}: {file.path}, {scored_on(parts, results)}", directory / "test")
    return results.scores[cfg.task["metric"]]


def fit(run: TrainRun, log: Loggers, interruption: Interruption) -> None:
    """The loop: close an epoch when it is over, take a step, keep a record; save when asked to stop."""
    state, batches, meter = run.state, run.batches(), Meter(run.state.step, run.state.losses)
    while True:
        if state.step % run.steps_per_epoch == 0 and state.step > state.evaluated_step:
            meter.unread()
            log.record(run.close_epoch())
            meter.restart(state.step)
            run.save([])
        if state.step == run.total_steps:
            return
        if interruption.requested:
            run.save(meter.unread())
            return
        images, targets = next(batches)
        meter.add(run.step(images, targets), len(images))
        log.advance()
        if state.step % run.cfg.training.log_every == 0:
            log.record(run.moment("step") | meter.read())


@torch.inference_mode()
def evaluate(parts: Parts, batches: EvaluationBatches) -> Scores:
    """Score the model on every sample once.

    Raises:
        RunError: if the loader left samples out or gave some twice.
    """
    scores, seen = parts.scores(), 0
    parts.model.eval()
    for batch in batches:
        images, targets = parts.move(*batch)
        logits = parts.logits(images)
        loss_sum = parts.task.loss_sum(logits, targets, training=False)
        scores.update(logits, targets, loss_sum, parts.task.count(targets))
        seen += len(images)
    if seen + batches.skipped != batches.length:
        raise RunError(f"evaluated {seen} samples of a set of {batches.length}; the loader is at fault")
    return scores


@torch.inference_mode()
def score(cfg: Config, parts: Parts) -> Results:
    """Score the model on the test split, and draw some of it: samples spread evenly over the split."""
    batches = parts.batches("test")
    scores = evaluate(parts, batches)
    samples, pictures = parts.sets["test"], []
    for index in spread(len(samples), cfg.training.samples):
        try:
            image, target = samples[index]
        except BadFileError:  # said and counted by the evaluation
            continue
        images, _ = parts.move(image[None], torch.empty(0))
        prediction = parts.logits(images).argmax(dim=1)[0]
        pictures.append(Picture(image, torch.as_tensor(target), prediction.cpu()))
    return Results(scores.compute(), scores.table(), pictures, batches.skipped)


@dataclass
class TrainRun:
    """A training run: its parts, its state, its length, and what one step and one epoch's end do."""

    cfg: Config
    parts: Parts
    files: RunDirectory
    state: TrainState
    steps_per_epoch: int
    total_steps: int
    validation: EvaluationBatches
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def build(cls, cfg: Config, files: RunDirectory, file: weights.WeightFile | None = None) -> TrainRun:
        """A run at step 0, from the weights of a file if there is one."""
        parts = Parts.build(cfg, file, "train", "val", "test")
        check_smallest_part(cfg, parts)
        steps_per_epoch = math.ceil(len(parts.sets["train"]) / parts.data.batch_size)
        total_steps = cfg.training.epochs * steps_per_epoch
        rate, decay = cfg.optimizer.get("lr"), cfg.optimizer.get("weight_decay")
        grouped = groups(parts.model, cfg.parameters, lr=rate, weight_decay=decay)
        optimizer = build(cfg.optimizer, "optimizer", params=grouped)
        schedule = build(
            cfg.schedule, "schedule", optimizer=optimizer, steps_per_epoch=steps_per_epoch, total_steps=total_steps
        )
        scores = parts.scores().persistent()
        bad_files = parts.data.bad_files(parts.sets["train"])
        state = TrainState(parts.model, optimizer, schedule, parts.hardware.scaler(), scores, bad_files)
        return cls(cfg, parts, files, state, steps_per_epoch, total_steps, parts.batches("val"))

    @cached_property
    def mix(self) -> Callable[[Tensor, Tensor], Any] | None:
        """What each batch goes through on the device, as mixup."""
        return self.parts.data.mixing()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the steps that are left."""
        return training_batches(
            self.parts.sets["train"],
            batch_size=self.parts.data.batch_size,
            seed=self.cfg.seed,
            start=self.state.step,
            stop=self.total_steps,
            loading=self.parts.hardware.loading,
            bad_files=self.state.bad_files,
        )

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One optimizer step on a batch, in parts whose gradients add up to that of the whole; returns the loss."""
        parts, state = self.parts, self.state
        if len(images) == 0:  # all of them were skipped: the schedule goes on, and nothing is learned
            state.schedule.step()
            state.step += 1
            return torch.zeros((), device=parts.hardware.torch_device)
        parts.model.train()
        images, targets = parts.move(images, targets)
        if self.mix is not None:
            with seeded(self.cfg.seed, 0, state.step, MIXING):
                images, targets = self.mix(images, targets)
        weight = parts.task.weight(targets)
        weight = weight + (weight == 0)  # where no target counts the sum is 0, too
        total = torch.zeros((), device=images.device)
        for x, y in zip(*(t.tensor_split(self.cfg.training.accumulate) for t in (images, targets)), strict=True):
            if len(x) == 0:  # the last batch of an epoch may be smaller than the number of parts
                continue
            with parts.hardware.autocast():
                logits = parts.forward(x)
            loss_sum = parts.task.loss_sum(logits, y, training=True)
            state.scaler.scale(loss_sum / weight).backward()
            state.scores.update(logits, parts.task.hard(y), loss_sum.detach(), parts.task.weight(y))
            total += loss_sum.detach()
        if self.cfg.training.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(parts.model.parameters(), self.cfg.training.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()
        state.step += 1
        return total / weight

    def close_epoch(self) -> Record:
        """Score the validation set and keep the weights if they are the best so far; returns the epoch's record."""
        metric, state = self.cfg.task["metric"], self.state
        train, val = state.scores.compute(), evaluate(self.parts, self.validation).compute()
        record = self.moment("epoch")
        record |= {f"train/{name}": value for name, value in train.items()}
        record |= {f"val/{name}": value for name, value in val.items()}
        skipped = {"train": len(state.bad_files.paths), "val": self.validation.skipped}
        record |= {f"skipped_{split}": count for split, count in skipped.items() if count}
        if not state.best or val[metric] > state.best[metric]:
            state.best = {"step": state.step, "epoch": record["epoch"]} | val
            about = {"classes": self.parts.data.classes, "config": self.cfg.everything, "best": state.best}
            weights.save(self.files.best, self.parts.model, about)
        state.scores.reset()
        state.evaluated_step = state.step
        return record

    def moment(self, kind: str) -> Record:
        """Where the run stands, as the beginning of a record."""
        state, lr = self.state, full_rate(self.state.optimizer)
        return {"kind": kind, "step": state.step, "epoch": state.step / self.steps_per_epoch, "lr": lr}

    def save(self, losses: list[float]) -> None:
        """Write the state from which the same command goes on; `losses` are of the steps that are in no record yet."""
        self.state.losses = losses
        now = time.monotonic()
        self.state.seconds += now - self.started
        self.started = now
        self.state.save(self.files.last, config=self.cfg.everything, data=self.data)

    @property
    def data(self) -> Node:
        """What a resumed run must find again in its data set."""
        return {"classes": self.parts.data.classes, "training samples": len(self.parts.sets["train"])}

    def info(self) -> RunInfo:
        """What the loggers are told before the first step."""
        parts, state, cfg = self.parts, self.state, self.cfg
        headline = (
            f"{cfg.name}: {parameters(parts.model) / 1e6:.2f} M parameters, {len(parts.sets['train'])} training and "
            f"{len(parts.sets['val'])} validation samples, {len(parts.data.classes)} classes, "
            f"steps {state.step} to {self.total_steps} on {parts.hardware.device} in {parts.hardware.precision}"
        )
        return RunInfo(cfg.name, self.files.path, cfg.task["metric"], state.step, self.total_steps, headline)


MIXING = 1
"""Part of the seed of mixup and cutmix, beside the run's seed and the step."""


def scored_on(parts: Parts, results: Results) -> str:
    """The end of a title: what was scored."""
    split = "test" if parts.data.has_test_split else "validation"
    skipped = f", of which {results.skipped} were skipped" if results.skipped else ""
    return f"on the {len(parts.sets['test'])} samples of the {split} split{skipped}"


def summary(cfg: Config, parts: Parts) -> Node:
    """What a results file says of how it came about."""
    return {
        "name": cfg.name,
        "seed": cfg.seed,
        "model": cfg.model["_target_"],
        "data": cfg.data["_target_"],
        "parameters": parameters(parts.model),
        "device": str(parts.hardware.torch_device),
        "precision": parts.hardware.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "visual_transformers": __version__,
    }
