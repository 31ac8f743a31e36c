"""A job whose scheduler warned it of the end: given back, to be started again where there is room."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visual_transformers.errors import INTERRUPTED, Interrupted, RunError
from visual_transformers.distributed import environment
from visual_transformers.runs import status
from visual_transformers.distributed.signals import SCHEDULER_SIGNAL


@contextmanager
def given_back(directory: Path) -> Iterator[None]:
    """A context that gives a job back to its scheduler when its run was saved because that wanted its end.

    Args:
        directory: of the run, whose status becomes `queued`.

    Raises:
        SystemExit: in the place of `Interrupted`, of a job that submitit started.
        RunError: if the scheduler is not to start it again, for it ran out of time too often.
    """
    try:
        yield
    except Interrupted as stop:
        if "SUBMITIT_EXECUTOR" not in os.environ:
            raise
        if stop.by_scheduler or is_preempted():
            _requeue(directory)
        if environment.is_first():
            print(stop, file=sys.stderr)
        sys.exit(INTERRUPTED)


def is_preempted() -> bool:
    """Whether SLURM has decided to give this job's place to another one.

    Where it sends but a TERM then, as for a cancelled job, it would not start again what ends before the time of grace.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return False
    command = ["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return "PreemptTime=" in said and "PreemptTime=None" not in said


def _requeue(directory: Path) -> None:
    """Let submitit's own handler do it, from the first of the job's processes; the others end quietly."""
    from submitit.core.job_environment import SignalHandler
    from submitit.core.utils import UncompletedJobError

    handler: Any = signal.getsignal(SCHEDULER_SIGNAL)
    if not isinstance(getattr(handler, "__self__", None), SignalHandler):
        return
    if environment.is_first():
        status.write(directory, "queued")
    try:
        handler(SCHEDULER_SIGNAL, None)
    except UncompletedJobError as error:
        raise RunError(f"{error} hydra.launcher.max_num_timeout says how often; the same command goes on") from error
    sys.exit(0)  # of a process that is not the first: its end must not fail the job
