"""Which files a folder holds, remembered between runs: listing 1.3 million files takes minutes on a network disk.

A listing is kept with the times of every folder in it, which the system changes whenever an entry comes, goes or is
renamed. It is used only while all of these times are the same; looking at them takes one call a folder.
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
UNSETTLED = 2.0
"""Seconds for which a folder counts as still changing: within the clock's grain its time may not tell two changes."""


Times = list[int]
"""When a folder's entries changed, when anything of it did (both in ns), and which folder it is (its inode).

The first alone would not do: programs that unpack or copy set it to what it was in the original.
"""


@dataclass(frozen=True)
class Listing:
    """Sorted files of a folder and its subfolders, counts of other files by ending, and each folder's times."""

    files: list[str]
    others: dict[str, int]
    folders: dict[str, Times]

    def named(self, root: Path, *, report_others: bool) -> list[str]:
        """The files; how many were passed over is printed, once, if that is asked for."""
        if self.others and report_others:
            endings = ", ".join(f"{ending or 'without an ending'} ({count})" for ending, count in self.others.items())
            _say_once(f"note: {root}: passed over {sum(self.others.values())} files that are no images: {endings}")
        return self.files


@cache
def _say_once(message: str) -> None:
    print(message)


def files_below(root: Path, suffixes: tuple[str, ...], *, report_others: bool = False) -> list[str]:
    """Paths below `root`, with `/` between folders, of the files that end in one of the lower-case `suffixes`; sorted.

    Links are followed. Hidden files and folders, whose names begin with a dot, are left out, as are those of
    `file_names.NO_DATA`. With `report_others` it is printed, once, how many others were passed over.

    Raises:
        DataError: if a folder cannot be listed, or a link leads to nothing.
    """
    kept = _cache_file(root, suffixes)
    known = _read(kept) if kept else None
    if known and all(_changed(root / name) == times for name, times in known.folders.items()):
        return known.named(root, report_others=report_others)
    now = time.time_ns()
    listing = _scan(root, suffixes)
    if kept and all(now - max(times[:2]) > UNSETTLED * 1e9 for times in listing.folders.values()):
        with contextlib.suppress(RunError):  # a full or read-only disk costs the next run its time, and nothing else
            content = json.dumps({"format": FORMAT, **asdict(listing)})
            atomic.write_text(kept, content)
    return listing.named(root, report_others=report_others)


def _scan(root: Path, suffixes: tuple[str, ...]) -> Listing:
    files: list[str] = []
    others: Counter[str] = Counter()
    folders: dict[str, Times] = {}
    seen: set[tuple[int, int]] = set()
    for path, inner, names in os.walk(root, followlinks=True, onerror=_refuse):
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not is_system_entry(name))
        below = os.path.relpath(path, root)
        folders[below] = _times(status)
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            if name.lower().endswith(suffixes) and not is_system_entry(name):
                files.append(prefix + name)
            elif not is_system_entry(name):
                ending = PurePath(name).suffix.lower()
                if not ending:  # it may have been a folder
                    check_link(Path(path, name))
                others[ending] += 1
    return Listing(sorted(files), dict(sorted(others.items(), key=lambda item: (-item[1], item[0]))), folders)


def _refuse(error: OSError) -> None:
    """A folder that cannot be read must not be left out in silence, or even be remembered so."""
    raise DataError(
        f"{error.filename}: cannot be listed ({error.strerror}); mend its permissions or its disk"
    ) from error


def _times(status: os.stat_result) -> Times:
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _changed(folder: Path) -> Times | None:
    """The times of a folder; None if it is gone."""
    try:
        return _times(folder.stat())
    except OSError:
        return None


def _cache_file(root: Path, suffixes: tuple[str, ...]) -> Path | None:
    """Where a listing is kept; nowhere for a user without a home."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    key = hashlib.sha256(json.dumps([str(root.resolve()), *suffixes]).encode()).hexdigest()
    return base / "visual_transformers" / "listings" / f"{key[:32]}.json"


def _read(path: Path) -> Listing | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Listing(content["files"], content["others"], content["folders"]) if content["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
