"""Lists of files to leave out, which `mode=check_data` writes and `data.exclude` reads.

Each line is a path, absolute or relative to the folder of the list. Lines that are empty or begin with # are comments.
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from visual_transformers import atomic
from visual_transformers.data.io.file_names import normalize_name
from visual_transformers.data.io.text_lists import read_lines
from visual_transformers.errors import DataError
from visual_transformers.paths import expand_home


def read_exclude_list(list_path: str | None) -> set[str]:
    """Read the absolute paths of a list of files, if one is given; raise DataError if it is missing or not text."""
    if list_path is None:
        return set()
    path = expand_home(list_path)
    if not path.is_file():
        raise DataError(f"data.exclude={list_path}: no such file. Write one with mode=check_data.")
    rows = read_lines(path, any_bytes=True)
    files = {absolute_path(path.parent / row) for row in rows if row and not row.startswith("#")}
    if files and not any(os.path.lexists(file) for file in files):
        print(f"note: data.exclude={list_path}: none of its {len(files)} files exists; the first is {min(files)}")
    return set(map(normalize_name, files))


def write_exclude_list(path: Path, reasons: dict[str, str]) -> None:
    """Write a list of files, with each file's reason as a comment above it.

    Absolute paths keep the list valid after it is moved; they also never begin with #.
    """
    rows = ["# Files to leave out: data.exclude=<this list>"]
    for file, reason in reasons.items():
        rows += [f"# {' '.join(reason.split())}", absolute_path(file)]
    text = "\n".join(rows) + "\n"
    atomic.write(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="surrogateescape"))


def is_excluded(excluded: Set[str], *files: str | Path) -> bool:
    """Return True if any file of a sample is among the absolute paths of a list."""
    return bool(excluded) and not excluded.isdisjoint(normalize_name(absolute_path(file)) for file in files)


def absolute_path(path: str | Path) -> str:
    """Return an absolute path without resolving links."""
    return os.path.abspath(path)  # noqa: PTH100 (`resolve` would follow links and access the disk for each of them)
