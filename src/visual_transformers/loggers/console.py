"""Progress on the console."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from rich.console import Console as RichConsole
from rich.progress import Progress

from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.records import Record
from visual_transformers.progress import bar


@dataclass
class Console(Logger):
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

    def close(self, error: BaseException | None) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()


def _line(record: Record, shown: Collection[str]) -> str:
    """A record for the console, with those of its scores that are `shown`."""
    scores = "".join(f"  {key} {value:.4g}" for key, value in record.items() if key.partition("/")[2] in shown)
    return f"epoch {record['epoch']:.4g}  step {record['step']}{scores}{_pace(record.get('images_per_second'))}"


def _pace(images_per_second: float | None) -> str:
    """Nothing if the pace is not known; with a decimal where it is slow, for a pace of 0 would say that all stands."""
    if images_per_second is None:
        return ""
    return f"  {images_per_second:.{0 if images_per_second >= 10 else 1}f} images/s"
