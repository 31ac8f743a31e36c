"""One thing after another in a thread of its own, so that a training waits for none of them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Background:
    """Does tasks in order. The first error is said, and further ones are not: the work goes on as if there were none.

    The thread is a daemon: a process ends without waiting for a task that hangs.

    Args:
        name: of whom to speak in messages.
    """

    def __init__(self, name: str):
        self.name = name
        self.tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.said = False
        self.thread = Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def do(self, task: Callable[[], object]) -> None:
        """Let a task be done after those before it; returns at once."""
        self.tasks.put(task)

    def close(self, seconds: float) -> bool:
        """Wait for all tasks, but not longer than `seconds`; whether they were done by then."""
        self.tasks.put(None)
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def _work(self) -> None:
        while task := self.tasks.get():
            try:
                task()
            except Exception as error:
                self._say(error)

    def _say(self, error: Exception) -> None:
        if not self.said:
            self.said = True
            print(f"note: {self.name} failed ({in_a_line(error)}); the run goes on", file=sys.stderr)


def in_a_line(error: Exception) -> str:
    """The kind and the message of an error, shortened."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", LONGEST)


LONGEST = 240
