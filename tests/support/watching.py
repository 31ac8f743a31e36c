"""A training as a real process, and what it is doing as told from its output and its files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

STARTING, STEP, EVALUATING, SAVING, SCORING = "starting", "step", "evaluating", "checkpoint", "scoring"
"""What a run can be seen to do; `scoring` is the last: the best weights on the test split, tables and pictures."""

ANY = "any"
"""To wait for no phase: whatever the run does once it has started."""

POLL, PATIENCE = 0.002, 60.0
"""Seconds between two looks at a run, and until one without any change is hung."""

MARK = "KILLED_TRAINING"
"""Environment variable by which the processes that a start has left are found."""


class Moment(NamedTuple):
    """What a run is doing, and the step of its last record."""

    phase: str
    step: int


class HungError(Exception):
    """A process did nothing any more; with what it printed and its stack."""


class WatchedProcess:
    """One start of `python -m visual_transformers` in a folder, as a context that leaves no process behind.

    Args:
        folder: where it is started; with `name=run` in the settings, the run's folder is in it.
        settings: the command's arguments; `training.log_every` must divide `steps_per_epoch`, or no evaluation is seen.
        steps_per_epoch: of the run.
    """

    def __init__(self, folder: Path, settings: Sequence[str], steps_per_epoch: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.steps_per_epoch = steps_per_epoch
        self.run = folder / "runs" / "run"
        self.log = folder / f"start-{len(list(folder.glob('start-*.log'))) + 1}.log"
        self.mark = uuid.uuid4().hex
        self.stale = set(self.temporary_files())
        environment = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"), MARK: self.mark}
        self.started, self.started_at = time.monotonic(), time.time()
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-u", "-X", "faulthandler", "-m", "visual_transformers", *settings],
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> WatchedProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.popen.kill()  # does nothing unless something went wrong here
        self.popen.wait()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    @property
    def output(self) -> str:
        """What it printed so far, errors too."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def span(self) -> tuple[int, int] | None:
        """The steps from which and to which it goes, once it has said so."""
        said = re.search(r"steps (\d+) to (\d+) on ", self.output)
        return (int(said[1]), int(said[2])) if said else None

    def temporary_files(self) -> list[Path]:
        """Checkpoints that are being written, or were when an earlier start was killed."""
        return list((self.run / "checkpoints").glob(".last*"))

    def moment(self) -> Moment:
        """What it is doing: the order is a record of a step, an evaluation, a record of the epoch, a checkpoint.

        A start is over when the records of earlier starts have been taken up.
        """
        records = self.run / "metrics.jsonl"
        if self.span is None or (written := changed(records)) < self.started_at:
            return Moment(STARTING, 0)
        lines = records.read_text().split("\n")[:-1]
        last = json.loads(lines[-1]) if lines else {"kind": "epoch", "step": 0}
        step, (first, total) = last["step"], self.span
        if set(self.temporary_files()) - self.stale:
            return Moment(SAVING, step)
        if last["kind"] == "step":
            return Moment(STEP if step % self.steps_per_epoch else EVALUATING, step)
        if step > first and changed(self.run / "checkpoints" / "last.pt") < written:
            return Moment(SAVING, step)
        return Moment(SCORING if step == total else STEP, step)

    def moments(self) -> Iterator[Moment]:
        """What it is doing, every few milliseconds until it ends.

        Raises:
            HungError: if nothing changes any more.
        """
        seen, since = None, time.monotonic()
        while self.popen.poll() is None:
            if (now := self.moment()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                self.popen.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
                self.popen.wait()
                raise HungError(f"{self.log}: nothing happened for {PATIENCE:g} s at {now}\n{self.output}")
            yield now
            time.sleep(POLL)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        for _ in self.moments():
            pass
        return self.popen.returncode

    def wait_for(self, phase: str, delay: float) -> Moment | None:
        """Wait until it does what is waited for, and `delay` seconds longer; None if it ended before."""
        for now in self.moments():
            if now.phase == phase or (phase == ANY and now.phase != STARTING):
                if not delay:
                    return now
                time.sleep(delay)
                delay = 0.0
        return None

    def children(self) -> list[int]:
        """Processes that it started, and those that these started, whoever is their parent by now."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # it ended meanwhile, or is somebody else's
                continue
        return [number for number in found if number != self.popen.pid]

    def orphans(self, within: float) -> tuple[int, float]:
        """How many processes it left, and after how many seconds all had ended.

        Those that have not ended `within` so many seconds are killed, and the answer is infinity.
        """
        began, first = time.monotonic(), len(left := self.children())
        while left and time.monotonic() - began < within:
            time.sleep(0.1)
            left = self.children()
        for number in left:
            os.kill(number, signal.SIGKILL)
        return first, float("inf") if left else time.monotonic() - began


def changed(path: Path) -> float:
    """When a file was last changed, in seconds since 1970; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
