"""Ctrl-C, SIGTERM and the scheduler's warning: as a request between two steps, or as an immediate stop.

This module does not import torch, so that the command line starts fast.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import TypeVar

from visual_transformers.distributed import environment
from visual_transformers.errors import Interrupted

SCHEDULER_SIGNAL = signal.SIGUSR2
"""Signal by which SLURM, as submitit configures it, warns that the job will end."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, SCHEDULER_SIGNAL)
SAME_REQUEST = 1.0
"""Seconds within which signals count as one request: torchrun forwards a Ctrl-C that all ranks received already."""
Item = TypeVar("Item")


class LoopSignal(IntEnum):
    """Action requested between two steps, by priority. REQUEUE stops and asks the scheduler to restart the job."""

    CONTINUE = 0
    SAVE = 1
    STOP = 2
    REQUEUE = 3


@contextmanager
def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` for stop signals within the context."""
    previous = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


class Interruption:
    """Stop requested by a signal: `requested` is STOP or REQUEUE from then on. Open a context with `catch`.

    A second Ctrl-C stops at once. A second SIGTERM does not: SLURM sends several, and the checkpoint being written must
    be completed.
    """

    def __init__(self) -> None:
        self.requested = LoopSignal.CONTINUE
        self._since = 0.0

    @classmethod
    @contextmanager
    def catch(cls) -> Iterator[Interruption]:
        """Catch stop signals within the context."""
        interruption = cls()
        with handle_stop_signals(interruption._on_signal):
            yield interruption

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if number == signal.SIGINT and time.monotonic() - self._since > SAME_REQUEST:
                raise KeyboardInterrupt
            return
        self.requested = LoopSignal.REQUEUE if number == SCHEDULER_SIGNAL else LoopSignal.STOP
        self._since = time.monotonic()
        if environment.is_main_process():
            print("\nstopping after this step, to save it; Ctrl-C once more stops at once", file=sys.stderr, flush=True)


class StopCoordinator:
    """Agree across ranks whether to continue, save or stop.

    Args:
        interruption: requests that this process has received.
        all_reduce_max: the largest of the values of all ranks, such as `collectives.DelayedMax`.
    """

    def __init__(self, interruption: Interruption, all_reduce_max: Callable[[int], int]) -> None:
        self._interruption, self._all_reduce_max = interruption, all_reduce_max
        self.agreed = LoopSignal.CONTINUE

    def agree(self, *, wants_save: bool = False) -> LoopSignal:
        """Return the signal that all ranks follow now. Collective."""
        own = max(self._interruption.requested, LoopSignal.SAVE if wants_save else LoopSignal.CONTINUE)
        self.agreed = LoopSignal(self._all_reduce_max(own))
        return self.agreed

    def should_stop(self) -> bool:
        """Return True if all ranks stop now. Collective."""
        return self.agree() >= LoopSignal.STOP

    def interrupted(self, message: str) -> Interrupted:
        """Build the exception that ends a run after the ranks have agreed to stop."""
        return Interrupted(message, by_scheduler=self.agreed is LoopSignal.REQUEUE)


class _CtrlC:
    received = False


def raise_on_ctrl_c() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as Python does, and remember it for `interruptible`.

    Python raises it wherever the program is; inside a callback, e.g. while processes start, it is printed and lost.
    """
    _CtrlC.received = False
    signal.signal(signal.SIGINT, _on_ctrl_c)


def _on_ctrl_c(number: int, frame: FrameType | None) -> None:
    _CtrlC.received = True
    raise KeyboardInterrupt


def interruptible(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over the items of a long loop until Ctrl-C.

    Raises:
        KeyboardInterrupt: between two items, if an earlier one was lost.
    """
    for item in items:
        if _CtrlC.received:
            raise KeyboardInterrupt
        yield item
    if _CtrlC.received:
        raise KeyboardInterrupt
