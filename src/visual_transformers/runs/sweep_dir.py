"""Folder of a sweep: numbers of the jobs, their status, and which of them are due.

All of it is read from files, so that a later command finds the sweep again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from visual_transformers import atomic
from visual_transformers.runs import status
from visual_transformers.tables import print_table

EXECUTION_PREFIXES = ("mode=", "resume", "checkpoint.", "debug.", "hydra", "hardware", "logger", "sweep.")
"""Prefixes of overrides that say how a sweep or job is executed, and do not identify it."""
LONGEST_NAME = 80
TRAIN, NEW = "train", "new"
OVERRIDES = "overrides.yaml"
FileContents = dict[Path, str | None]
"""Text of files by path; None for a missing file."""
Submission = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One job of a sweep: a run in its own folder, which is named by the job's number."""

    number: int
    folder: Path
    overrides: tuple[str, ...]
    mode: str = TRAIN

    @property
    def status_dir(self) -> Path:
        """Folder of the job's status: the run's, or that of the mode in it."""
        return self.folder if self.mode == TRAIN else self.folder / self.mode

    @property
    def status(self) -> status.Content:
        """Content of its status.json; the state is `unfinished` if no process works on it any longer."""
        return status.effective_status(self.status_dir, self.folder)

    @property
    def state(self) -> str:
        """State in its status; `new` if it has none."""
        return str(self.status.get("state", NEW))

    def is_due(self, *, retry_failed: bool) -> bool:
        """Return True if the job should start: it is neither running nor finished.

        Only a training is done once; the other modes take little time and are repeated.
        """
        state = self.state
        if state == "running":
            return False
        if self.mode != TRAIN or "resume=never" in self.overrides or "resume.checkpoint=never" in self.overrides:
            return True
        return state != "finished" and (retry_failed or state != "failed")

    @contextmanager
    def queue_or_restore(self) -> Iterator[None]:
        """Mark the job as queued while it is given to a launcher; restore its files if that fails."""
        before = self.mark_queued()
        try:
            yield
        except Exception:
            self.restore_files(before)
            raise

    def mark_queued(self) -> FileContents:
        """Write the job's overrides and the status `queued`; return the earlier contents of the files."""
        overrides, submission = self.folder / OVERRIDES, self.status_dir / status.SUBMISSION
        paths = (overrides, submission, self.status_dir / status.FILE)
        before = {path: path.read_text(encoding="utf-8") if path.is_file() else None for path in paths}
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.mode == TRAIN or before[overrides] is None:  # the overrides of another mode are not the training's
            atomic.write_text(overrides, yaml.safe_dump(list(self.overrides), width=1000))
        submission.unlink(missing_ok=True)
        status.write(self.status_dir, "queued")
        return before

    def restore_files(self, before: FileContents) -> None:
        """Undo `mark_queued` for a job that could not be submitted."""
        for path, text in before.items():
            if text is None:
                path.unlink(missing_ok=True)
            else:
                atomic.write_text(path, text)
        for folder in (self.status_dir, self.folder):
            with suppress(OSError):  # it holds other files
                folder.rmdir()

    def write_submission(self, submission: Submission) -> None:
        """Write the job's submission: the scheduler's `id`, its `log`, and later that it has `ended`."""
        atomic.write_text(self.status_dir / status.SUBMISSION, json.dumps(submission) + "\n")

    @property
    def submission(self) -> Submission:
        """Submission of the job; empty for a job of this machine."""
        return status.read_json(self.status_dir / status.SUBMISSION)


LAUNCHED_JOBS: list[Job] = []
"""Jobs of the sweep that this process runs."""


