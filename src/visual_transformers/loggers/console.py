"""Logger on the console."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from rich.console import Console as RichConsole
from rich.progress import Progress

from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.progress import make_bar
from visual_transformers.loggers.records import Record


@dataclass
class Console(Logger):
    """Show the loss and the metric that selects the best weights, as a progress bar or as lines."""

    progress: Literal["auto", "bar", "lines"] = "auto"
    seconds_between_lines = 10.0

    def start(self, run: RunInfo) -> None:
        """Print the run's headline, and open the bar."""
        self.scores = ("loss", run.metric)
        self.console = RichConsole(soft_wrap=True, highlight=False)
        self.console.print(run.headline)
        self.bar: Progress | None = None
        self.printed = time.monotonic()
        if self.progress == "bar" or (self.progress == "auto" and self.console.is_terminal):
            self.bar = make_bar(self.console)
            self.row = self.bar.add_task("training", total=run.total_steps, completed=run.step)
            self.bar.start()

    def advance(self) -> None:
        """Move the bar."""
        if self.bar:
            self.bar.advance(self.row)

    def record(self, record: Record) -> None:
        """Show a step next to the bar, or as a line every few seconds; print every epoch."""
        scores = "".join(
            f"  {key} {value:.4g}" for key, value in record.items() if key.partition("/")[2] in self.scores
        )
        speed = _format_speed(record.get("images_per_second"))
        text = f"epoch {record['epoch']:.4g}  step {record['step']}{scores}{speed}"
        if record["kind"] == "epoch":
            self.console.print(text)
        elif self.bar:
            self.bar.update(self.row, description=text)
        elif time.monotonic() - self.printed >= self.seconds_between_lines:
            self.console.print(text)
            self.printed = time.monotonic()

    def close(self, error: BaseException | None) -> None:
        """Remove the bar."""
        if self.bar:
            self.bar.stop()


def _format_speed(images_per_second: float | None) -> str:
    """Format images/s, with a decimal below 10: a rounded 0 would look like a run that hangs."""
    if images_per_second is None:
        return ""
    return f"  {images_per_second:.{0 if images_per_second >= 10 else 1}f} images/s"
