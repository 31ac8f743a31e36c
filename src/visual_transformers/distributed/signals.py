"""Ctrl-C and termination as a flag that the loop asks between two steps."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import Any

from visual_transformers.distributed import environment

SCHEDULER_SIGNAL = signal.SIGUSR2
"""SLURM's warning of the end, as submitit sets it up."""
STOPPING = (signal.SIGINT, signal.SIGTERM, SCHEDULER_SIGNAL)
"""Ctrl-C, termination, and that warning."""
ONE_REQUEST = 1.0
"""Seconds within which signals are one request: torchrun passes on a Ctrl-C that the terminal has sent to all."""


class Interruption:
    """While it is open, signals only set `requested`; a second Ctrl-C stops at once.

    A second SIGTERM does not: SLURM sends one after the other, and what is being saved then should be saved.
    """

    def __init__(self) -> None:
        self.requested = False
        self.by_scheduler = False
        """Whether the request was SLURM's warning."""
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for number in STOPPING:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if number == signal.SIGINT and time.monotonic() - self._since > ONE_REQUEST:
                raise KeyboardInterrupt
            return
        self.requested, self._since = True, time.monotonic()
        self.by_scheduler = number == SCHEDULER_SIGNAL
        if environment.is_first():
            print("\nstopping after this step, to save it; Ctrl-C once more stops at once", file=sys.stderr, flush=True)
