"""A login node of the tests' cluster: sends sweeps, asks SLURM, and breaks what a test wants broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("cluster.sh")
PATIENCE = 300.0
"""Seconds that anything may take that a test waits for."""
JOB = [
    "hardware=slurm", "hardware.threads=1", "hydra.launcher.cpus_per_task=1", "logger=[console,files]",
    "logger.files.curves=false", "data.image_size=32", "training.samples=0", "training.log_every=1",
]  # fmt: skip
"""Settings of a job whose steps take some hundredths of a second."""


class Cluster:
    """A login node in a folder of its own, from which a test sends sweeps."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.environment = folder, environment
        self.home = Path(environment["SLURM_CONF"]).parent
        self.started: list[subprocess.Popen[str]] = []

    def submit(self, *overrides: str) -> subprocess.Popen[str]:
        """Start a command that sends a sweep and watches it; the sweep is called `sweep`."""
        command = [sys.executable, "-m", "visual_transformers", "sweep.name=sweep", *JOB, *overrides]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.started.append(process)
        return process

    def sweep(self, *overrides: str) -> tuple[int, str]:
        """Send a sweep, and wait for its end: the command's exit code, and what it printed."""
        process = self.submit(*overrides)
        printed, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, printed

    def ask(self, *command: str) -> str:
        """What a command of SLURM's prints."""
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()

    def job(self, number: int = 0) -> Path:
        """The folder of a job."""
        return self.folder / "sweeps/sweep" / str(number)

    def status(self, number: int = 0) -> dict[str, Any]:
        """What a job says of itself."""
        return read_json(self.job(number) / "status.json")

    def slurm_id(self, number: int = 0) -> str:
        """What SLURM calls a job."""
        return str(read_json(self.job(number) / "submission.json")["id"])

    def log(self, number: int = 0) -> str:
        """What a job has printed, as standard output and as errors."""
        out = Path(read_json(self.job(number) / "submission.json")["log"])
        return out.read_text() + out.with_name(out.name.replace("_log.out", "_log.err")).read_text()

    def steps(self, number: int = 0) -> int:
        """How many steps a job has recorded."""
        path = self.job(number) / "metrics.jsonl"
        return path.read_text().count('"kind": "step"') if path.exists() else 0

    def start_again_soon(self, *changes: str) -> None:
        """Do not let the requeued job wait for two minutes, as SLURM would; change more of it if asked to."""
        job = self.slurm_id()
        wait_until(lambda: "PENDING" in self.ask("squeue", "--noheader", "--format=%T", f"--jobs={job}"))
        self.ask("scontrol", "update", f"jobid={job}", "StartTime=now+3", *changes)

    def lose_node(self, name: str) -> None:
        """Kill the daemon of a node and everything that runs there at once: they have its hostname in common."""
        daemon = self.home / f"run/slurmd.{name}.pid"
        machine = Path(f"/proc/{daemon.read_text().strip()}/ns/uts").readlink()
        found = [int(path.parent.parent.name) for path in Path("/proc").glob("[0-9]*/ns/uts") if _link(path) == machine]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody is to tell of another's end
            for process in found:
                os.kill(process, number)
        daemon.unlink()

    def start_node(self, name: str) -> None:
        """Start a node that was lost."""
        subprocess.run([SCRIPT, "node", self.home, name], check=True, timeout=60)

    def close(self) -> None:
        """End what a test has left."""
        for process in self.started:
            process.kill()
            process.communicate()
        subprocess.run(["scancel", "--user=root"], env=self.environment, timeout=30, check=False)
        wait_until(lambda: not self.ask("squeue", "--noheader"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file; empty if it is not there yet."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


def wait_until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.2)


def _link(path: Path) -> Path | None:
    """Where a link of /proc leads; None if its process has ended."""
    try:
        return path.readlink()
    except OSError:
        return None
