"""Paths and folder names that users type."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Replace a leading `~` or `~user` by that home folder; keep the name of an unknown user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib raises for an unknown user)


def is_valid_folder_name(name: str) -> bool:
    """Return True if `name`, joined to a folder, is a path below that folder."""
    return "\0" not in name and all(part.strip() and part not in (".", "..") for part in name.split("/"))
