"""What a run says of itself to those outside: status.json in its folder, which names one state at a time.

It is the only judge of how a run ended: a scheduler calls a job completed when its process ended, whatever it said.
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
from visual_transformers.errors import Interrupted, LostError, UserError
from visual_transformers.distributed.environment import is_first
from visual_transformers.runs.lock import is_held

State = Literal["queued", "running", "finished", "failed", "stopped"]
"""`queued`: given to a launcher; `stopped`: was asked to stop, saved itself, and can go on."""
Content = dict[str, Any]
FILE = "status.json"
SUBMISSION = "submission.json"
"""Beside it, where a sweep notes to which scheduler it gave a job, and that the job has `ended`."""
LONGEST_ERROR = 2000


def write(folder: Path, state: State, **facts: Any) -> None:
    """Enter a state. Facts of earlier states stay, but for how those ended.

    Args:
        folder: of the run, or of what a mode leaves there.
        state: the state that begins now.
        facts: `about` (see `about.about`), `score`, `error`, `traceback` and the like.
    """
    kept = {key: value for key, value in read(folder).items() if key == "about"}
    moment = {"state": state, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    who = {"host": socket.gethostname(), "process": os.getpid(), "job": slurm_job(), "restarts": restarts()}
    content = {key: value for key, value in (moment | who | kept | facts).items() if value is not None}
    atomic.write_text(folder / FILE, json_text.dumps(content, indent=2) + "\n")


def restarts() -> int:
    """How often SLURM has started this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def slurm_job() -> str | None:
    """SLURM's number of the job that this process belongs to, the same after every restart."""
    return os.environ.get("SLURM_JOB_ID")


def read(folder: Path) -> Content:
    """The state that a folder's status.json names, with its facts; empty if there is none that can be read."""
    content = node(folder / FILE)
    return content if isinstance(content.get("state"), str) else {}


def seen(folder: Path, run: Path) -> Content:
    """The same as it looks from outside: `unfinished` where nobody works on the `run`, whatever is said.

    That is a run that is called running, or queued by a job that ended before it said anything, or by a command of
    this machine that ended before it sent the job.
    """
    content = read(folder)
    match content.get("state"):
        case "running":
            left = not is_held(run)
        case "queued":
            sent = node(folder / SUBMISSION)
            left = bool(sent.get("ended")) if sent else _is_gone(content)
        case _:
            left = False
    return content | {"state": "unfinished"} if left else content


def _is_gone(content: Content) -> bool:
    """Whether the process that wrote a status was of this machine and has ended."""
    here = content.get("host") == socket.gethostname()
    return here and not Path(f"/proc/{content.get('process')}").exists()


def node(path: Path) -> Content:
    """What a JSON file holds; empty if it is not there, torn, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class Kept:
    """Receives the score of what is done while a status is kept."""

    score: float | None = None


@contextmanager
def kept(folder: Path, *, main: bool, **facts: Any) -> Iterator[Kept]:
    """A context whose state is `running`, and after it what became of it.

    Of several processes the main one keeps the status, and another one enters only why it failed. A process that is
    killed, or ends at once, leaves `running` behind, which is seen as `unfinished`.
    """
    outcome = Kept()
    if main:
        write(folder, "running", **facts)
    try:
        yield outcome
    except Exception as error:
        failed(folder, error)
        raise
    except (Interrupted, SystemExit):
        if main:
            write(folder, "stopped")
        raise
    if main:
        write(folder, "finished", score=outcome.score)


def failed(folder: Path, error: Exception) -> None:
    """Enter the state `failed`, with the error; with its traceback if the message does not explain it."""
    if isinstance(error, LostError) and (not is_first() or read(folder).get("state") == "failed"):
        return  # the process that was lost has said why, or was the first one, and ended otherwise than by failing
    explained = isinstance(error, UserError | OSError)
    message = str(error) if explained else f"{type(error).__name__}: {error}"
    trace = None if explained else "".join(traceback.format_exception(error))
    write(folder, "failed", error=message[-LONGEST_ERROR:], traceback=trace)
