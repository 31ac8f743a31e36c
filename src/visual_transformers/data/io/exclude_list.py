"""Lists of files that a data set leaves out: what `mode=check_data` writes and `data.exclude` reads.

One path a line, absolute or relative to the list's own folder; an empty line, or one that begins with #, is a comment.
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from visual_transformers import atomic
from visual_transformers.data.io.file_names import same
from visual_transformers.data.io.text_lists import lines
from visual_transformers.errors import DataError
from visual_transformers.paths import expand_home

ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}
"""So that names of any bytes go into a list and come out of it as they were."""


def excluded_files(list_path: str | None) -> set[str]:
    """The absolute paths in a list of files; none without a list.

    Raises:
        DataError: if the list is not there, or no text.
    """
    if list_path is None:
        return set()
    path = expand_home(list_path)
    if not path.is_file():
        raise DataError(f"data.exclude={list_path}: no such file; mode=check_data writes one")
    found = {absolute(path.parent / line) for line in lines(path, any_bytes=True) if line and not line.startswith("#")}
    if found and not any(os.path.lexists(file) for file in found):
        print(f"note: data.exclude={list_path}: none of its {len(found)} files is there; the first is {min(found)}")
    return set(map(same, found))


def write_exclusions(path: Path, reasons: dict[str, str]) -> None:
    """Write a list of files, with the reason of each as a comment above it.

    Paths are absolute, so that the list can be moved, and no name's own # begins a line.
    """
    lines = ["# Files to leave out: data.exclude=<this list>"]
    for file, reason in reasons.items():
        lines += [f"# {' '.join(reason.split())}", absolute(file)]
    text = "\n".join(lines) + "\n"
    atomic.write(path, lambda temporary: temporary.write_text(text, **ENCODING))


def is_excluded(excluded: Set[str], *files: str | Path) -> bool:
    """Whether one of the files of a sample is among the absolute paths of a list."""
    return bool(excluded) and not excluded.isdisjoint(same(absolute(file)) for file in files)


def absolute(path: str | Path) -> str:
    """A file's absolute path, with its links left as they are."""
    return os.path.abspath(path)  # noqa: PTH100 (`resolve` would follow links, and ask the disk for each of them)
