"""Sweeps on a real SLURM cluster: see cluster.sh, and `make test-cluster`."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from tests.support.login_node import PATIENCE, wait_until
from tests.support.run_differences import of_records, unequal

from visual_transformers.loggers.wandb import transaction_log

pytestmark = pytest.mark.cluster
SMALL = ("model.token_channels=32", "data.batch_size=16", "training.steps=200")
"""A run that is long enough to be disturbed in its midst."""


def differences(whole: Path, other: Path) -> list[str]:
    """Weights, optimizer, scores and records of two runs that are not the same, bit for bit."""
    states = [torch.load(folder / "checkpoints/last.pt", weights_only=True) for folder in (whole, other)]
    one, two = ({key: state[key] for key in ("model", "optimizer", "schedule", "ranking", "step")} for state in states)
    lines = ((folder / "metrics.jsonl").read_text().splitlines() for folder in (whole, other))
    records = [[json.loads(line) for line in of_run] for of_run in lines]
    return [*unequal(one, two, "last.pt"), *of_records(*records, "metrics.jsonl")]


def test_an_array_of_jobs_trains_two_models_with_two_seeds_and_is_done_once(cluster):
    command = ["model=resnet18,vt_resnet18", "seed=0,1", "data.batch_size=16", "training.steps=20"]
    code, printed = cluster.sweep(*command)
    assert code == 0, printed
    assert "4 finished" in printed
    assert [cluster.status(number)["state"] for number in range(4)] == ["finished"] * 4
    models = [cluster.status(number)["about"]["model"] for number in range(4)]
    assert models == ["resnet18", "resnet18", "vt_resnet18", "vt_resnet18"]
    overrides = yaml.safe_load((cluster.job(3) / "overrides.yaml").read_text())
    assert {"model=vt_resnet18", "seed=1"} <= set(overrides)
    ids = [cluster.slurm_id(number) for number in range(4)]
    assert [number.split("_")[1] for number in ids] == ["0", "1", "2", "3"]

    code, printed = cluster.sweep(*command)
    assert code == 0
    assert "0 of 4 jobs are due" in printed
    assert [cluster.slurm_id(number) for number in range(4)] == ids


def test_processes_on_two_nodes_train_what_one_process_trains(cluster, undisturbed):
    exact = [
        "model.token_channels=32",
        "data.batch_size=18",
        "training.steps=20",
        "hardware.precision=fp64",
        "batch_norm.sync=true",
    ]
    code, printed = cluster.sweep("hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=2", *exact)
    assert code == 0, printed
    assert cluster.status()["about"]["devices"] == 4
    alone = torch.load(undisturbed(*exact) / "checkpoints/last.pt", weights_only=True)["model"]
    together = torch.load(cluster.job() / "checkpoints/last.pt", weights_only=True)["model"]
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


# The second as on clusters that warn of a time-out alone.
@pytest.mark.parametrize(("warning", "processes"), [("USR2", 2), ("TERM", 1)])
def test_a_preempted_job_is_queued_again_and_ends_as_if_undisturbed(cluster, undisturbed, warning, processes):
    options = f"+hydra.launcher.additional_parameters={{nodelist: node1, signal: {warning}@60}}"
    together = f"hydra.launcher.tasks_per_node={processes}"
    command = cluster.submit(*SMALL, together, options, "logger=[console,files,wandb]", "logger.wandb.mode=offline")
    wait_until(lambda: cluster.steps() > 20)
    cluster.ask("sbatch", "--partition=high", "--nodelist=node1", "--exclusive", "--time=1", "--output=/dev/null",
                "--wrap=sleep 5")  # fmt: skip
    wait_until(lambda: cluster.status()["state"] == "queued")
    assert 20 < cluster.steps() < 200
    cluster.start_again_soon()
    printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    assert cluster.status()["restarts"] == 1
    assert cluster.status()["about"]["devices"] == processes
    assert differences(undisturbed(*SMALL, f"hardware.devices={processes}"), cluster.job()) == []
    assert in_one_wandb_run(cluster.job() / "wandb") == Counter(moments(cluster.job() / "metrics.jsonl"))


def moments(path: Path) -> list[tuple[str, int]]:
    """Kind and step of each record."""
    return [(record["kind"], record["step"]) for record in map(json.loads, path.read_text().splitlines())]


def in_one_wandb_run(folder: Path) -> Counter[tuple[str, int]]:
    """How often each record is in the sessions of the one W&B run of a folder."""
    assert len({path.stem for path in transaction_log.list_logs(folder)}) == 1
    found = [row for path in transaction_log.list_logs(folder) for row in transaction_log.read_rows(path)]
    return Counter((row["kind"], row["step"]) for row in found if row["kind"] in ("step", "epoch"))


def test_a_job_out_of_time_is_queued_again_and_goes_on(cluster, undisturbed):
    command = cluster.submit(*SMALL, "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=80")
    wait_until(lambda: cluster.status().get("state") == "queued" and cluster.steps() > 0)
    cluster.start_again_soon("TimeLimit=10")
    printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    assert cluster.status()["restarts"] >= 1
    assert differences(undisturbed(*SMALL), cluster.job()) == []


def test_a_job_that_raises_leaves_its_traceback_in_its_log_and_in_the_table(cluster):
    broken = "+logger.broken._target_=torch.nn.Identity"  # which is no logger
    code, printed = cluster.sweep(*SMALL, broken, "seed=0,1")
    assert code == 1
    assert "2 failed" in printed
    for text in (printed, cluster.log(0), cluster.log(1)):
        assert "Traceback" in text
        assert "AttributeError: 'Identity' object has no attribute 'start'" in text
    assert cluster.status()["state"] == "failed"


def test_a_cancelled_job_says_so_and_goes_on_by_the_same_command(cluster, undisturbed):
    command = cluster.submit(*SMALL)
    wait_until(lambda: cluster.steps() > 20)
    cluster.ask("scancel", cluster.slurm_id())
    printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert "1 stopped" in printed

    code, printed = cluster.sweep(*SMALL)
    assert code == 0, printed
    assert differences(undisturbed(*SMALL), cluster.job()) == []


def test_jobs_go_on_without_the_command_that_sent_them_which_finds_them_again(cluster):
    command = cluster.submit(*SMALL)
    wait_until(lambda: cluster.steps() > 0)
    command.kill()
    number = cluster.slurm_id()
    code, printed = cluster.sweep(*SMALL)
    assert code == 0, printed
    assert "0 of 1 jobs are due" in printed
    assert cluster.slurm_id() == number


def test_a_job_goes_on_where_its_state_was_saved_after_its_node_is_lost(cluster, undisturbed):
    command = cluster.submit(
        *SMALL, "checkpoint.every.steps=10", "+hydra.launcher.additional_parameters.nodelist=node2"
    )
    wait_until(lambda: cluster.steps() > 20)
    cluster.lose_node("node2")
    wait_until(lambda: "PENDING" in cluster.ask("squeue", "--noheader", "--format=%T"))
    cluster.start_node("node2")
    cluster.start_again_soon()
    printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    assert cluster.status()["restarts"] >= 1
    assert differences(undisturbed(*SMALL), cluster.job()) == []


def test_a_job_that_is_requeued_from_outside_goes_on(cluster, undisturbed):
    command = cluster.submit(*SMALL)
    wait_until(lambda: cluster.steps() > 20)
    cluster.ask("scontrol", "requeue", cluster.slurm_id())
    cluster.start_again_soon()
    printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    assert differences(undisturbed(*SMALL), cluster.job()) == []


def test_a_killed_job_is_told_from_a_finished_one_and_goes_on_by_the_same_command(cluster, undisturbed):
    command = cluster.submit(*SMALL, "checkpoint.every.steps=10")
    wait_until(lambda: cluster.steps() > 20)
    os.kill(cluster.status()["process"], signal.SIGKILL)
    printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert "1 unfinished" in printed

    code, printed = cluster.sweep(*SMALL, "checkpoint.every.steps=10")
    assert code == 0, printed
    assert differences(undisturbed(*SMALL), cluster.job()) == []
