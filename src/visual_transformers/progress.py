"""How far a long walk is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


def bar(console: Console) -> Progress:
    """A bar between what is done and the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A context that shows how many of `total` are done; it gives what to call with the number of those just done."""
    console = Console(soft_wrap=True, highlight=False)
    if console.is_terminal:
        with bar(console) as shown:
            yield partial(shown.advance, shown.add_task(description, total=total))
    else:
        yield Lines(console, description, total).advance


@dataclass
class Lines:
    """A line at once, and another now and then."""

    console: Console
    description: str
    total: int
    done: int = 0
    printed: float = -math.inf

    def __post_init__(self) -> None:
        self.advance(0)

    def advance(self, count: int) -> None:
        """Count, and print a line if the last is long enough ago."""
        self.done += count
        if time.monotonic() - self.printed >= SECONDS_BETWEEN_LINES:
            self.console.print(f"{self.description} {self.done}/{self.total}")
            self.printed = time.monotonic()
