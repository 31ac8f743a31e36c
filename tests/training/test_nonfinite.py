"""What a loss or a gradient that is not finite does to a run."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch import nn

from visual_transformers import runner
from visual_transformers.data.loader import Loading, training_batches
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import RunError
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.trainer import TrainRun

SMALL = ("data.image_size=16", "data.batch_size=500", "training.epochs=1")


@pytest.fixture
def spoilt(monkeypatch):
    """`spoilt(*steps)`: the gradients of these steps are NaN, their losses fine."""

    def spoil(*steps):
        backward = TrainRun.backward

        def backward_and_spoil(run, *batch):
            loss = backward(run, *batch)
            if run.state.step + 1 in steps:
                next(run.parts.model.parameters()).grad[0] = torch.nan
            return loss

        monkeypatch.setattr(TrainRun, "backward", backward_and_spoil)

    return spoil


def test_a_gradient_that_is_not_finite_stops_the_run_with_step_rate_samples_and_a_dump(tiny, tmp_path, spoilt):
    spoilt(2)
    cfg = tiny(*SMALL, "schedule=constant")
    with pytest.raises(RunError) as stopped:
        runner.train(cfg, tmp_path)
    said = str(stopped.value)
    assert "the gradient norm of step 2 is nan (learning rate 0.001, loss" in said
    named = re.findall(r"training sample (\d+)", said)
    assert len(named) == 5 and "and 495 more" in said
    dump = torch.load(tmp_path / "nonfinite.pt", weights_only=True)
    assert (dump["step"], dump["lr"], len(dump["files"])) == (2, 0.001, 500)
    run = TrainRun.build(cfg, RunDirectory(tmp_path))
    (_, batch, _) = training_batches(
        run.parts.sets["train"], batch_size=500, seed=0, start=0, stop=3, loading=Loading()
    )
    assert torch.equal(dump["images"], batch[0]) and torch.equal(dump["targets"], batch[1])
    assert all(tensor.isfinite().all() for tensor in dump["model"].values())  # the step was not taken


def test_so_many_steps_as_asked_are_passed_over(tiny, tmp_path, spoilt, capsys):
    spoilt(1, 3)
    runner.train(tiny(*SMALL, "training.skip_nonfinite=2", "training.log_every=1"), tmp_path)
    assert capsys.readouterr().out.count("skipped step") == 2
    records = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert ["train/loss" in record for record in records] == [False, True, False, True]
    assert '"skipped_steps": 2' in records[-1]


def test_a_step_that_is_passed_over_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    """Neither in statistics, averages and scores, which the forward pass changed, nor in the scaler of fp16."""
    cfg = tiny(*SMALL, "training.skip_nonfinite=1", "training.ema_decay=0.5")
    monkeypatch.setattr(Hardware, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=4.0))
    run = TrainRun.build(cfg, RunDirectory(tmp_path))
    monkeypatch.setattr(run.parts, "move", lambda images, targets: (images.float() / 0 * 0, targets.long()))
    before = {name: value.clone() for name, value in run.state.model.state_dict().items()}
    (first, second), scores = itertools.islice(run.batches(), 2), run.state.scores
    run.step(first)
    assert run.state.skipped_steps == 1
    assert all(torch.equal(before[name], value) for name, value in run.state.model.state_dict().items())
    assert scores.count.total == 0 and scores.confusion.counts.sum() == 0
    assert run.state.scaler.get_scale() == 2.0  # as after any overflow
    monkeypatch.undo()
    run.step(second)
    assert all(value.isfinite().all() for value in run.state.average.module.state_dict().values())
    assert len(run.meter.unread()) == 1


def test_one_more_than_asked_stops_the_run(tiny, tmp_path, spoilt):
    spoilt(1, 3)
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
    run = TrainRun.build(cfg, RunDirectory(tmp_path))
    run.forward = NaN()
    with pytest.warns(UserWarning, match="Error detected"), pytest.raises(RuntimeError, match="returned nan values"):
        run.step(next(run.batches()))


def test_a_trace_of_some_steps_is_left(tiny, tmp_path):
    runner.train(tiny(*SMALL, "data.batch_size=150", "debug.trace_steps=2"), tmp_path)
    text = (tmp_path / "trace.json").read_text()
    assert text.count('"name": "ProfilerStep#') == 2
