"""Compare file names, and recognize names that hold no data."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from visual_transformers.errors import DataError

NO_DATA = frozenset({"@eaDir", "__MACOSX", "__pycache__", "lost+found", "#recycle", "$RECYCLE.BIN",
                     "System Volume Information"})  # fmt: skip
"""Folders that systems and programs create beside data."""


def is_system_entry(name: str) -> bool:
    """Return True for hidden entries and for those that operating systems create."""
    return name.startswith(".") or name in NO_DATA


def normalize_name(name: str) -> str:
    """Normalize a name for comparisons: disks store `é` either as one character or as two."""
    return unicodedata.normalize("NFC", name)


def match_disk_spelling(path: Path) -> Path:
    """Return the path in the Unicode normalization that the disk uses for each of its parts."""
    if path.exists() or path == path.parent:
        return path
    above = match_disk_spelling(path.parent)
    if not above.is_dir():
        return path
    name = normalize_name(path.name)
    return next((entry for entry in above.iterdir() if normalize_name(entry.name) == name), above / path.name)


def check_link(path: str | Path) -> None:
    """Raise a DataError if the path is a link to a missing file."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: is a link to {path.readlink()}, which does not exist. Mend or remove the link.")
