"""Data sets that torchvision can download: whether they are there, or how they get there."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visual_transformers.errors import DataError

FAILURES = (OSError, RuntimeError, EOFError, tarfile.TarError)
"""What torchvision raises without a network, without room on the disk, and for an archive that is not as published."""


def ensure(folders: Sequence[Path], *, urls: Sequence[str], into: Path, wanted: bool, fetch: Callable[[], Any]) -> None:
    """See that the folders of a data set are there; if one is not and `wanted`, `fetch` downloads them first.

    Args:
        folders: what the archives unpack to.
        urls: the archives.
        into: where somebody who places them by hand unpacks them.
        wanted: whether to download.
        fetch: torchvision's way to do so.

    Raises:
        DataError: if they are not there in the end; with the addresses, and the folder to unpack them into.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if not missing:
        return
    by_hand = f"unpack {' and '.join(urls)} into {into.absolute()} by hand"
    if not wanted:
        raise DataError(f"{missing[0]}: no such folder; data.download=true fetches it from the network, or {by_hand}")
    try:
        into.mkdir(parents=True, exist_ok=True)
        fetch()
    except FAILURES as error:
        raise DataError(f"{missing[0]}: cannot be downloaded ({type(error).__name__}: {error}); {by_hand}") from error
