"""Search for the folders of training runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from visual_transformers.runs import status
from visual_transformers.runs.run_dir import METRICS, RUN_FILES

REPORT = "report.html"
"""File that marks the folder of an earlier report."""
NOT_A_RUN = re.compile(r"\..*|earlier-\d+")
"""Names of folders that are never runs of their own."""
MODE_FOLDERS = {name for name in RUN_FILES if "." not in name} | {"check_data", "tensorboard", "wandb"}
"""Names of folders that are no runs inside a run's folder; elsewhere a run may have such a name."""


@dataclass
class Folders:
    """Folders below the roots of a search: those of runs, without any run, and not readable."""

    runs: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


def find_runs(roots: Iterable[Path], *, exclude: Path) -> Folders:
    """Search all folders below `roots`, also through links, each once; `exclude` is the folder of the new report."""
    found, visited = Folders(), set[tuple[int, int]]()
    with suppress(OSError):
        visited.add(_identity(exclude))
    for root in roots:
        _search(root, found, visited)
    return found


def _search(folder: Path, found: Folders, visited: set[tuple[int, int]]) -> bool:
    """Add the folders in a folder to `found`; return True unless the folder is without any run or report."""
    try:
        identity = _identity(folder)
        if identity in visited:
            return True  # by a link, or because it was named twice
        visited.add(identity)
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError:
        found.unreadable.append(folder)
        return True
    files = {entry.name for entry in entries if entry.name in (status.FILE, METRICS, REPORT) and _is(entry.is_file)}
    if REPORT in files:
        return True
    is_run = _is_run(folder, files)
    if is_run:
        found.runs.append(folder)
    names = {entry.name for entry in entries if not NOT_A_RUN.fullmatch(entry.name) and _is(entry.is_dir)}
    has_run, foreign = is_run, len(found.foreign)
    for name in sorted(names - MODE_FOLDERS if is_run else names, key=_natural_key):
        has_run |= _search(folder / name, found, visited)
    if not has_run and entries:
        found.foreign[foreign:] = [folder]  # replaces the folders in it
    return has_run


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is(test: Callable[[], bool]) -> bool:
    """Test the type of an entry; False for a circular link and for a target without permission."""
    try:
        return test()
    except OSError:
        return False


def _is_run(folder: Path, files: set[str]) -> bool:
    """Return True for the folder of a training; the status of another mode lies in a folder of its name."""
    if METRICS in files:
        return True
    content = status.read(folder) if status.FILE in files else {}
    is_known = content.get("state") in get_args(status.State)
    return is_known and bool(content.get("about") or folder.name not in MODE_FOLDERS)


def _natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts job 10 of a sweep after job 9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
