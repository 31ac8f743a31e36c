"""Data sets that torchvision can download: where they are, or how they get there."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visual_transformers.errors import DataError

FAILURES = (OSError, RuntimeError, EOFError, tarfile.TarError)
"""What torchvision raises without a network, without room on the disk, and for an archive that is not as published."""


def present(home: Path, urls: Sequence[str], wanted: bool, fetch: Callable[[], Any]) -> Path:
    """The folder of a data set; if it is not there and `wanted`, `fetch` downloads and unpacks it first.

    Raises:
        DataError: if it is not there in the end; with the addresses, and the folder to place it by hand.
    """
    if home.is_dir():
        return home
    by_hand = f"by hand: unpack {' and '.join(urls)}\nso that there is the folder {home}"
    if not wanted:
        raise DataError(f"{home}: no such folder; data.download=true fetches it where there is a network, or {by_hand}")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        fetch()
    except FAILURES as error:
        raise DataError(f"{home}: cannot be downloaded ({type(error).__name__}: {error}); {by_hand}") from error
    return home
