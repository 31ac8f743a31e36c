"""Which folders hold the run of a training, anywhere below some folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from visual_transformers.runs import status
from visual_transformers.runs.run_dir import METRICS, OURS

MARKS = {status.FILE, METRICS, "summary.json"}
"""Files of which a run's folder has at least one."""
REPORT = "report.html"
"""A folder with this file holds an earlier report."""
OF_ONE_RUN = re.compile(r"\..*|earlier-\d+")
"""Names of folders that are no run of their own, wherever they are."""
OF_A_MODE = {name for name in OURS if "." not in name} | {"check_data", "tensorboard", "wandb"}
"""Names of folders within a run's, which are no run of their own. A run may have such a name elsewhere."""


@dataclass
class Found:
    """What there is below some folders: those of runs, and those in which nothing is known, by their path."""

    runs: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


def find(roots: Iterable[Path], *, but_for: Path) -> Found:
    """Look into all folders below `roots`, also through links, each once; `but_for` is where a report is being made."""
    found, seen = Found(), set[tuple[int, int]]()
    with suppress(OSError):
        seen.add(_identity(but_for))
    for root in roots:
        _look(root, found, seen)
    return found


def _look(folder: Path, found: Found, seen: set[tuple[int, int]]) -> bool:
    """Enter what is in a folder into `found`; returns whether there is a run or a report in it or below."""
    try:
        identity = _identity(folder)
        if identity in seen:
            return True  # a link back, or a folder that was named twice
        seen.add(identity)
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError:
        found.unreadable.append(folder)
        return True
    files = {entry.name for entry in entries if entry.name in (*MARKS, REPORT) and _is(entry.is_file)}
    if REPORT in files:
        return True
    is_run = _is_run(folder, files)
    if is_run:
        found.runs.append(folder)
    passed_over = OF_A_MODE if is_run else set[str]()
    names = [entry.name for entry in entries if not OF_ONE_RUN.fullmatch(entry.name) and _is(entry.is_dir)]
    below, foreign = False, len(found.foreign)
    for name in sorted(set(names) - passed_over, key=_numbers_by_size):
        below |= _look(folder / name, found, seen)
    if not (is_run or below) and entries:
        found.foreign[foreign:] = [folder]  # in place of those below it
    return is_run or below


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of that kind; a link in a circle, or to where we may not look, is of none."""
    try:
        return kind()
    except OSError:
        return False


def _is_run(folder: Path, files: set[str]) -> bool:
    """Whether a folder is of a training: other modes keep a status in a folder of their own name, without facts."""
    if status.FILE in files:
        content = status.read(folder)
        known = content.get("state") in get_args(status.State)
        if known and (content.get("about") or folder.name not in OF_A_MODE):
            return True
    return METRICS in files or ("summary.json" in files and (folder / "config.yaml").is_file())


def _numbers_by_size(name: str) -> list[tuple[bool, int, str]]:
    """A key by which job 10 of a sweep comes after job 9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
