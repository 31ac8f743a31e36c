from __future__ import annotations

import json

import pytest

from visual_transformers.loggers import Console, Files, Loggers, RunInfo, read_records


def step(number: int, loss: float) -> dict:
    return {"kind": "step", "step": number, "epoch": number / 2, "lr": 0.1, "train/loss": loss}


def epoch(number: int, top1: float) -> dict:
    return {"kind": "epoch", "step": number, "epoch": number / 2, "lr": 0.1, "train/loss": 1.0, "train/top1": top1,
            "val/loss": 1.0, "val/top1": top1}  # fmt: skip


def test_every_record_is_a_line_and_every_epoch_a_row(run):
    with Loggers([Files(curves=False)], run) as log:
        for record in (step(1, 3.0), step(2, 2.0), epoch(2, 0.5)):
            log.record(record)
    assert read_records(run.directory / "metrics.jsonl") == [step(1, 3.0), step(2, 2.0), epoch(2, 0.5)]
    header, row = (run.directory / "metrics.csv").read_text().splitlines()
    assert header == "step,epoch,lr,train/loss,train/top1,val/loss,val/top1"
    assert row == "2,1.0,0.1,1.0,0.5,1.0,0.5"


def test_records_after_the_step_at_which_a_run_resumes_are_dropped(run):
    lines = [step(1, 3.0), step(2, 2.0), step(3, 1.0)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.directory / "metrics.jsonl").write_text(text + '{"kind": "step", "st')  # of a killed run
    resumed = RunInfo("name", run.directory, "top1", step=2, evaluated_step=2, total_steps=4, headline="")
    with Loggers([Files(curves=False)], resumed) as log:
        log.record(step(3, 1.5))
    assert read_records(run.directory / "metrics.jsonl") == [step(1, 3.0), step(2, 2.0), step(3, 1.5)]


def test_curves_are_drawn_even_when_a_run_fails(run):
    with pytest.raises(RuntimeError), Loggers([Files(curves=True)], run) as log:
        log.record(step(1, 3.0))
        raise RuntimeError
    assert (run.directory / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_console_prints_plain_lines_without_a_terminal(run, capsys):
    with Loggers([Console()], run) as log:
        log.advance()
        log.record(epoch(2, 0.5))
    printed = capsys.readouterr().out
    assert "what runs" in printed
    assert "epoch 1  step 2  train/loss 1  train/top1 0.5" in printed
    assert "\x1b" not in printed


def test_an_epoch_s_line_has_the_loss_and_the_metric_and_no_other_score(run, capsys):
    with Loggers([Console()], run) as log:
        log.record(epoch(2, 0.5) | {"train/top5": 0.9, "val/top5": 0.8})
    assert "train/loss 1  train/top1 0.5  val/loss 1  val/top1 0.5\n" in capsys.readouterr().out


@pytest.mark.parametrize(("speed", "printed"), [(0.4, "0.4"), (9.9, "9.9"), (10.0, "10"), (123.4, "123")])
def test_a_slow_speed_has_a_decimal(run, capsys, speed, printed):
    with Loggers([Console(progress="bar")], run) as log:
        log.record(step(2, 1.0) | {"images_per_second": speed})
    assert f"  {printed} images/s" in capsys.readouterr().out


def test_the_console_shows_a_bar_if_it_is_configured(run, capsys):
    with Loggers([Console(progress="bar")], run) as log:
        for _ in range(3):
            log.advance()
        log.record(step(3, 1.25))
    printed = capsys.readouterr().out
    assert "3/4" in printed
    assert "train/loss 1.25" in printed
