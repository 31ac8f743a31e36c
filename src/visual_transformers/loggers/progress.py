"""Progress bars and log lines for long loops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


def make_bar(console: Console) -> Progress:
    """Return a progress bar with a description, the completed share and the remaining time."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


@contextmanager
def show_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and elsewhere a line every 10 seconds; yields `advance(count)`."""
    console = Console(soft_wrap=True, highlight=False)
    if console.is_terminal:
        with make_bar(console) as bar:
            yield partial(bar.advance, bar.add_task(description, total=total))
        return
    done, printed = 0, -math.inf

    def advance(count: int) -> None:
        nonlocal done, printed
        done += count
        if time.monotonic() - printed >= SECONDS_BETWEEN_LINES:
            console.print(f"{description} {done}/{total}")
            printed = time.monotonic()

    advance(0)
    yield advance
