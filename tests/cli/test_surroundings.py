"""What a run meets beside its input: shells, notebooks, containers and clusters that are not as they should be."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from visual_transformers.distributed import environment
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import ConfigError, RunError

SMALL = ["model=resnet18", "data.image_size=32", "data.batch_size=64", "training.steps=2", "hardware.threads=1"]


def run(
    folder: Path, *arguments: str, timeout: float = 120, before: Callable[[], None] | None = None, **variables: str
):
    """The program in a process of its own, with more variables and what is done before it starts."""
    command = [sys.executable, "-m", "visual_transformers", *SMALL, *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=before,
    )


@pytest.mark.slow
def test_a_folder_of_temporary_files_that_is_too_long_ends_a_run_with_a_sentence(tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    ended = run(tmp_path, "hardware.workers=2", TMPDIR=str(long))
    assert ended.returncode in (0, 1)
    if ended.returncode:  # torch may send batches without such sockets
        assert "TMPDIR" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_too_few_open_files_end_a_run_with_a_sentence(tmp_path):
    ended = run(tmp_path, "hardware.workers=2", before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)))
    assert ended.returncode == 1
    assert "ulimit -n" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_a_soft_limit_of_open_files_is_raised(tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    ended = run(tmp_path, "hardware.workers=2", before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard)))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "the environment has RANK, but not LOCAL_RANK"),
        (dict.fromkeys(environment.VARIABLES, "x"), "RANK=x (in the environment): must be a number"),
        (dict.fromkeys(environment.VARIABLES, "3"), "RANK=3 (in the environment): must be below WORLD_SIZE=3"),
    ],
)
def test_variables_of_torchrun_that_make_no_sense_are_said(command, monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = command(*SMALL)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_in_use_is_said(command, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        values = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
        for name, value in (values | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}).items():
            monkeypatch.setenv(name, value)
        ended = command(*SMALL)
    assert ended.returncode == 1
    assert f"cannot meet at 127.0.0.1:{port} (MASTER_ADDR, MASTER_PORT): another program has that port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_backend_of_a_notebook_costs_nothing(command, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://nonsense.backend")
    ended = command(*SMALL)
    assert ended.returncode == 0, ended.stderr


def test_a_user_without_a_home_gets_no_folder_called_tilde(tmp_path, monkeypatch, capsys):
    from visual_transformers.cli import main

    monkeypatch.setattr(main.os.path, "expanduser", lambda path: path)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    main.check_environment()
    assert os.environ["HOME"] not in ("", "~")
    assert "this user has no home folder" in capsys.readouterr().err


def test_hydra_s_change_of_folder_is_refused(command, tmp_path):
    ended = command(*SMALL, "hydra.job.chdir=true")
    assert ended.returncode == 1
    assert not (tmp_path / "runs").exists()
    assert "hydra.job.chdir=true: not supported, because paths are relative to the current folder" in ended.stderr


@pytest.mark.parametrize("device", ["cpu"])
def test_compiling_needs_a_compiler(monkeypatch, device):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"hardware\.compile=true: torch\.compile needs a compiler"):
        Hardware(device=device, compile=True)


def test_a_worker_that_dies_ends_a_run_with_a_sentence():
    from visual_transformers.data.loader import LoaderOptions, training_batches

    class Deadly:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int):
            os.kill(os.getpid(), signal.SIGKILL)

    batches = training_batches(Deadly(), batch_size=2, seed=0, start=0, stop=4, loading=LoaderOptions(workers=1))
    with pytest.raises(RunError, match=r"a loader process ended: .*hardware\.workers=0 loads without"):
        next(batches)
