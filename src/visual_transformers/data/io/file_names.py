"""Names of files and folders: which hold no data, and when two of them are the same."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from visual_transformers.errors import DataError

NO_DATA = frozenset({"@eaDir", "__MACOSX", "__pycache__", "lost+found", "#recycle", "$RECYCLE.BIN",
                     "System Volume Information"})  # fmt: skip
"""Folders that systems and programs leave beside data; hidden ones, whose names begin with a dot, are none either."""


def is_system_entry(name: str) -> bool:
    """Return True for hidden entries and for those that operating systems create."""
    return name.startswith(".") or name in NO_DATA


def same(name: str) -> str:
    """A name as it is compared with others: `é` is one letter on one disk, and a letter with an accent on another."""
    return unicodedata.normalize("NFC", name)


def as_on_disk(path: Path) -> Path:
    """Return the path with its parts as the disk spells them, where that differs in Unicode normalization only."""
    if path.exists() or path == path.parent:
        return path
    above = as_on_disk(path.parent)
    if not above.is_dir():
        return path
    return next((entry for entry in above.iterdir() if same(entry.name) == same(path.name)), above / path.name)


def check_link(path: str | Path) -> None:
    """See that a path is no link to what is not there.

    Raises:
        DataError: if it is.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: is a link to {path.readlink()}, which is not there; mend or remove it")
