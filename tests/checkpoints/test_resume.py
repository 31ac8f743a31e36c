"""Runs that are stopped, killed or crash, and resume."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from visual_transformers import runner
from visual_transformers.checkpoints import train_state
from visual_transformers.errors import Interrupted, RunError
from visual_transformers.runs import status
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.components import Components
from visual_transformers.training.trainer import Trainer, start_or_resume

ADVANCED = ("model.dropout=0.2", "model.stochastic_depth=0.2", "task.label_smoothing=0.1", "training.log_every=3")
"""Settings with random numbers in every step, and with records that do not end with an epoch."""


class CrashError(Exception):
    """Stands for the end of the process: no code of ours catches it."""


def records(directory: Path) -> list[dict]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory) -> Path:
    """Folder of an uninterrupted run of 2 epochs with 4 steps each."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    runner.train(tiny(*ADVANCED), directory)
    return directory


@pytest.fixture(scope="module")
def crashed(tiny, tmp_path_factory) -> Path:
    """Folder of the same run, which saved a checkpoint every step and crashed in its sixth."""
    directory = tmp_path_factory.mktemp("crashed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", crashing(Trainer.step, 6))
        with pytest.raises(CrashError):
            runner.train(tiny(*ADVANCED, "checkpoint.every.steps=1"), directory)
    return directory


def crashing(step, when: int):
    def step_or_crash(run, batch):
        step(run, batch)
        if run.state.step == when:
            raise CrashError

    return step_or_crash


def check_same(actual: Path, expected: Path) -> None:
    one, other = (train_state.read_latest(RunDirectory(path)).content for path in (expected, actual))
    for part in ("model", "optimizer", "schedule", "ranking"):
        assert equal(one[part], other[part]), part
    assert records(actual) == records(expected)
    scores = [json.loads((path / "summary.json").read_text())["scores"] for path in (actual, expected)]
    assert scores[0] == scores[1]


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def test_a_crashed_run_resumes_from_its_last_checkpoint_and_ends_like_the_uninterrupted_one(
    tiny, crashed, uninterrupted, tmp_path
):
    directory = shutil.copytree(crashed, tmp_path / "run")
    assert train_state.read_latest(RunDirectory(directory)).content["step"] == 5
    runner.train(tiny(*ADVANCED), directory)
    check_same(directory, uninterrupted)


@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_run_resumes_from_the_previous_checkpoint(tiny, crashed, uninterrupted, tmp_path, capsys, damage):
    directory = shutil.copytree(crashed, tmp_path / "run")
    last = RunDirectory(directory).last
    last.unlink() if damage == "missing" else last.write_bytes(last.read_bytes()[:10_000])
    runner.train(tiny(*ADVANCED), directory)
    printed = capsys.readouterr().err
    assert "resuming from the previous checkpoint, step 4" in printed
    assert str(last) in printed
    check_same(directory, uninterrupted)


def test_a_damaged_checkpoint_does_not_replace_the_previous_one(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    files = RunDirectory(directory)
    files.last.write_bytes(b"torn")
    run = start_or_resume(tiny(*ADVANCED), files)
    run.save()
    assert [train_state.read(path)["step"] for path in (files.last, files.previous) if path.exists()] == [4, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR2, marks=pytest.mark.slow)])
def test_a_run_stopped_during_an_evaluation_loses_nothing(tiny, uninterrupted, tmp_path, monkeypatch, number):
    logits = Components.logits

    def logits_and_signal(parts, images):
        os.kill(os.getpid(), number)
        return logits(parts, images)

    monkeypatch.setattr(Components, "logits", logits_and_signal)
    with pytest.raises(Interrupted, match="stopped at step 4 of 8"):
        runner.train(tiny(*ADVANCED), tmp_path)
    monkeypatch.undo()
    assert [record["kind"] for record in records(tmp_path)] == ["step"]
    runner.train(tiny(*ADVANCED), tmp_path)
    check_same(tmp_path, uninterrupted)


def test_a_checkpoint_of_another_folder_is_used_once_and_then_the_run_s_own(tiny, crashed, uninterrupted, tmp_path):
    path = RunDirectory(crashed).previous  # of step 4
    command = tiny(*ADVANCED, f"resume={path}")
    runner.train(command, tmp_path)
    last = train_state.read_latest(RunDirectory(tmp_path)).content
    assert equal(last["model"], train_state.read_latest(RunDirectory(uninterrupted)).content["model"])
    assert records(tmp_path) == [record for record in records(uninterrupted) if record["step"] > 4]
    assert train_state.select_checkpoint(str(path), RunDirectory(tmp_path)).content["step"] == 8


