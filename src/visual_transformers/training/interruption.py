"""Ctrl-C and termination as a flag that the loop asks between two steps."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any


class Interruption:
    """While it is open, the first SIGINT or SIGTERM only sets `requested`; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping after this step, to save it; once more to stop at once", file=sys.stderr, flush=True)
