"""Where progress goes: the console, and the files of the run's folder. All of them get the same records."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.console import Console as RichConsole
from rich.progress import Progress

from visual_transformers import atomic, plots
from visual_transformers.progress import bar
from visual_transformers.tables import csv_text

Record = dict[str, Any]
"""Numbers of one moment: `kind` (`step` or `epoch`), `step`, `epoch`, and `train/...` or `val/...` scores."""


@dataclass(frozen=True)
class RunInfo:
    """What a logger may want to know of a run before its first record: where it goes on, and what is known by then."""

    name: str
    directory: Path
    metric: str
    step: int
    evaluated_step: int
    total_steps: int
    headline: str


class Logger(Protocol):
    """Receives the records of a run."""

    def start(self, run: RunInfo) -> None:
        """Before the first step."""

    def advance(self) -> None:
        """After every step; must not read anything from the device."""

    def record(self, record: Record) -> None:
        """At every record."""

    def close(self) -> None:
        """When training ends, stops or fails."""


class Loggers:
    """Many loggers as one; a context that opens them for a run and closes them however it ends."""

    def __init__(self, loggers: list[Logger], run: RunInfo):
        self.loggers, self.run = loggers, run

    def __enter__(self) -> Loggers:
        with ExitStack() as started:
            for logger in self.loggers:
                logger.start(self.run)
                started.callback(logger.close)
            self._started = started.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._started.close()

    def advance(self) -> None:
        """After every step."""
        for logger in self.loggers:
            logger.advance()

    def record(self, record: Record) -> None:
        """At every record."""
        for logger in self.loggers:
            logger.record(record)


@dataclass
class Console:
    """A rich progress bar on a terminal, plain lines elsewhere: the loss and the metric that picks the best weights.

    Args:
        progress: `bar`, `lines`, or `auto`: a bar on a terminal and lines elsewhere.
    """

    progress: Literal["auto", "bar", "lines"] = "auto"
    seconds_between_lines = 10.0

    def start(self, run: RunInfo) -> None:
        """Print what runs, and open the bar."""
        self.shown = ("loss", run.metric)
        self.console = RichConsole(soft_wrap=True, highlight=False)
        self.console.print(run.headline)
        self.bar: Progress | None = None
        self.printed = time.monotonic()
        if self.progress == "bar" or (self.progress == "auto" and self.console.is_terminal):
            self.bar = bar(self.console)
            self.row = self.bar.add_task("training", total=run.total_steps, completed=run.step)
            self.bar.start()

    def advance(self) -> None:
        """Move the bar."""
        if self.bar:
            self.bar.advance(self.row)

    def record(self, record: Record) -> None:
        """Show a step beside the bar, or as a line now and then; print every epoch."""
        text = _line(record, self.shown)
        if record["kind"] == "epoch":
            self.console.print(text)
        elif self.bar:
            self.bar.update(self.row, description=text)
        elif time.monotonic() - self.printed >= self.seconds_between_lines:
            self.console.print(text)
            self.printed = time.monotonic()

    def close(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()


@dataclass
class Files:
    """metrics.jsonl with every record, metrics.csv with one line an epoch, curves.png.

    Args:
        curves: whether curves.png is drawn when the run ends or stops.
    """

    curves: bool = True

    def start(self, run: RunInfo) -> None:
        """Take up the records of an earlier part of the run, but for what comes again: later steps and epochs."""
        self.run = run
        self.path = run.directory / "metrics.jsonl"
        known = {"step": run.step, "epoch": run.evaluated_step}
        self.records = [r for r in read_records(self.path) if r["step"] <= known[r["kind"]]]
        atomic.write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.records))
        self.file = self.path.open("a", encoding="utf-8")

    def advance(self) -> None:
        """Nothing: a step leaves no file."""

    def record(self, record: Record) -> None:
        """Append a line, and write the table anew after an epoch."""
        self.records.append(record)
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())  # before the state that follows it is
        if record["kind"] == "epoch":
            self._write_csv([r for r in self.records if r["kind"] == "epoch"])

    def _write_csv(self, epochs: list[Record]) -> None:
        rows = [{key: value for key, value in record.items() if key != "kind"} for record in epochs]
        atomic.write_text(self.run.directory / "metrics.csv", csv_text(rows))

    def close(self) -> None:
        """Draw the curves."""
        self.file.close()
        if self.curves and self.records:
            plots.curves(self.run.directory / "curves.png", self.records, self.run.metric, self.run.name)


def read_records(path: Path) -> list[Record]:
    """The records of a metrics.jsonl; a last line that was cut off when the run died is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _line(record: Record, shown: Collection[str]) -> str:
    """A record for the console, with those of its scores that are `shown`."""
    scores = "".join(f"  {key} {value:.4g}" for key, value in record.items() if key.partition("/")[2] in shown)
    return f"epoch {record['epoch']:.4g}  step {record['step']}{scores}{_pace(record.get('images_per_second'))}"


def _pace(images_per_second: float | None) -> str:
    """Nothing if the pace is not known; with a decimal where it is slow, for a pace of 0 would say that all stands."""
    if images_per_second is None:
        return ""
    return f"  {images_per_second:.{0 if images_per_second >= 10 else 1}f} images/s"