def test_resuming_from_an_earlier_checkpoint_sets_the_later_files_aside(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    runner.train(tiny(*ADVANCED, f"resume={directory}/checkpoints/previous.pt"), directory)
    assert (directory / "earlier-1/checkpoints/last.pt").is_file()
    assert records(directory)[0]["step"] == 6


def test_the_best_weights_are_copied_from_another_folder(tiny, uninterrupted, tmp_path):
    """A finished run has no later epoch that could find better ones."""
    source = shutil.copytree(uninterrupted, tmp_path / "source")
    runner.train(tiny(*ADVANCED, f"resume={source}/checkpoints/last.pt"), tmp_path / "run")
    best = "checkpoints/best.safetensors"
    assert (tmp_path / "run" / best).read_bytes() == (source / best).read_bytes()
    (source / best).unlink()
    with pytest.raises(RunError, match=r"best\.safetensors is missing next to it"):
        runner.train(tiny(*ADVANCED, f"resume={source}/checkpoints/last.pt"), tmp_path / "other")


def test_the_same_command_resumes_after_its_checkpoint_was_deleted(tiny, crashed, tmp_path):
    source = shutil.copytree(crashed, tmp_path / "source") / "checkpoints/previous.pt"
    files = RunDirectory(tmp_path / "run")
    start_or_resume(tiny(*ADVANCED, f"resume={source}"), files)  # and is killed here
    source.unlink()
    assert start_or_resume(tiny(*ADVANCED, f"resume={source}"), files).state.step == 4


@pytest.mark.parametrize(("started_by", "resumes"), [("7", True), ("6", False)])
def test_a_requeued_job_resumes_only_a_run_that_it_started_itself(
    tiny, crashed, tmp_path, monkeypatch, started_by, resumes
):
    directory = shutil.copytree(crashed, tmp_path / "run")
    monkeypatch.setenv("SLURM_JOB_ID", started_by)
    status.write(directory, "queued")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run = start_or_resume(tiny(*ADVANCED, "resume=never"), RunDirectory(directory))
    assert run.state.step == (5 if resumes else 0)
    assert (directory / "earlier-1").is_dir() != resumes


def test_fewer_steps_than_the_checkpoint_has_are_refused(tiny, uninterrupted, tmp_path):
    directory = shutil.copytree(uninterrupted, tmp_path / "run")
    with pytest.raises(RunError, match="is at step 8, but this run ends at step 4"):
        runner.train(tiny(*ADVANCED, "training.epochs=1", "resume.allow=[training.epochs]"), directory)


def test_the_ema_may_start_later(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    runner.train(tiny(*ADVANCED, "training.ema_decay=0.5", "resume.allow=[training.ema_decay]"), directory)
    assert "val_ema/top1" in records(directory)[-1]


def test_a_missing_checkpoint_that_must_exist_is_refused(tiny, tmp_path):
    with pytest.raises(RunError, match=r"resume=must: there is no .*last\.pt"):
        runner.train(tiny("resume=must"), tmp_path)
    with pytest.raises(RunError, match=r"resume=/nowhere: no such file; expected auto, must, never or"):
        runner.train(tiny("resume=/nowhere"), tmp_path)


def test_changed_settings_can_be_allowed(tiny, crashed, tmp_path):
    """Three epochs instead of two: the learning rate follows the new schedule."""
    directory = shutil.copytree(crashed, tmp_path / "run")
    longer = (*ADVANCED, "training.epochs=3", "optimizer.lr=0.1", "optimizer.weight_decay=0.5")
    with pytest.raises(RunError, match=r"resume\.allow=\[training\.epochs,optimizer\.lr,optimizer\.weight_decay\]"):
        runner.train(tiny(*longer), directory)
    runner.train(tiny(*longer, "resume.allow=[training.epochs,optimizer]"), directory)
    rates = {record["step"]: record["lr"] for record in records(directory)}
    schedule = runner.Trainer.build(tiny(*longer), RunDirectory(tmp_path / "other")).state.schedule
    expected = [schedule.get_last_lr()[0]]
    for _ in range(12):
        schedule.optimizer.step()
        schedule.step()
        expected.append(schedule.get_last_lr()[0])
    assert {step: rate for step, rate in rates.items() if step > 5} == {s: expected[s] for s in (6, 8, 9, 12)}
    assert (
        train_state.read_latest(RunDirectory(directory)).content["optimizer"]["param_groups"][0]["weight_decay"] == 0.5
    )


def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    before = RunDirectory(directory).last.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # a larger file cannot be written
    try:
        with pytest.raises(RunError, match=r"last\.pt cannot be written .* MiB are free there.*start the same command"):
            runner.train(tiny(*ADVANCED, "checkpoint.every.steps=1"), directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert RunDirectory(directory).last.read_bytes() == before
    assert {path.name for path in (directory / "checkpoints").iterdir()} == {
        "last.pt",
        "previous.pt",
        "best.safetensors",
    }


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (("checkpoint.every.steps=2", "checkpoint.every.minutes=null"), [2, 4]),
        (("checkpoint.every.steps=null", "checkpoint.every.minutes=null"), []),
        (("checkpoint.every.steps=null", "checkpoint.every.minutes=1e-9"), [1]),  # once, until it is saved
    ],
)
def test_checkpoints_are_due_by_steps_and_by_time(tiny, tmp_path, every, due):
    run = Trainer.build(tiny(*every), RunDirectory(tmp_path))
    steps = []
    for run.state.step in range(1, 6):
        if run.step_save_due or run.wants_timed_save():
            steps.append(run.state.step)
    assert steps == due
    run.state.step = 4
    run.save()
    assert not run.step_save_due and not run.wants_timed_save()


@pytest.mark.slow
def test_only_the_best_few_weights_are_kept(tiny, tmp_path):
    runner.train(tiny("training.epochs=4", "checkpoint.top_k=2"), tmp_path)
    epochs = sorted((r for r in records(tmp_path) if r["kind"] == "epoch"), key=lambda r: -r["val/top1"])
    kept = {path.name for path in (tmp_path / "checkpoints/top").iterdir()}
    assert kept == {f"step-{record['step']:08d}.safetensors" for record in epochs[:2]}
    best = tmp_path / "checkpoints/top" / f"step-{epochs[0]['step']:08d}.safetensors"
    assert best.read_bytes() == (tmp_path / "checkpoints/best.safetensors").read_bytes()
