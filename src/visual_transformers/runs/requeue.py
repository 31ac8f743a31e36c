"""Requeue of a job that its scheduler stops: the run is saved, and the same job starts again when there is room."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visual_transformers.distributed import environment
from visual_transformers.distributed.signals import SCHEDULER_SIGNAL
from visual_transformers.errors import INTERRUPTED, Interrupted, RunError
from visual_transformers.runs import status


@contextmanager
def requeue_on_interrupt(directory: Path) -> Iterator[None]:
    """Requeue the job when its run was saved and stopped because the scheduler ends or preempts it.

    Args:
        directory: the run's folder; its status becomes `queued`.

    Raises:
        SystemExit: instead of `Interrupted`, in a job that submitit started.
        RunError: if the job ran out of time too often to be started again.
    """
    try:
        yield
    except Interrupted as stop:
        if "SUBMITIT_EXECUTOR" not in os.environ:
            raise
        if stop.by_scheduler or _is_preempted():
            _requeue(directory)
        if environment.is_main_process():
            print(stop, file=sys.stderr)
        sys.exit(INTERRUPTED)


def _is_preempted() -> bool:
    """Return True if SLURM preempts this job.

    If SLURM then sends only a SIGTERM, as for a cancelled job, it would not requeue a job that ends within the grace
    time.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return False
    command = ["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return "PreemptTime=" in answer and "PreemptTime=None" not in answer


def _requeue(directory: Path) -> None:
    """Call submitit's own handler, which requeues the job from its first process; the others end quietly."""
    from submitit.core.job_environment import SignalHandler
    from submitit.core.utils import UncompletedJobError

    handler: Any = signal.getsignal(SCHEDULER_SIGNAL)
    if not isinstance(getattr(handler, "__self__", None), SignalHandler):
        return
    if environment.is_main_process():
        status.write(directory, "queued")
    try:
        handler(SCHEDULER_SIGNAL, None)
    except UncompletedJobError as error:
        raise RunError(
            f"{error} hydra.launcher.max_num_timeout limits the restarts; the same command resumes the run"
        ) from error
    sys.exit(0)  # the end of a process that is not the first must not fail the job
