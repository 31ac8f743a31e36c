"""Sweeps on this machine: names, numbers, what is done again and what is not, and how a command ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from visual_transformers.config.validation import validate
from visual_transformers.runs import status, sweep_dir
from visual_transformers.runs.lock import RunLock
from visual_transformers.runs.sweep_dir import Job, SweepFolder, describe_differences, make_sweep_name, slugify

SWEEPS = Path(__file__).parents[2] / "experiments/study"
TINY = [
    "logger=[files]", "logger.files.curves=false", "hardware.threads=1", "data.image_size=32", "data.batch_size=64",
    "model.token_channels=32", "training.samples=0", "training.steps=2", "training.log_every=1", "sweep.name=sweep",
]  # fmt: skip
LONG = ["data.batch_size=8", "training.steps=60"]
"""A run that is long enough to be disturbed in its midst."""


@pytest.fixture
def sweep(command):
    """Runs a command in an empty folder, and gives what it printed and how it ended."""
    return lambda *arguments: command(*TINY, *arguments)


def wait_for_steps(records: Path) -> None:
    """Wait until a job has recorded a few steps."""
    deadline = time.monotonic() + 120
    while not (records.exists() and records.read_text().count("\n") > 5) and time.monotonic() < deadline:
        time.sleep(0.05)


def states(folder: Path) -> dict[int, str]:
    return {job.number: job.state for job in SweepFolder(folder / "sweeps/sweep").jobs()}


def written_at(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*") if path.is_file()}


def test_a_sweep_s_name_differs_where_its_overrides_do():
    assert slugify(["model=resnet18,vt_resnet18", "seed=0,1"]).startswith("model-resnet18+vt_resnet18+seed-0+1-")
    assert slugify(["data.root=a/b"]) != slugify(["data.root=a_b"])
    assert not set("/=,'") & set(slugify(["data.root='/a/b'", "seed=0,1"]))
    assert len(slugify(["x=" + "1" * 500])) < 100


def test_a_sweep_s_name_does_not_tell_how_it_runs():
    elsewhere = ["seed=0,1", "mode=test", "hardware=slurm_1gpu", "hydra.launcher.partition=a", "resume.checkpoint=auto",
                 "logger=[files]", "sweep.retry_failed=false"]  # fmt: skip
    assert make_sweep_name(elsewhere) == make_sweep_name(["seed=0,1"])


def numbers(folder: SweepFolder, *several: list[str]) -> list[int]:
    jobs = folder.assign_numbers(several, ["train"] * len(several))
    for job in jobs:
        job.mark_queued()
    return [job.number for job in jobs]


def test_jobs_keep_their_numbers_when_a_sweep_is_given_more_values(tmp_path):
    folder = SweepFolder(tmp_path)
    assert numbers(folder, ["model=a", "seed=0"], ["model=b", "seed=0"]) == [0, 1]
    assert numbers(folder, ["model=a", "seed=0"], ["model=a", "seed=1"], ["model=b", "seed=0"]) == [0, 2, 1]


def test_a_job_is_the_same_wherever_it_runs(tmp_path):
    folder = SweepFolder(tmp_path)
    assert numbers(folder, ["seed=0", "hardware=cpu"], ["seed=1", "hardware=cpu"]) == [0, 1]
    moved = ["hardware=slurm", "mode=train", "resume.checkpoint=must"]
    assert numbers(folder, ["seed=1", *moved], ["seed=0", *moved]) == [1, 0]


def test_jobs_that_a_sweep_tells_apart_by_how_they_run_are_several(tmp_path):
    assert numbers(SweepFolder(tmp_path), ["hardware.precision=fp32"], ["hardware.precision=bf16"]) == [0, 1]


def test_a_command_that_varies_less_takes_the_jobs_that_are_most_like_its_own(tmp_path):
    folder = SweepFolder(tmp_path)
    assert numbers(folder, ["hardware.precision=fp32"], ["hardware.precision=bf16"]) == [0, 1]
    assert numbers(folder, ["hardware.precision=bf16", "hydra.launcher.partition=a"]) == [1]
    assert numbers(folder, ["hardware.precision=fp32"]) == [0]


def test_a_job_that_could_not_be_sent_is_as_it_was(tmp_path):
    job = Job(0, tmp_path / "0", ("seed=0",))
    job.restore_files(job.mark_queued())
    assert not job.folder.exists()
    job.mark_queued()
    job.write_submission({"id": "7", "log": "there.out"})
    status.write_failure(job.folder, ZeroDivisionError("here"))
    before = {path.name: path.read_text() for path in job.folder.iterdir()}
    job.restore_files(Job(0, job.folder, ("seed=0", "resume=auto")).mark_queued())
    assert {path.name: path.read_text() for path in job.folder.iterdir()} == before


def test_jobs_of_a_sweep_that_another_command_works_on_are_not_given_out(sweep, tmp_path):
    with RunLock(tmp_path / "sweeps/sweep"):
        ended = sweep("-m", "seed=0")
    assert ended.returncode == 1
    assert re.search(r"process \d+ on .* works on this sweep; .*\(sweep\.name=", ended.stderr)


def test_the_table_says_how_many_jobs_are_of_other_commands(tmp_path, capsys):
    jobs = [Job(n, tmp_path / str(n), (f"seed={n}",)) for n in range(3)]
    for job in jobs:
        job.mark_queued()
    sweep_dir.print_outcomes(tmp_path, jobs[:1])
    assert "1 queued (and 2 of other commands)" in capsys.readouterr().out


def test_another_mode_leaves_a_training_s_overrides(tmp_path):
    Job(0, tmp_path, ("seed=0",)).mark_queued()
    Job(0, tmp_path, ("seed=0", "mode=test"), mode="test").mark_queued()
    assert [job.overrides for job in SweepFolder(tmp_path.parent).jobs()] == []
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == ["seed=0"]
    assert status.read(tmp_path / "test")["state"] == "queued"


def test_what_is_in_the_way_in_a_sweep_s_folder_is_no_job(tmp_path):
    for name in ("notes", "7", "8"):
        (tmp_path / name).mkdir()
    (tmp_path / "8/overrides.yaml").write_text("{not: [a list")
    assert [*SweepFolder(tmp_path).jobs()] == []
    assert numbers(SweepFolder(tmp_path), ["seed=0"]) == [0]
    assert [job.number for job in SweepFolder(tmp_path).jobs()] == [0]


@pytest.mark.parametrize(
    ("state", "retry_failed", "due"),
    [("queued", True, True), ("failed", True, True), ("failed", False, False), ("stopped", False, True),
     ("running", False, True), ("finished", True, False)],
)  # fmt: skip
def test_a_job_is_done_again_unless_it_is_finished(tmp_path, state, retry_failed, due):
    job = Job(0, tmp_path, ("seed=0",))
    status.write(tmp_path, state)
    assert job.is_due(retry_failed=retry_failed) is due


def test_a_finished_job_is_done_again_where_that_is_asked_for(tmp_path):
    status.write(tmp_path, "finished")
    assert Job(0, tmp_path, ("seed=0", "resume.checkpoint=never")).is_due(retry_failed=True)
    assert Job(0, tmp_path, ("seed=0",), mode="test").is_due(retry_failed=True)


def test_a_job_on_which_a_process_works_is_left_to_it(tmp_path):
    status.write(tmp_path, "running")
    job = Job(0, tmp_path, ("seed=0",))
    assert job.state == "unfinished"
    with RunLock(tmp_path):
        assert job.state == "running"
        assert not job.is_due(retry_failed=True)


def test_jobs_are_told_apart_by_what_differs(tmp_path):
    jobs = [Job(n, tmp_path, ("model=a", f"seed={n}", "sweep.name=x")) for n in range(2)]
    assert describe_differences(jobs) == {0: "seed=0", 1: "seed=1"}
    assert describe_differences(jobs[:1]) == {0: "-"}


def test_the_table_says_how_every_job_stands_and_why_one_failed(tmp_path, capsys):
    jobs = [Job(n, tmp_path / str(n), (f"seed={n}",)) for n in range(3)]
    status.write(jobs[0].folder, "finished", score=0.5, about={"metric": "top1"})
    status.write_failure(jobs[1].folder, ZeroDivisionError("here"))
    jobs[2].mark_queued()
    jobs[2].write_submission({"to": "slurm", "id": "7", "log": "there.out"})
    sweep_dir.print_outcomes(tmp_path, jobs)
    printed = capsys.readouterr().out
    assert "1 finished, 1 failed, 1 queued" in printed
    assert "top1 0.5000" in printed
    assert "job 1 failed: ZeroDivisionError: here" in printed
    assert "job 2 queued: see there.out" in printed


def test_a_file_of_ones_own_for_a_mode_is_told_by_its_mode(command, tmp_path):
    (tmp_path / "mode").mkdir()
    (tmp_path / "mode/mine.yaml").write_text("# @package _global_\ndefaults: [check_data]\n")
    ended = command("-m", f"--config-dir={tmp_path}", *TINY, "mode=mine", "check_data.workers=0")
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "sweeps/sweep/0/check_data/status.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_one_failing_job_does_not_end_the_others_and_is_tried_again_alone(sweep, tmp_path):
    first = sweep("-m", "seed=0,1", "optimizer.lr=1e30,0.01")
    assert first.returncode == 1
    assert "2 of 4 jobs did not finish" in first.stderr
    assert "job 0 failed: the loss of step" in first.stdout
    assert "Traceback" not in first.stderr
    assert states(tmp_path) == {0: "failed", 1: "finished", 2: "failed", 3: "finished"}
    assert "seed=1" in yaml.safe_load((tmp_path / "sweeps/sweep/3/overrides.yaml").read_text())

    before = written_at(tmp_path / "sweeps/sweep/1")
    again = sweep("-m", "seed=0,1", "optimizer.lr=1e30,0.01")
    assert again.returncode == 1
    assert "2 of 4 jobs are due" in again.stdout
    assert written_at(tmp_path / "sweeps/sweep/1") == before

    left = sweep("-m", "seed=0,1", "optimizer.lr=1e30,0.01", "sweep.retry_failed=false", "sweep.wait=false")
    assert left.returncode == 1
    assert "0 of 4 jobs are due" in left.stdout
    assert "Failed jobs are not started again" in left.stderr


def test_mistakes_of_any_job_are_said_before_the_first_is_started(sweep, tmp_path):
    ended = sweep("-m", "seed=0,-1", "training.epochs=1,0")
    assert ended.returncode == 1
    assert "job 1: training.epochs=0: must be at least 1" in ended.stderr
    assert "job 2: seed=-1: must be at least 0" in ended.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_finished_job_of_other_settings_is_not_taken_for_this_one(sweep, tmp_path):
    assert sweep("-m", "seed=0").returncode == 0
    ended = sweep("-m", "seed=0", "hardware.precision=fp64")
    assert ended.returncode == 1
    assert "was trained with other settings" in ended.stderr
    assert "hardware.precision: fp32 -> fp64" in ended.stderr
    anew = sweep("-m", "seed=0", "hardware.precision=fp64", "resume=never")
    assert anew.returncode == 0, anew.stderr
    assert json.loads((tmp_path / "sweeps/sweep/0/status.json").read_text())["about"]["precision"] == "fp64"
    assert (tmp_path / "sweeps/sweep/0/earlier-1/config.yaml").is_file()


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_with_the_job_at_hand(sweep, tmp_path):
    command = [sys.executable, "-m", "visual_transformers", *TINY, "-m", "seed=0,1", *LONG]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        records = tmp_path / "sweeps/sweep/0/metrics.jsonl"
        wait_for_steps(records)
        os.kill(process.pid, signal.SIGTERM)
    assert process.returncode == 130
    assert states(tmp_path) == {0: "stopped"}
    again = sweep("-m", "seed=0,1", *LONG)
    assert again.returncode == 0, again.stderr
    assert states(tmp_path) == {0: "finished", 1: "finished"}
    steps = [json.loads(line)["step"] for line in records.read_text().splitlines() if '"kind": "step"' in line]
    assert steps == list(range(1, 61))


@pytest.mark.slow
def test_submitit_runs_jobs_as_processes_of_their_own_without_m(sweep, tmp_path):
    ended = sweep("hardware=submitit_local", "hardware.threads=1", "seed=0,1", "hydra.launcher.tasks_per_node=2")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert "2 finished" in ended.stdout
    assert json.loads((tmp_path / "sweeps/sweep/1/status.json").read_text())["about"]["devices"] == 2


@pytest.mark.slow
def test_a_job_that_its_scheduler_wants_back_is_started_again_and_loses_no_step(sweep, tmp_path):
    command = [sys.executable, "-m", "visual_transformers", *TINY, "hardware=submitit_local", "hardware.threads=1"]
    command += ["seed=0", *LONG]
    records, about = tmp_path / "sweeps/sweep/0/metrics.jsonl", tmp_path / "sweeps/sweep/0/status.json"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        wait_for_steps(records)
        os.kill(json.loads(about.read_text())["process"], signal.SIGUSR2)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    steps = [json.loads(line)["step"] for line in records.read_text().splitlines() if '"kind": "step"' in line]
    assert steps == list(range(1, 61))
    log = json.loads((tmp_path / "sweeps/sweep/0/submission.json").read_text())["log"]
    assert Path(log).read_text().count("Starting with") == 2


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS.glob("[ps]*_*.yaml")))
def test_every_job_of_a_published_table_is_accepted(name):
    with initialize_config_module("visual_transformers.conf", version_base="1.3"):
        params = compose("config", ["name=x", f"study={name}"], return_hydra_config=True).hydra.sweeper.params
        ((key, values),) = params.items()
        values = [value.strip() for value in values.split(",")]
        assert len(values) > 1
        for value in values:
            validate(compose("config", ["name=x", f"study={name}", f"{key}={value}", "data.root=x"]))


@pytest.mark.parametrize(
    ("option", "lines"),
    [("slurm", ["nodes=1", "ntasks-per-node=1", "cpus-per-task=4", "time=720", "signal=USR2@120", "job-name=mine"]),
     ("slurm_1gpu", ["nodes=1", "ntasks-per-node=1", "gpus-per-node=1", "cpus-per-task=8"]),
     ("slurm_8gpu", ["nodes=1", "ntasks-per-node=8", "gpus-per-node=8"]),
     ("slurm_2x8gpu", ["nodes=2", "ntasks-per-node=8", "gpus-per-node=8"])],
)  # fmt: skip
def test_a_cluster_s_options_reach_sbatch(tmp_path, monkeypatch, option, lines):
    (tmp_path / "srun").touch(mode=0o755)  # by which submitit knows a cluster
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    own = {"partition": "a", "account": "b", "qos": "c", "constraint": "d", "mem_gb": 7, "setup": "[module load e]"}
    overrides = [f"hydra.launcher.{key}={value}" for key, value in own.items()]
    overrides.append("+hydra.launcher.additional_parameters.exclude=f")
    with initialize_config_module("visual_transformers.conf", version_base="1.3"):
        cfg = compose("config", ["sweep.name=mine", f"hardware={option}", *overrides], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    cfg.hydra.launcher.submitit_folder = str(tmp_path / "logs")
    text = instantiate(cfg.hydra.launcher).executor()._executor._make_submission_file_text("python", "x")
    expected = ["partition=a", "account=b", "qos=c", "constraint=d", "mem=7GB", "exclude=f", *lines]
    assert {f"#SBATCH --{line}" for line in expected} <= set(text.splitlines())
    assert "module load e" in text


@pytest.mark.slow
def test_a_search_by_optuna_goes_on_with_the_same_trials(sweep, tmp_path):
    search = ["-m", "study=search", "hydra.sweeper.n_trials=2"]
    first = sweep(*search)
    assert first.returncode == 0, first.stderr + first.stdout
    best = yaml.safe_load((tmp_path / "sweeps/sweep/optimization_results.yaml").read_text())
    scores = [json.loads((tmp_path / f"sweeps/sweep/{n}/status.json").read_text())["score"] for n in range(2)]
    assert best["best_value"] == max(scores)

    more = sweep("-m", "study=search", "hydra.sweeper.n_trials=3")
    assert more.returncode == 0, more.stderr
    assert more.stdout.count("0 of 1 jobs are due") == 2
    assert states(tmp_path) == dict.fromkeys(range(3), "finished")

    other = sweep("-m", "study=search", "hydra.sweeper.n_trials=3", "hardware.precision=fp64")
    assert other.returncode == 1
    assert "was trained with other settings" in other.stderr


def test_a_trial_that_fails_does_not_end_a_search(command, tmp_path):
    space = yaml.safe_load((SWEEPS / "search.yaml").read_text())
    space["hydra"]["sweeper"]["params"] = {"optimizer.lr": "choice(1e30, 0.01)"}
    space["defaults"][1]["override /hydra/sweeper/sampler"] = "random"  # whose second of three draws is the first rate
    (tmp_path / "mine/study").mkdir(parents=True)
    (tmp_path / "mine/study/mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump(space))
    ended = command("--config-dir", "mine", "-m", *TINY, "study=mine", "hydra.sweeper.n_trials=3")
    assert ended.returncode == 1
    assert ended.stdout.count("jobs are due") == 3
    assert states(tmp_path) == {0: "finished", 1: "failed"}
    assert "1 of 2 jobs did not finish" in ended.stderr


@pytest.mark.parametrize("name", ["..", "a/../../b", " "])
def test_a_sweep_s_name_is_that_of_a_folder(sweep, tmp_path, name):
    ended = sweep("-m", "seed=0", f"sweep.name='{name}'")
    assert ended.returncode == 1
    assert "expected the name of a folder below sweeps/" in ended.stderr
    assert [*tmp_path.iterdir()] == []
