"""List the files of a folder, and cache the list: 1.3 million files take minutes on a network disk.

A cached listing holds the times of every folder in it, which the system changes whenever an entry is added, removed or
renamed. It is used only while all these times are unchanged; reading them takes one call per folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePath

from visual_transformers import atomic
from visual_transformers.data.io.file_names import check_link, is_system_entry
from visual_transformers.errors import DataError, RunError

FORMAT = 3
SETTLE_SECONDS = 2.0
"""Age from which a folder's time is reliable: two changes within the clock's resolution leave the same time."""

Times = list[int]
"""Modification time and status-change time of a folder, in ns, and its inode.

Programs that unpack or copy set the modification time to that of the original, so that it does not suffice.
"""


@dataclass(frozen=True)
class Listing:
    """Sorted files of a folder and its subfolders, counts of other files by suffix, and each folder's times."""

    files: list[str]
    others: dict[str, int]
    folders: dict[str, Times]


def list_files(root: Path, suffixes: tuple[str, ...], *, report_others: bool = False) -> list[str]:
    """List the files below `root` with one of the lower-case `suffixes`, sorted, with `/` between folders.

    Links are followed; hidden entries and those of `file_names.NO_DATA` are left out. With `report_others` the number
    of other files is printed once. A DataError is raised for an unreadable folder or a broken link to one.
    """
    cache_file = _cache_path(root, suffixes)
    listing = _read_cache(cache_file) if cache_file else None
    if not listing or any(_current_times(root / name) != times for name, times in listing.folders.items()):
        now = time.time_ns()
        listing = _scan(root, suffixes)
        if cache_file and all(now - max(times[:2]) > SETTLE_SECONDS * 1e9 for times in listing.folders.values()):
            with contextlib.suppress(RunError):  # on a full or read-only disk, the next run only scans again
                atomic.write_text(cache_file, json.dumps({"format": FORMAT, **asdict(listing)}))
    if listing.others and report_others:
        counts = ", ".join(f"{suffix or 'without a suffix'} ({count})" for suffix, count in listing.others.items())
        _print_once(f"note: {root}: skipped {sum(listing.others.values())} files that are not images: {counts}")
    return listing.files


@cache
def _print_once(message: str) -> None:
    print(message)


def _scan(root: Path, suffixes: tuple[str, ...]) -> Listing:
    files: list[str] = []
    others: Counter[str] = Counter()
    folders: dict[str, Times] = {}
    visited: set[tuple[int, int]] = set()
    for path, subfolders, names in os.walk(root, followlinks=True, onerror=_raise_unreadable):
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in visited:  # a link leads back to this folder
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not is_system_entry(name))
        below = os.path.relpath(path, root)
        folders[below] = _times(status)
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            if is_system_entry(name):
                continue
            if name.lower().endswith(suffixes):
                files.append(prefix + name)
                continue
            suffix = PurePath(name).suffix.lower()
            if not suffix:  # a broken link without a suffix may have led to a folder
                check_link(Path(path, name))
            others[suffix] += 1
    return Listing(sorted(files), dict(sorted(others.items(), key=lambda item: (-item[1], item[0]))), folders)


def _raise_unreadable(error: OSError) -> None:
    """Raise a DataError for a folder that cannot be read; `os.walk` would leave it out silently."""
    raise DataError(
        f"{error.filename}: cannot be listed ({error.strerror}). Mend its permissions or its disk."
    ) from error


def _times(status: os.stat_result) -> Times:
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _current_times(folder: Path) -> Times | None:
    """Return the times of a folder; None if it does not exist."""
    try:
        return _times(folder.stat())
    except OSError:
        return None


def _cache_path(root: Path, suffixes: tuple[str, ...]) -> Path | None:
    """Return the path of a cached listing; None for a user without a home folder."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    key = hashlib.sha256(json.dumps([str(root.resolve()), *suffixes]).encode()).hexdigest()
    return base / "visual_transformers" / "listings" / f"{key[:32]}.json"


def _read_cache(path: Path) -> Listing | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Listing(content["files"], content["others"], content["folders"]) if content["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
