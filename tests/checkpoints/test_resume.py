"""Runs that stop in the middle, in whatever way, and go on."""

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
from visual_transformers.training.components import Parts
from visual_transformers.training.start import started
from visual_transformers.training.trainer import TrainRun

ADVANCED = ("model.dropout=0.2", "model.stochastic_depth=0.2", "task.label_smoothing=0.1", "training.log_every=3")
"""Settings under which a step depends on random numbers, and records do not end with epochs."""


class CrashError(Exception):
    """Stands for a process that is gone: nothing of ours catches it."""


def records(directory: Path) -> list[dict]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory) -> Path:
    """The folder of a run of 2 epochs of 4 steps that nothing stopped."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    runner.train(tiny(*ADVANCED), directory)
    return directory


@pytest.fixture(scope="module")
def crashed(tiny, tmp_path_factory) -> Path:
    """The folder of the same run, which saved its state every step and died in its sixth."""
    directory = tmp_path_factory.mktemp("crashed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainRun, "step", crashing(TrainRun.step, 6))
        with pytest.raises(CrashError):
            runner.train(tiny(*ADVANCED, "checkpoint.every.steps=1"), directory)
    return directory


def crashing(step, when: int):
    def step_or_crash(run, batch):
        step(run, batch)
        if run.state.step == when:
            raise CrashError

    return step_or_crash


def check_same(found: Path, expected: Path) -> None:
    one, other = (train_state.latest(RunDirectory(path)).content for path in (expected, found))
    for part in ("model", "optimizer", "schedule", "ranking"):
        assert equal(one[part], other[part]), part
    assert records(found) == records(expected)
    scores = [json.loads((path / "summary.json").read_text())["scores"] for path in (found, expected)]
    assert scores[0] == scores[1]


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def test_a_run_that_died_goes_on_from_its_last_state_and_ends_as_the_uninterrupted_one(
    tiny, crashed, uninterrupted, tmp_path
):
    directory = shutil.copytree(crashed, tmp_path / "run")
    assert train_state.latest(RunDirectory(directory)).content["step"] == 5
    runner.train(tiny(*ADVANCED), directory)
    check_same(directory, uninterrupted)


@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_torn_last_state_falls_back_to_the_one_before(tiny, crashed, uninterrupted, tmp_path, capsys, damage):
    directory = shutil.copytree(crashed, tmp_path / "run")
    last = RunDirectory(directory).last
    last.unlink() if damage == "missing" else last.write_bytes(last.read_bytes()[:10_000])
    runner.train(tiny(*ADVANCED), directory)
    said = capsys.readouterr().err
    assert "going on from the state before it, of step 4" in said
    assert str(last) in said
    check_same(directory, uninterrupted)


def test_a_torn_state_does_not_take_the_place_of_the_good_one_before(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    files = RunDirectory(directory)
    files.last.write_bytes(b"torn")
    run = started(tiny(*ADVANCED), files)
    run.save()
    assert [train_state.read(path)["step"] for path in (files.last, files.previous) if path.exists()] == [4, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_run_stopped_within_an_evaluation_loses_nothing(tiny, uninterrupted, tmp_path, monkeypatch, number):
    logits = Parts.logits

    def logits_and_signal(parts, images):
        os.kill(os.getpid(), number)
        return logits(parts, images)

    monkeypatch.setattr(Parts, "logits", logits_and_signal)
    with pytest.raises(Interrupted, match="stopped at step 4 of 8"):
        runner.train(tiny(*ADVANCED), tmp_path)
    monkeypatch.undo()
    assert [record["kind"] for record in records(tmp_path)] == ["step"]
    runner.train(tiny(*ADVANCED), tmp_path)
    check_same(tmp_path, uninterrupted)


def test_a_checkpoint_of_another_folder_is_gone_on_from_and_then_the_run_s_own(tiny, crashed, uninterrupted, tmp_path):
    path = RunDirectory(crashed).previous  # of step 4
    command = tiny(*ADVANCED, f"resume={path}")
    runner.train(command, tmp_path)
    last = train_state.latest(RunDirectory(tmp_path)).content
    assert equal(last["model"], train_state.latest(RunDirectory(uninterrupted)).content["model"])
    assert records(tmp_path) == [record for record in records(uninterrupted) if record["step"] > 4]
    assert train_state.to_go_on_from(str(path), RunDirectory(tmp_path)).content["step"] == 8


def test_going_back_to_an_earlier_state_of_a_run_sets_the_rest_aside(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    runner.train(tiny(*ADVANCED, f"resume={directory}/checkpoints/previous.pt"), directory)
    assert (directory / "earlier-1/checkpoints/last.pt").is_file()
    assert records(directory)[0]["step"] == 6


def test_the_best_weights_come_along_from_another_folder(tiny, uninterrupted, tmp_path):
    """Of a run that had ended there is no later epoch to find better ones."""
    source = shutil.copytree(uninterrupted, tmp_path / "source")
    runner.train(tiny(*ADVANCED, f"resume={source}/checkpoints/last.pt"), tmp_path / "run")
    best = "checkpoints/best.safetensors"
    assert (tmp_path / "run" / best).read_bytes() == (source / best).read_bytes()
    (source / best).unlink()
    with pytest.raises(RunError, match="its best weights are not beside it"):
        runner.train(tiny(*ADVANCED, f"resume={source}/checkpoints/last.pt"), tmp_path / "other")


def test_the_same_command_goes_on_when_the_checkpoint_it_names_is_gone(tiny, crashed, tmp_path):
    source = shutil.copytree(crashed, tmp_path / "source") / "checkpoints/previous.pt"
    files = RunDirectory(tmp_path / "run")
    started(tiny(*ADVANCED, f"resume={source}"), files)  # and is killed here
    source.unlink()
    assert started(tiny(*ADVANCED, f"resume={source}"), files).state.step == 4


@pytest.mark.parametrize(("begun_by", "goes_on"), [("7", True), ("6", False)])
def test_a_new_run_that_its_scheduler_starts_again_goes_on_only_with_what_it_has_begun(
    tiny, crashed, tmp_path, monkeypatch, begun_by, goes_on
):
    directory = shutil.copytree(crashed, tmp_path / "run")
    monkeypatch.setenv("SLURM_JOB_ID", begun_by)
    status.write(directory, "queued")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run = started(tiny(*ADVANCED, "resume=never"), RunDirectory(directory))
    assert run.state.step == (5 if goes_on else 0)
    assert (directory / "earlier-1").is_dir() != goes_on


def test_fewer_steps_than_were_taken_are_refused(tiny, uninterrupted, tmp_path):
    directory = shutil.copytree(uninterrupted, tmp_path / "run")
    with pytest.raises(RunError, match="is of step 8, and this run is to have 4"):
        runner.train(tiny(*ADVANCED, "training.epochs=1", "resume.allow=[training.epochs]"), directory)


def test_an_average_may_begin_later(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    runner.train(tiny(*ADVANCED, "training.ema_decay=0.5", "resume.allow=[training.ema_decay]"), directory)
    assert "val_ema/top1" in records(directory)[-1]


def test_a_run_that_must_go_on_and_cannot_is_refused(tiny, tmp_path):
    with pytest.raises(RunError, match=r"resume=must: there is no .*last\.pt"):
        runner.train(tiny("resume=must"), tmp_path)
    with pytest.raises(RunError, match=r"resume=/nowhere: no such file; expected auto, must, never or"):
        runner.train(tiny("resume=/nowhere"), tmp_path)


def test_other_settings_can_be_allowed(tiny, crashed, tmp_path):
    """Three epochs in place of two: the rate follows the new schedule, and the rest goes on."""
    directory = shutil.copytree(crashed, tmp_path / "run")
    longer = (*ADVANCED, "training.epochs=3", "optimizer.lr=0.1", "optimizer.weight_decay=0.5")
    with pytest.raises(RunError, match=r"resume\.allow=\[training\.epochs,optimizer\.lr,optimizer\.weight_decay\]"):
        runner.train(tiny(*longer), directory)
    runner.train(tiny(*longer, "resume.allow=[training.epochs,optimizer]"), directory)
    rates = {record["step"]: record["lr"] for record in records(directory)}
    schedule = runner.TrainRun.build(tiny(*longer), RunDirectory(tmp_path / "other")).state.schedule
    expected = [schedule.get_last_lr()[0]]
    for _ in range(12):
        schedule.optimizer.step()
        schedule.step()
        expected.append(schedule.get_last_lr()[0])
    assert {step: rate for step, rate in rates.items() if step > 5} == {s: expected[s] for s in (6, 8, 9, 12)}
    assert train_state.latest(RunDirectory(directory)).content["optimizer"]["param_groups"][0]["weight_decay"] == 0.5


def test_a_full_disk_is_said_and_leaves_the_last_good_state(tiny, crashed, tmp_path):
    directory = shutil.copytree(crashed, tmp_path / "run")
    before = RunDirectory(directory).last.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # no file can grow beyond
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
def test_states_are_saved_by_steps_and_by_time(tiny, tmp_path, every, due):
    run = TrainRun.build(tiny(*every), RunDirectory(tmp_path))
    found = []
    for run.state.step in range(1, 6):
        if run.is_step_to_save or run.asks_to_save():
            found.append(run.state.step)
    assert found == due
    run.state.step = 4
    run.save()
    assert not run.is_step_to_save and not run.asks_to_save()


def test_the_best_few_weights_are_kept_and_the_others_go(tiny, tmp_path):
    runner.train(tiny("training.epochs=4", "checkpoint.top_k=2"), tmp_path)
    epochs = sorted((r for r in records(tmp_path) if r["kind"] == "epoch"), key=lambda r: -r["val/top1"])
    kept = {path.name for path in (tmp_path / "checkpoints/top").iterdir()}
    assert kept == {f"step-{record['step']:08d}.safetensors" for record in epochs[:2]}
    best = tmp_path / "checkpoints/top" / f"step-{epochs[0]['step']:08d}.safetensors"
    assert best.read_bytes() == (tmp_path / "checkpoints/best.safetensors").read_bytes()
