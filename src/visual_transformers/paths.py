"""Paths and names of folders that users give."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Replace a leading `~` or `~user` by that home folder; leave a user that does not exist as typed."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib's raises for such a user)


def makes_a_folder(name: str) -> bool:
    """Return True if a name is that of a folder below the one where it is put."""
    return "\0" not in name and all(part.strip() and part not in (".", "..") for part in name.split("/"))
