"""Worker thread that runs tasks one after another, so that training waits for none of them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

MAX_ERROR_LENGTH = 240


class BackgroundWorker:
    """Runs tasks in order. The first error is printed, further ones are not, and the tasks after it still run.

    The thread is a daemon: the process ends without waiting for a task that hangs.

    Args:
        name: of the service, for messages.
    """

    def __init__(self, name: str):
        self.name = name
        self.tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.has_failed = False
        self.thread = Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def submit(self, task: Callable[[], object]) -> None:
        """Queue a task; returns at once."""
        self.tasks.put(task)

    def close(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all tasks; return True if they are done."""
        self.tasks.put(None)
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _work(self) -> None:
        while task := self.tasks.get():
            try:
                task()
            except Exception as error:
                if not self.has_failed:
                    self.has_failed = True
                    print(f"note: {self.name} failed ({summarize_error(error)}); the run goes on", file=sys.stderr)


def summarize_error(error: Exception) -> str:
    """Return the type and the shortened message of an error."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", MAX_ERROR_LENGTH)
