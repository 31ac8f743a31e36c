"""The folder of a sweep: which job has which number, how each of them stands, and what is left to do.

Everything is read from files, so that a sweep is found again after whoever started it is gone.
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
from visual_transformers.tables import print_table
from visual_transformers.runs import status

HOW_IT_RUNS = ("mode=", "resume", "checkpoint.", "debug.", "hydra", "hardware", "logger", "sweep.")
"""Beginnings of overrides that say how a sweep or job runs, and not which one it is."""
LONGEST_NAME = 80
TRAIN, NEW = "train", "new"


@dataclass(frozen=True)
class Job:
    """One job of a sweep: a run in a folder of its own.

    Args:
        number: of the job, and the name of its folder.
        folder: of the run.
        overrides: with which it is composed.
        mode: what it does.
    """

    number: int
    folder: Path
    overrides: tuple[str, ...]
    mode: str = TRAIN

    @property
    def place(self) -> Path:
        """The folder of its status: the run's, or what the mode leaves in it."""
        return self.folder if self.mode == TRAIN else self.folder / self.mode

    @property
    def status(self) -> status.Content:
        """How it stands: as its status.json says, but `unfinished` where nobody works on what is called running."""
        return status.seen(self.place, self.folder)

    @property
    def state(self) -> str:
        """The state alone; `new` if there is none yet."""
        return str(self.status.get("state", NEW))

    def is_due(self, *, retry_failed: bool) -> bool:
        """Whether it is to be started: whatever is not finished, unless somebody works on it.

        Only training is done once; the other modes take little time, and are done again.
        """
        state = self.state
        if state == "running":
            return False
        if self.mode != TRAIN or "resume=never" in self.overrides or "resume.checkpoint=never" in self.overrides:
            return True
        return state != "finished" and (retry_failed or state != "failed")

    @contextmanager
    def queued(self) -> Iterator[None]:
        """A context in which it is given to a launcher; if that fails it is as it was before."""
        before = self.queue()
        try:
            yield
        except Exception:
            self.take_back(before)
            raise

    def queue(self) -> Before:
        """Note that it is given to a launcher; returns what `take_back` needs."""
        overrides, submission = self.folder / OVERRIDES, self.place / status.SUBMISSION
        noted = (overrides, submission, self.place / status.FILE)
        before = {path: path.read_text(encoding="utf-8") if path.is_file() else None for path in noted}
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.mode == TRAIN or before[overrides] is None:  # another mode's are not those of the training
            atomic.write_text(overrides, yaml.safe_dump(list(self.overrides), width=1000))
        submission.unlink(missing_ok=True)
        status.write(self.place, "queued")
        return before

    def take_back(self, before: Before) -> None:
        """Undo `queue`, of a job that could not be sent."""
        for path, text in before.items():
            if text is None:
                path.unlink(missing_ok=True)
            else:
                atomic.write_text(path, text)
        for folder in (self.place, self.folder):
            with suppress(OSError):  # there was more in it
                folder.rmdir()

    def submitted(self, submission: Submission) -> None:
        """Note where it was sent: the scheduler's `id`, its `log`, and later that it has `ended`."""
        atomic.write_text(self.place / status.SUBMISSION, json.dumps(submission) + "\n")

    @property
    def submission(self) -> Submission:
        """Where it was sent; empty for a job of this machine."""
        return status.node(self.place / status.SUBMISSION)


Before = dict[Path, str | None]
"""What the files held in which a job's state is noted; None for one that was not there."""
Submission = dict[str, Any]
OVERRIDES = "overrides.yaml"
LAUNCHED: list[Job] = []
"""The jobs of the sweep that this process runs."""


