"""A SLURM cluster for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.login_node import JOB, PATIENCE, SCRIPT, Cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a login node of a cluster that runs while the tests do."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("a SLURM cluster is set up by root on Debian alone")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # a short path: sockets lie in it
    try:
        subprocess.run([SCRIPT, "up", folder], check=True, timeout=600)
        yield os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    finally:
        subprocess.run([SCRIPT, "down", folder], timeout=120, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(slurm: dict[str, str], tmp_path: Path) -> Iterator[Cluster]:
    """The cluster, without any job on it before and after."""
    found = Cluster(tmp_path, slurm)
    yield found
    found.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of the same run as that of a job, alone on this machine; further settings win."""
    known: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            settings = [setting for setting in JOB if not setting.startswith(("hydra.", "hardware=slurm"))]
            command = [sys.executable, "-m", "visual_transformers", "name=run", *settings, *overrides]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run(command, cwd=folder, env=environment, check=True, timeout=PATIENCE, capture_output=True)
            known[overrides] = folder / "runs/run"
        return known[overrides]

    return run
