"""Real processes: a run on several of them gives the results of a run on one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import submitit
import torch
from torch import nn

from visual_transformers import runner
from visual_transformers.checkpoints import train_state
from visual_transformers.checkpoints.train_state import TrainState
from visual_transformers.data.digits import Digits
from visual_transformers.distributed import batch_norm, collectives, environment
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.distributed.launch import device_count, run_on_devices
from visual_transformers.errors import ConfigError, DataError, Interrupted, RunError
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.tasks.metrics import Scores
from visual_transformers.tasks.task import Classification
from visual_transformers.training.components import Components
from visual_transformers.training.trainer import Trainer

CASES = [(5, 1), (5, 2), (4, 2), (3, 3)]
"""Batch size and micro-batches: of 11 samples the last batch has 1, 1, 3 and 2."""


@dataclass(kw_only=True)
class Noise(Digits):
    """Eleven noisy images, in batches whose last is smaller than the others."""

    def train_set(self):
        generator = torch.Generator().manual_seed(7)
        images = torch.randint(256, (11, 3, 4, 4), generator=generator, dtype=torch.uint8)
        return [(image, i % 10) for i, image in enumerate(images)]


def without_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 10))


def with_batch_norm() -> nn.Module:
    return batch_norm.convert_sync_batch_norm(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 10))
    )


class ToDouble(nn.Module):
    def forward(self, images):
        return images.double() / 255


def train(cfg, build, batch_size: int, accumulate: int) -> tuple[nn.Module, Scores]:
    """Train a new model for two epochs on all ranks, and return it with its training scores."""
    cfg.training.accumulate = accumulate
    torch.manual_seed(3)
    model, data = build().double(), Noise(batch_size=batch_size)
    hardware = Hardware(channels_last=False, workers=0)
    components = Components(
        hardware, Classification(label_smoothing=0.1), data, {"train": data.train_set()}, model, model, ToDouble()
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    state = TrainState(model, optimizer, schedule, hardware.scaler(), components.make_scores().make_persistent())
    steps = -(-11 // batch_size)
    forward = collectives.wrap_ddp(model)
    files = RunDirectory(Path("unused"))
    trainer = Trainer(cfg, components, files, state, forward, steps, 2 * steps, validation=None)
    for batch in trainer.batches():
        trainer.step(batch)
    return model, state.scores.sync()


def train_all_cases(cfg, directory: Path) -> float:
    """Save the weights and training loss of every case."""
    for build, (batch_size, accumulate) in product((without_batch_norm, with_batch_norm), CASES):
        model, scores = train(cfg, build, batch_size, accumulate)
        losses = torch.tensor([scores.compute()["loss"]], dtype=torch.float64)
        if collectives.is_main():
            torch.save(
                model.state_dict() | {"loss": losses}, directory / f"{build.__name__}-{batch_size}-{accumulate}.pt"
            )
    return float(collectives.world_size())


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.slow
def test_several_processes_give_the_weights_and_the_loss_of_one(tiny, tmp_path, count):
    """Batches have uneven sizes, some below the world size, and are cut into micro-batches.

    Batch norms are synchronized, so that each micro-batch is normalized as a whole.
    """
    several = tiny(f"hardware.devices={count}", "training.clip_norm=0.1")
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir(), many.mkdir()
    train_all_cases(tiny("training.clip_norm=0.1"), one)
    assert run_on_devices(train_all_cases, several, many) == count
    files = sorted(path.name for path in one.iterdir())
    assert len(files) == 2 * len(CASES)
    for file in files:
        expected, found = (torch.load(folder / file) for folder in (one, many))
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9, msg=lambda m: f"{file} {m}")  # noqa: B023


DOUBLE = (
    "hardware.precision=fp64", "batch_norm.sync=true", "data.image_size=16", "data.batch_size=55",
    "training.steps=4", "checkpoint.every.steps=1",
)  # fmt: skip


@pytest.mark.slow
def test_a_whole_run_on_two_devices_with_synchronised_batch_norm_is_that_on_one(tiny, tmp_path):
    """Weights, records and scores agree, although 55 images are shared unevenly."""
    for count in (1, 2):
        cfg = tiny(*DOUBLE, f"hardware.devices={count}", "training.ema_decay=0.5")
        run_on_devices(runner.train, cfg, tmp_path / str(count))
    one, two = (torch.load(tmp_path / count / "checkpoints" / "last.pt", weights_only=True) for count in "12")
    for part in ("model", "average"):
        for name, expected in one[part].items():
            torch.testing.assert_close(two[part][name], expected, rtol=1e-5, atol=1e-5)
    records = [
        [json.loads(line) for line in (tmp_path / count / "metrics.jsonl").read_text().splitlines()] for count in "12"
    ]
    for expected, found in zip(*records, strict=True):
        assert expected.pop("kind") == found.pop("kind")
        expected.pop("images_per_second", None), found.pop("images_per_second", None)
        assert found == pytest.approx(expected, rel=1e-5)
    scores = [json.loads((tmp_path / count / "summary.json").read_text())["scores"] for count in "12"]
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)


def fail_on_rank_1(cfg, directory: Path) -> float:
    """Fail on one rank while the other waits for it."""
    if collectives.rank() == 1:
        raise {"expected": DataError("a file is bad"), "mistake": ZeroDivisionError("ours")}[directory.name]
    return float(collectives.all_reduce_sum(torch.ones(1)))


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("expected", DataError, "^a file is bad$"),
        ("mistake", RuntimeError, r"(?s)process 1 failed:.*test_collectives.py.*ours"),
    ],
)
@pytest.mark.slow
def test_an_error_on_any_rank_stops_all_and_is_raised(tiny, kind, error, said):
    began = time.monotonic()
    with pytest.raises(error, match=said):
        run_on_devices(fail_on_rank_1, tiny("hardware.devices=2"), Path(kind))
    assert time.monotonic() - began < 60  # mostly for the start; a time-out of gloo takes half an hour


SMALL = (
    "hardware.threads=1", "logger=[files]", "logger.files.curves=false", "training.samples=2", "data.image_size=32",
    "data.batch_size=360", "model.token_channels=32", "training.epochs=1",
)  # fmt: skip


@pytest.mark.slow
def test_torchrun_starts_one_run(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m"]
    program = ["visual_transformers", "name=torchrun", *SMALL]
    done = subprocess.run([*command, *program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the best weights") == 1
    lines = (tmp_path / "runs/torchrun/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["epoch"]


def save_slowly_when_stopped(cfg, directory: Path) -> float:
    """Train, with a stop signal on rank 1 and a checkpoint that rank 0 writes slowly."""
    save, step = TrainState.save, Trainer.step

    def save_slowly(state, files, **options):
        time.sleep(12)  # longer than the launcher waits for ranks that do not write
        save(state, files, **options)

    def step_and_signal(trainer, batch):
        step(trainer, batch)
        if collectives.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)  # all ranks stop, whichever receives it

    TrainState.save, Trainer.step = save_slowly, step_and_signal
    return runner.train(cfg, directory)


@pytest.mark.slow
def test_a_stop_of_several_processes_waits_for_the_checkpoint(tiny, tmp_path):
    cfg = tiny("hardware.devices=2", "data.image_size=16", "data.batch_size=50")
    with pytest.raises(Interrupted, match="stopped at step 2 of"):  # signalled after step 1, agreed one step later
        run_on_devices(save_slowly_when_stopped, cfg, tmp_path)
    assert train_state.read_latest(RunDirectory(tmp_path)).content["step"] == 2


def kill_rank_1(cfg, directory: Path) -> float:
    if collectives.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(collectives.all_reduce_sum(torch.ones(1)))


@pytest.mark.slow
def test_a_process_that_was_killed_is_named(tiny, tmp_path):
    with pytest.raises(RunError, match=r"process 1 terminated with signal SIGKILL.*memory"):
        run_on_devices(kill_rank_1, tiny("hardware.devices=2"), tmp_path)


def sum_ranks(cfg, directory: Path) -> float:
    """Return a number from which the ranks and the local world size can be read."""
    total = collectives.all_reduce_sum(torch.tensor([float(collectives.rank() + 1)]))
    return 10 * float(total) + collectives.local_world_size()


def run_as_task(cfg) -> float:
    environment.export_torchrun_env()
    return run_on_devices(sum_ranks, cfg, Path("unused"))


@pytest.mark.slow
def test_tasks_of_submitit_find_each_other(tiny, tmp_path):
    executor = submitit.LocalExecutor(tmp_path)
    executor.update_parameters(tasks_per_node=2, timeout_min=5)
    job = executor.submit(run_as_task, tiny())
    assert job.results() == [32.0, 32.0]


def test_collectives_work_in_a_single_process():
    model = nn.Linear(2, 2)
    assert (collectives.rank(), collectives.world_size(), collectives.is_main()) == (0, 1, True)
    assert collectives.wrap_ddp(model) is model
    assert collectives.gather_unique(["b", "a", "b"]) == ["b", "a"]
    assert collectives.DelayedMax()(2) == 2


def test_more_devices_than_there_are_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"hardware\.devices=3: this machine has 2"):
        device_count(tiny("hardware=gpu", "hardware.devices=3"))
    assert device_count(tiny("hardware=multi_gpu")) == 2
    with pytest.raises(ConfigError, match=r"hardware\.device=cuda:1 names one device"):
        device_count(tiny("hardware=gpu", "hardware.device=cuda:1", "hardware.devices=2"))
    with pytest.raises(ConfigError, match="null is for GPUs"):
        device_count(tiny("hardware.devices=null"))


def test_half_of_torchrun_s_environment_is_refused_with_what_is_missing(monkeypatch):
    monkeypatch.setitem(os.environ, "RANK", "0")
    with pytest.raises(ValueError, match="not LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, WORLD_SIZE"):
        environment.is_multi_process()