class SweepFolder:
    """The jobs of a sweep, in folders named by their numbers."""

    def __init__(self, path: Path):
        self.path = path

    def jobs(self) -> Iterator[Job]:
        """Those that are there, by number."""
        folders = [folder for folder in self.path.glob("*") if folder.name.isdigit()]
        for folder in sorted(folders, key=lambda folder: int(folder.name)):
            if (overrides := _read_overrides(folder)) is not None:
                yield Job(int(folder.name), folder, overrides)

    def numbered(self, several: Sequence[Sequence[str]], modes: Iterable[str]) -> list[Job]:
        """A job for each list of overrides: the one that is there already, or one with the next free number.

        So jobs keep their numbers when a sweep is given further values. Where an earlier command varied what this one
        does not, as the precision, several have the same place in this one: it takes the one that is most like it.
        """
        varied = _varied(several)
        known: dict[frozenset[str], list[Job]] = defaultdict(list)
        for job in self.jobs():
            known[_identity(job.overrides, varied)].append(job)
        taken = {int(folder.name) for folder in self.path.glob("*") if folder.name.isdigit()}
        found = []
        for overrides, mode in zip(several, modes, strict=True):
            there = known[_identity(overrides, varied)]
            if not there:
                number = next(number for number in count() if number not in taken)
                taken.add(number)
                there.append(Job(number, self.path / str(number), tuple(overrides)))
            nearest = max(there, key=lambda job: len(set(overrides).intersection(job.overrides)))
            found.append(Job(nearest.number, nearest.folder, tuple(overrides), mode))
        return found


def name_of(overrides: Iterable[str]) -> str:
    """The name of a sweep: by its overrides, so that the same command finds its folder again."""
    return slug([override for override in overrides if not override.startswith(HOW_IT_RUNS)])


def slug(overrides: list[str]) -> str:
    """A folder name for a command's overrides: readable, another one for other overrides, and free of `=` and `,`.

    Those two would have to be quoted wherever a file of the sweep is named on a command line.
    """
    text = ",".join(overrides) or "defaults"
    name = re.sub(r"[^\w.+-]+", "_", text.replace("=", "-").replace(",", "+"))
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _read_overrides(folder: Path) -> tuple[str, ...] | None:
    try:
        found = yaml.safe_load((folder / OVERRIDES).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


def _varied(several: Iterable[Iterable[str]]) -> set[str]:
    """Keys whose overrides are not alike in all jobs of a sweep."""
    jobs = [set(overrides) for overrides in several]
    alike = set.intersection(*jobs) if jobs else set()
    return {override.partition("=")[0] for overrides in jobs for override in overrides - alike}


def _identity(overrides: Iterable[str], varied: set[str]) -> frozenset[str]:
    """What makes a job this one; how it runs does only where the sweep varies that, as the precision."""
    return frozenset(
        override
        for override in overrides
        if not override.startswith(HOW_IT_RUNS) or override.partition("=")[0] in varied
    )


def differing(jobs: Iterable[Job]) -> dict[int, str]:
    """What tells the jobs apart, by number: those of their overrides that not all of them have."""
    jobs = list(jobs)
    varied = _varied(job.overrides for job in jobs)
    return {
        job.number: " ".join(override for override in job.overrides if override.partition("=")[0] in varied) or "-"
        for job in jobs
    }


def print_outcomes(path: Path, jobs: list[Job]) -> None:
    """A table of how the jobs of a sweep stand, and below it why those failed that did."""
    jobs = sorted(jobs, key=lambda job: job.number)
    named, statuses = differing(jobs), [job.status for job in jobs]
    rows = [_row(job, named[job.number], found) for job, found in zip(jobs, statuses, strict=True)]
    counts = Counter(row["state"] for row in rows)
    others = len({job.number for job in SweepFolder(path).jobs()} - {job.number for job in jobs})
    besides = f" (and {others} of other commands)" if others else ""
    print_table(f"{path}: {', '.join(f'{count} {state}' for state, count in counts.items())}{besides}", rows)
    for row, job, found in zip(rows, jobs, statuses, strict=True):
        if row["state"] != "finished" and (why := found.get("traceback") or found.get("error") or log_of(job)):
            print(f"job {row['job']} {row['state']}: {str(why).strip()}")


def _row(job: Job, overrides: str, found: status.Content) -> dict[str, str]:
    score, metric = found.get("score"), found.get("about", {}).get("metric", "")
    return {
        "job": str(job.number),
        "overrides": overrides,
        "state": str(found.get("state", NEW)),
        "score": "" if score is None else f"{metric} {score:.4f}".strip(),
        "restarts": str(found.get("restarts") or ""),
    }


def log_of(job: Job) -> str:
    """Where the output of a job is kept, which a scheduler ran."""
    log = job.submission.get("log")
    return f"see {log}" if log else ""
