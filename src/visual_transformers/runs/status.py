"""Status of a run for other processes: status.json in its folder, which names one state.

Only this file decides how a run ended: a scheduler calls every job completed whose process exited.
"""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from visual_transformers import atomic, json_text
from visual_transformers.distributed.environment import is_main_process
from visual_transformers.errors import Interrupted, PeerLostError, UserError
from visual_transformers.runs.lock import is_held

State = Literal["queued", "running", "finished", "failed", "stopped"]
"""`queued`: given to a launcher; `stopped`: interrupted and saved, so that it can resume."""
Content = dict[str, Any]
FILE = "status.json"
SUBMISSION = "submission.json"
"""File next to it in which a sweep notes to which scheduler it gave a job, and later that the job has `ended`."""
LONGEST_ERROR = 2000


def write(folder: Path, state: State, **facts: Any) -> None:
    """Write status.json with a new state and `facts`: `about` (the run's metadata), `score`, `error`, `traceback`.

    Of the earlier content only `about` stays.
    """
    metadata = {key: value for key, value in read(folder).items() if key == "about"}
    when = {"state": state, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    who = {"host": socket.gethostname(), "process": os.getpid(), "job": slurm_job_id(), "restarts": restart_count()}
    content = {key: value for key, value in (when | who | metadata | facts).items() if value is not None}
    atomic.write_text(folder / FILE, json_text.dumps(content, indent=2) + "\n")


def restart_count() -> int:
    """Return how often SLURM has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def slurm_job_id() -> str | None:
    """Return the id of the SLURM job that this process belongs to, which stays the same after a restart."""
    return os.environ.get("SLURM_JOB_ID")


def read(folder: Path) -> Content:
    """Read a folder's status.json; empty if there is none or it is damaged."""
    content = read_json(folder / FILE)
    return content if isinstance(content.get("state"), str) else {}


def effective_status(folder: Path, run: Path) -> Content:
    """Read a status, and report `unfinished` if no live process holds the run's lock.

    A queued job is `unfinished` too if it ended before it wrote a status, or if the command on this machine that
    should have submitted it has ended.
    """
    content = read(folder)
    match content.get("state"):
        case "running":
            is_abandoned = not is_held(run)
        case "queued":
            submission = read_json(folder / SUBMISSION)
            is_abandoned = bool(submission.get("ended")) if submission else _is_writer_gone(content)
        case _:
            is_abandoned = False
    return content | {"state": "unfinished"} if is_abandoned else content


def _is_writer_gone(content: Content) -> bool:
    """Return True if the process that wrote a status ran on this machine and has ended."""
    is_local = content.get("host") == socket.gethostname()
    return is_local and not Path(f"/proc/{content.get('process')}").exists()


def read_json(path: Path) -> Content:
    """Read a JSON object; empty if the file is missing, damaged or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class Outcome:
    """Score of a run, which the body of `track` sets."""

    score: float | None = None


@contextmanager
def track(folder: Path, *, main: bool, **facts: Any) -> Iterator[Outcome]:
    """Keep the status at `running` within the context, then write how it ended.

    Only the main process writes the status; another one writes only an error of its own. A process that is killed
    leaves `running` behind, which `effective_status` reports as `unfinished`.
    """
    outcome = Outcome()
    if main:
        write(folder, "running", **facts)
    try:
        yield outcome
    except Exception as error:
        write_failure(folder, error)
        raise
    except (Interrupted, SystemExit):
        if main:
            write(folder, "stopped")
        raise
    if main:
        write(folder, "finished", score=outcome.score)


def write_failure(folder: Path, error: Exception) -> None:
    """Write the state `failed` with the error, and its traceback unless the message explains it."""
    if isinstance(error, PeerLostError) and (not is_main_process() or read(folder).get("state") == "failed"):
        return  # the lost process has written its error, or was the main process and did not fail
    explained = isinstance(error, UserError | OSError)
    message = str(error) if explained else f"{type(error).__name__}: {error}"
    trace = None if explained else "".join(traceback.format_exception(error))
    write(folder, "failed", error=message[-LONGEST_ERROR:], traceback=trace)
