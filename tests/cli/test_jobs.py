"""One job of a sweep, alone or as one of the processes that share it."""

from __future__ import annotations

import os

import pytest
from hydra.conf import HydraConf
from omegaconf import OmegaConf

from visual_transformers.cli import jobs
from visual_transformers.errors import DataError
from visual_transformers.runs import status


def test_any_process_of_a_job_says_why_it_failed_in_its_log_and_in_the_status(
    second_of_two, monkeypatch, tmp_path, capsys
):
    def failing(*_):
        raise DataError("a.png is torn")

    monkeypatch.setattr(jobs, "run_job", failing)
    with pytest.raises(DataError):
        jobs.run_sweep_job(OmegaConf.create({"mode": "train"}), HydraConf(), tmp_path)
    assert capsys.readouterr().err == "error: a.png is torn\n"
    assert status.read(tmp_path)["error"] == "a.png is torn"


def test_what_one_process_can_do_only_the_first_one_does(second_of_two, composed, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "validate_job", lambda cfg, *_: jobs.validate(cfg))
    assert jobs.run_job(composed("mode=profile"), HydraConf(), tmp_path) is None
    assert [*tmp_path.iterdir()] == []


def test_a_task_s_place_is_what_submitit_says_and_not_what_the_shell_had(second_of_two, monkeypatch):
    of_submitit = {"EXECUTOR": "local", "LOCAL_JOB_ID": "5", "LOCAL_NTASKS": "3", "LOCAL_NNODES": "1",
                   "LOCAL_NODEID": "0", "LOCAL_GLOBALID": "2", "LOCAL_LOCALID": "2"}  # fmt: skip
    for name, value in of_submitit.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    jobs.environment.export_torchrun_env()
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("2", "3")