class SweepFolder:
    """Jobs of a sweep, in folders named by their numbers."""

    def __init__(self, path: Path):
        self.path = path

    def jobs(self) -> Iterator[Job]:
        """Yield the existing jobs by number."""
        for number in sorted(self._numbers()):
            folder = self.path / str(number)
            if (overrides := _read_overrides(folder)) is not None:
                yield Job(number, folder, overrides)

    def _numbers(self) -> set[int]:
        return {int(folder.name) for folder in self.path.glob("*") if folder.name.isdigit()}

    def assign_numbers(self, several: Sequence[Sequence[str]], modes: Iterable[str]) -> list[Job]:
        """Return a job for each list of overrides: the existing one, or one with the next free number.

        Jobs therefore keep their numbers when a sweep is given further values. Several existing jobs can match one list
        of overrides if an earlier command varied a setting that this one does not vary, e.g. the precision. The one
        that shares the most overrides is taken.
        """
        varied = _varied(several)
        known: dict[frozenset[str], list[Job]] = defaultdict(list)
        for job in self.jobs():
            known[_identity(job.overrides, varied)].append(job)
        taken = self._numbers()
        assigned = []
        for overrides, mode in zip(several, modes, strict=True):
            candidates = known[_identity(overrides, varied)]
            if not candidates:
                number = next(number for number in count() if number not in taken)
                taken.add(number)
                candidates.append(Job(number, self.path / str(number), tuple(overrides)))
            nearest = max(candidates, key=lambda job: len(set(overrides).intersection(job.overrides)))
            assigned.append(Job(nearest.number, nearest.folder, tuple(overrides), mode))
        return assigned


def make_sweep_name(overrides: Iterable[str]) -> str:
    """Name a sweep by its overrides, so that the same command finds its folder again."""
    return slugify([override for override in overrides if not override.startswith(EXECUTION_PREFIXES)])


def slugify(overrides: list[str]) -> str:
    """Turn overrides into a readable, unique folder name without `=` and `,`.

    These two would have to be quoted wherever a command line names a file of the sweep.
    """
    text = ",".join(overrides) or "defaults"
    name = re.sub(r"[^\w.+-]+", "_", text.replace("=", "-").replace(",", "+"))
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _read_overrides(folder: Path) -> tuple[str, ...] | None:
    try:
        content = yaml.safe_load((folder / OVERRIDES).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return tuple(map(str, content)) if isinstance(content, list) else None


def _varied(several: Iterable[Iterable[str]]) -> set[str]:
    """Return the keys whose overrides differ between the jobs of a sweep."""
    jobs = [set(overrides) for overrides in several]
    shared = set.intersection(*jobs) if jobs else set()
    return {override.partition("=")[0] for overrides in jobs for override in overrides - shared}


def _identity(overrides: Iterable[str], varied: set[str]) -> frozenset[str]:
    """Return the overrides that identify a job; those of its execution only if the sweep varies them."""
    return frozenset(
        override
        for override in overrides
        if not override.startswith(EXECUTION_PREFIXES) or override.partition("=")[0] in varied
    )


def describe_differences(jobs: Iterable[Job]) -> dict[int, str]:
    """Return by job number the overrides that not all jobs share, as text."""
    jobs = list(jobs)
    varied = _varied(job.overrides for job in jobs)
    return {
        job.number: " ".join(override for override in job.overrides if override.partition("=")[0] in varied) or "-"
        for job in jobs
    }


def print_outcomes(path: Path, jobs: list[Job]) -> None:
    """Print a table of the jobs of a sweep, and below it the errors of those that failed."""
    jobs = sorted(jobs, key=lambda job: job.number)
    differences, statuses, rows = describe_differences(jobs), [job.status for job in jobs], []
    for job, content in zip(jobs, statuses, strict=True):
        score, metric = content.get("score"), content.get("about", {}).get("metric", "")
        rows.append(
            {
                "job": str(job.number),
                "overrides": differences[job.number],
                "state": str(content.get("state", NEW)),
                "score": "" if score is None else f"{metric} {score:.4f}".strip(),
                "restarts": str(content.get("restarts") or ""),
            }
        )
    counts = Counter(row["state"] for row in rows)
    others = len({job.number for job in SweepFolder(path).jobs()} - {job.number for job in jobs})
    suffix = f" (and {others} of other commands)" if others else ""
    print_table(f"{path}: {', '.join(f'{count} {state}' for state, count in counts.items())}{suffix}", rows)
    for row, job, content in zip(rows, jobs, statuses, strict=True):
        reason = content.get("traceback") or content.get("error") or describe_log(job)
        if row["state"] != "finished" and reason:
            print(f"job {row['job']} {row['state']}: {str(reason).strip()}")


def describe_log(job: Job) -> str:
    """Return a reference to the scheduler's log of a job; empty if there is none."""
    log = job.submission.get("log")
    return f"see {log}" if log else ""
