"""Find data sets that torchvision can download, or download them."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visual_transformers.errors import DataError

DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, tarfile.TarError)
"""Errors that torchvision raises without a network or disk space, or for a damaged archive."""


def ensure_downloaded(
    folders: Sequence[Path], *, urls: Sequence[str], into: Path, wanted: bool, fetch: Callable[[], Any]
) -> None:
    """Check that the folders of a data set exist; if not and `wanted`, download them.

    Args:
        folders: folders that the archives unpack to.
        urls: addresses of the archives.
        into: folder for unpacking them by hand.
        wanted: download missing folders.
        fetch: download function of torchvision.

    Raises:
        DataError: if a folder is missing and not `wanted`, or the download fails; names the archives and `into`.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if not missing:
        return
    by_hand = f"unpack {' and '.join(urls)} into {into.absolute()} by hand"
    if not wanted:
        raise DataError(f"{missing[0]}: no such folder. Download it with data.download=true, or {by_hand}.")
    try:
        into.mkdir(parents=True, exist_ok=True)
        fetch()
    except DOWNLOAD_ERRORS as error:
        raise DataError(
            f"{missing[0]}: cannot be downloaded ({type(error).__name__}: {error}). Otherwise {by_hand}."
        ) from error
