"""Losses and gradients that are not finite."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch import nn

from visual_transformers import runner
from visual_transformers.data.loader import LoaderOptions, training_batches
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import RunError
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.train_step import TrainStep
from visual_transformers.training.trainer import Trainer

SMALL = ("data.image_size=16", "data.batch_size=500", "training.epochs=1")


@pytest.fixture
def make_nan(monkeypatch):
    """`make_nan(*steps)`: the gradients of these steps become NaN, their losses do not."""

    def patch_backward(*steps):
        backward = TrainStep.backward

        def backward_to_nan(train_step, *batch):
            loss = backward(train_step, *batch)
            if train_step.state.step + 1 in steps:
                next(train_step.components.model.parameters()).grad[0] = torch.nan
            return loss

        monkeypatch.setattr(TrainStep, "backward", backward_to_nan)

    return patch_backward


def test_a_gradient_that_is_not_finite_stops_the_run_with_step_rate_samples_and_a_dump(tiny, tmp_path, make_nan):
    make_nan(2)
    cfg = tiny(*SMALL, "schedule=constant")
    with pytest.raises(RunError) as stopped:
        runner.train(cfg, tmp_path)
    said = str(stopped.value)
    assert "the gradient norm of step 2 is nan (learning rate 0.001, loss" in said
    named = re.findall(r"training sample (\d+)", said)
    assert len(named) == 5 and "and 495 more" in said
    dump = torch.load(tmp_path / "nonfinite.pt", weights_only=True)
    assert (dump["step"], dump["lr"], len(dump["files"])) == (2, 0.001, 500)
    trainer = Trainer.build(cfg, RunDirectory(tmp_path))
    (_, batch, _) = training_batches(
        trainer.components.sets["train"], batch_size=500, seed=0, start=0, stop=3, loading=LoaderOptions()
    )
    assert torch.equal(dump["images"], batch[0]) and torch.equal(dump["targets"], batch[1])
    assert all(tensor.isfinite().all() for tensor in dump["model"].values())  # the step was not taken


@pytest.mark.slow
def test_the_configured_number_of_steps_is_skipped(tiny, tmp_path, make_nan, capsys):
    make_nan(1, 3)
    runner.train(tiny(*SMALL, "training.skip_nonfinite=2", "training.log_every=1"), tmp_path)
    assert capsys.readouterr().out.count("skipped step") == 2
    records = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert ["train/loss" in record for record in records] == [False, True, False, True]
    assert '"skipped_steps": 2' in records[-1]


def test_a_skipped_step_changes_nothing(tiny, tmp_path, monkeypatch):
    """Statistics, EMA and scores are restored; the fp16 scaler handles it like an overflow."""
    cfg = tiny(*SMALL, "training.skip_nonfinite=1", "training.ema_decay=0.5")
    monkeypatch.setattr(Hardware, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=4.0))
    trainer = Trainer.build(cfg, RunDirectory(tmp_path))
    monkeypatch.setattr(trainer.components, "move", lambda images, targets: (images.float() / 0 * 0, targets.long()))
    before = {name: value.clone() for name, value in trainer.state.model.state_dict().items()}
    (first, second), scores = itertools.islice(trainer.batches(), 2), trainer.state.scores
    trainer.step(first)
    assert trainer.state.skipped_steps == 1
    assert all(torch.equal(before[name], value) for name, value in trainer.state.model.state_dict().items())
    assert scores.count.total == 0 and scores.confusion.counts.sum() == 0
    assert trainer.state.scaler.get_scale() == 2.0  # as after any overflow
    monkeypatch.undo()
    trainer.step(second)
    assert all(value.isfinite().all() for value in trainer.state.average.module.state_dict().values())
    assert len(trainer.meter.unread()) == 1


def test_one_step_more_than_configured_stops_the_run(tiny, tmp_path, make_nan):
    make_nan(1, 3)
    with pytest.raises(RunError, match="the gradient norm of step 3 is nan"):
        runner.train(tiny(*SMALL, "training.skip_nonfinite=1"), tmp_path)


class NaN(nn.Module):
    """The square root of zero, whose gradient is infinite, times zero."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(10))

    def forward(self, images):
        return (self.scale * 0).sqrt() * images.mean(dim=(1, 2, 3))[:, None]


def test_anomaly_detection_names_the_operation(tiny, tmp_path):
    cfg = tiny(*SMALL, "debug.anomaly=true")
    trainer = Trainer.build(cfg, RunDirectory(tmp_path))
    trainer.forward = NaN()
    with pytest.warns(UserWarning, match="Error detected"), pytest.raises(RuntimeError, match="returned nan values"):
        trainer.step(next(trainer.batches()))


def test_a_trace_of_some_steps_is_written(tiny, tmp_path):
    runner.train(tiny(*SMALL, "data.batch_size=150", "debug.trace_steps=2"), tmp_path)
    text = (tmp_path / "trace.json").read_text()
    assert text.count('"name": "ProfilerStep#') == 2
