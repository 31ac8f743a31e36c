"""Ctrl-C in modes that have nothing to save: it ends them at any moment."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")


class _Asked:
    by_ctrl_c = False


def install() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as Python does, and be remembered.

    Python raises it wherever the program stands, and where that is a callback, as while processes start, it is printed
    and forgotten. `interruptible` raises it again.
    """
    _Asked.by_ctrl_c = False
    signal.signal(signal.SIGINT, _on_ctrl_c)


def _on_ctrl_c(number: int, frame: FrameType | None) -> None:
    _Asked.by_ctrl_c = True
    raise KeyboardInterrupt


def interruptible(items: Iterable[Item]) -> Iterator[Item]:
    """The items of a long walk, until Ctrl-C.

    Raises:
        KeyboardInterrupt: between two of them, if one before was forgotten.
    """
    for item in items:
        if _Asked.by_ctrl_c:
            raise KeyboardInterrupt
        yield item
    if _Asked.by_ctrl_c:
        raise KeyboardInterrupt
